"""The layouts of detection sets, and sets that are wrong."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from senet_jax import cli
from senet_jax.data import picture_sets
from senet_jax.data.digit_scenes import draw_scene
from senet_jax.data.picture_sets import PictureOptions, open_pictures
from senet_jax.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def coco(split, boxes=((2, 3, 10, 8),)):
    """One image with boxes."""
    return {
        "images": [{"id": 7, "file_name": f"{split}.png", "height": 20, "width": 30}],
        "annotations": [
            {"id": number, "image_id": 7, "category_id": 4, "bbox": list(box)}
            for number, box in enumerate(boxes)
        ],
        "categories": [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}],
    }


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(path)


def write(root, annotations, images):
    """Both splits, at the places of a layout."""
    for split in ("train", "val"):
        file = root / annotations.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(coco(split)))
        image(root / images.format(split) / f"{split}.png")
    return root


LAYOUTS = [
    ("annotations/instances_{}2017.json", "{}2017"),
    ("annotations/instances_{}2017.json", "images/{}2017"),
    ("annotations/instances_{}.json", "{}"),
    ("annotations/{}.json", "images"),
    ("instances_{}.json", "images"),
    ("{}.json", "."),
]


@pytest.mark.parametrize(("annotations", "images"), LAYOUTS)
def test_folders_are_found_as_people_have_them(tmp_path, annotations, images):
    root = write(tmp_path / "set", annotations, images)
    dataset = open_pictures("coco_json", PictureOptions(root))
    assert dataset.classes == ["cat", "dog"]
    assert dataset.category_ids == (4, 9)
    assert not dataset.masks
    assert dataset.train.picture(0, masks=False).boxes.tolist() == [[2, 3, 12, 11]]
    assert dataset.val.name(0).endswith("val.png")
    assert dataset.val.truth()["images"][0]["id"] == 7


def test_roboflow_has_the_annotations_beside_the_images(tmp_path):
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(coco(split)))
        image(tmp_path / split / f"{split}.png")
    dataset = open_pictures("coco_json", PictureOptions(tmp_path))
    assert dataset.val.name(0) == str(tmp_path / "valid/valid.png")


def test_coco_has_its_own_layout(tmp_path):
    root = write(tmp_path / "coco", "annotations/instances_{}2017.json", "{}2017")
    dataset = open_pictures("coco", PictureOptions(root.parent))
    assert dataset.train.name(0) == str(root / "train2017/train.png")


def test_an_index_in_another_process_maps_the_same_files(tmp_path):
    root = write(tmp_path / "set", "instances_{}.json", ".")
    split = open_pictures("coco_json", PictureOptions(root)).train
    data = pickle.dumps(split)
    # The arrays themselves would be some kilobytes.
    assert len(data) < 2000
    assert pickle.loads(data).picture(0, masks=False).labels.tolist() == [0]


def test_a_set_that_lacks_something_is_told_in_a_sentence(tmp_path):
    root = write(tmp_path / "set", "instances_{}.json", "images")
    good = (root / "instances_val.json").read_text()
    bird = json.dumps({**coco("val"), "categories": [{"id": 4, "name": "bird"}]})
    for change, message in (
        (lambda: (root / "images/val.png").unlink(), r"lacks 1 of the 1 images .* val.png"),
        (lambda: (root / "instances_val.json").unlink(), "no annotations of the split val"),
        (
            lambda: (root / "instances_val.json").write_text(bird),
            r"different classes: 2 \(cat, dog\) in training, and 1 \(bird\)",
        ),
        (
            lambda: (
                [(root / f"instances_val{year}.json").write_text(good) for year in (2014, 2017)]
                and (root / "instances_val.json").unlink()
            ),
            "several files for the split val, instances_val2014.json and instances_val2017.json",
        ),
    ):
        change()
        with pytest.raises(UsageError, match=message):
            open_pictures("coco_json", PictureOptions(root))
        image(root / "images/val.png")
        (root / "instances_val.json").write_text(good)
    with pytest.raises(UsageError, match="needs the path of its folder"):
        open_pictures("coco_json", PictureOptions())
    with pytest.raises(UsageError, match="unknown detection set 'cocoo'"):
        open_pictures("cocoo", PictureOptions())


def test_an_image_of_another_size_is_told(tmp_path):
    root = write(tmp_path / "set", "instances_{}.json", ".")
    Image.fromarray(np.zeros((30, 20, 3), np.uint8)).save(root / "train.png")
    split = open_pictures("coco_json", PictureOptions(root)).train
    with pytest.raises(UsageError, match=r"30x20 pixels, and its annotations say 20x30 .*EXIF"):
        split.picture(0, masks=False)


VOC = """<annotation><size><width>30</width><height>20</height></size>{}</annotation>"""
OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def write_voc(root, objects, splits=("train", "val")):
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split in splits:
        (root / f"ImageSets/Main/{split}.txt").write_text(f"{split}_1\n")
        xml = VOC.format("".join(OBJECT.format(*each) for each in objects))
        (root / f"Annotations/{split}_1.xml").write_text(xml)
        image(root / f"JPEGImages/{split}_1.jpg")
    return root


def test_voc_counts_pixels_from_one_and_both_corners(tmp_path):
    objects = [("zebra", 0, 3, 4, 12, 11), ("ant", 1, 1, 1, 30, 20), ("ant", 0, 5, 5, 5, 5)]
    dataset = open_pictures("voc_xml", PictureOptions(write_voc(tmp_path, objects)))
    assert dataset.classes == ["ant", "zebra"]
    found = dataset.train.picture(0, masks=False)
    assert found.boxes.tolist() == [[2, 3, 12, 11], [0, 0, 30, 20]]
    assert found.labels.tolist() == [1, 0]
    # Difficult objects are neither learnt nor missed.
    assert found.crowd.tolist() == [False, True]
    (note,) = dataset.train.index.notes
    assert "left out, 1: annotation 3 of train_1.jpg" in note
    assert [row["iscrowd"] for row in dataset.val.truth()["annotations"]] == [0, 1]


def test_voc_itself_has_its_classes_in_their_order(tmp_path):
    objects = [("dog", 0, 3, 4, 12, 11)]
    dataset = open_pictures("voc_xml", PictureOptions(write_voc(tmp_path, objects)))
    assert len(dataset.classes) == 20
    assert dataset.train.picture(0, masks=False).labels.tolist() == [11]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "is no annotation of PASCAL VOC: no element found"),
        (VOC.format("<object><name>a</name></object>"), "it has no bndbox/xmin"),
        (VOC.format(OBJECT.format("a", 0, "x", 1, 2, 3)), "could not convert string to float"),
        (VOC.format(OBJECT.format("a", 0, "nan", 1, 2, 3)), "bndbox/xmin is nan"),
        (VOC.format(OBJECT.format("", 0, 1, 1, 2, 3)), "an object has no name"),
        ("<annotation/>", "it has no size/height"),
    ],
)
def test_an_xml_that_is_none_is_told_with_its_name(tmp_path, text, message):
    root = write_voc(tmp_path, [("a", 0, 1, 1, 5, 5)])
    (root / "Annotations/train_1.xml").write_text(text)
    with pytest.raises(UsageError, match=f"train_1.xml is no annotation .*{message}|{message}"):
        open_pictures("voc_xml", PictureOptions(root))


def test_voc_without_an_image_or_a_list_is_told(tmp_path):
    root = write_voc(tmp_path, [("a", 0, 1, 1, 5, 5)])
    (root / "JPEGImages/val_1.jpg").unlink()
    with pytest.raises(UsageError, match=r"lacks 1 of the 1 images .* JPEGImages/val_1.jpg"):
        open_pictures("voc_xml", PictureOptions(root))
    with pytest.raises(UsageError, match="unknown split 'tset'"):
        open_pictures("voc_xml", PictureOptions(root, val_split="tset"))
    (root / "ImageSets/Main/train.txt").unlink()
    with pytest.raises(UsageError, match="lists the training images"):
        open_pictures("voc_xml", PictureOptions(root))


def test_drawn_scenes_have_the_boxes_and_masks_of_their_digits(monkeypatch):
    monkeypatch.setattr(picture_sets, "TRAIN_SCENES", 4)
    monkeypatch.setattr(picture_sets, "VAL_SCENES", 12)
    dataset = open_pictures("scenes", PictureOptions())
    assert dataset.masks
    assert dataset.classes == [str(digit) for digit in range(10)]
    for index in (3, 11):
        scene, found = draw_scene("val", 0, index), dataset.val.picture(index, masks=True)
        assert np.array_equal(found.image, scene.image)
        assert np.array_equal(found.boxes, scene.boxes)
        assert np.array_equal(found.masks, scene.masks)
        assert np.array_equal(found.labels, scene.classes)
    with pytest.raises(UsageError, match="scenes are drawn"):
        open_pictures("scenes", PictureOptions(Path("x")))


def test_the_objects_of_a_set_are_counted(tmp_path, capsys):
    objects = [("zebra", 0, 3, 4, 12, 11), ("ant", 1, 1, 1, 30, 20), ("ant", 0, 5, 5, 5, 5)]
    root = write_voc(tmp_path, [*objects, ("zebra", 0, 1, 1, 5, 5)])
    assert cli.main(["prepare", "voc_xml", "--data-dir", str(root)]) == 0
    said = capsys.readouterr().out
    assert (
        "training: 1 images of 1 size, 20x30 to 20x30 pixels, 2 objects without masks, at most 2 "
        "in an image, 0 images without any, 1 crowds or difficult objects" in said
    )
    assert "left out, 1: annotation 3 of train_1.jpg" in said
    assert "zebra         2           2" in said
    assert cli.main(["prepare", "voc_xml", "--data-dir", str(root), "--manual-dir", "x"]) == 2
    assert "leave out --manual-dir" in capsys.readouterr().err
