"""The reader of COCO's format against small files, pycocotools, and files that are wrong."""

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from senet_jax import UsageError
from senet_jax.data.coco_index import open_coco
from senet_jax.data.coco_json import read_coco

MASK = np.zeros((20, 30), bool)
MASK[3:9, 4:17] = True
MASK[5, 6] = False


def runs_of(mask):
    """Lengths of runs down the columns."""
    flat = np.concatenate([[False], mask.T.ravel(), [True]])
    flat[-1] = not flat[-2]
    return np.diff(np.flatnonzero(np.diff(flat)), prepend=0).tolist()


COUNTS = runs_of(MASK)
TEXT = coco_mask.encode(np.asfortranarray(MASK, np.uint8))["counts"].decode()
POLYGONS = [[1, 2, 9, 2.5, 8.3, 11, 2, 10.1], [15, 4, 28, 4, 20, 17.7]]


def file_data():
    """Two images with objects, one without, and categories with gaps."""
    images = [
        {"id": 30, "file_name": "c.png", "height": 20, "width": 30},
        {"id": 10, "file_name": "a.png", "height": 20, "width": 30},
        {"id": 20, "file_name": "é/b.png", "height": 7, "width": 5},
    ]
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}]
    boxes = {101: (10, 90, [4, 3, 13, 6]), 7: (30, 1, [-2, 5, 10, 30]), 55: (10, 1, [1, 2, 27, 16])}
    objects = [
        {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": 77.5}
        for number, (image, category, box) in boxes.items()
    ]
    objects[0] |= {"iscrowd": 1, "segmentation": {"size": [20, 30], "counts": COUNTS}}
    objects[1] |= {"iscrowd": 0, "segmentation": {"size": [20, 30], "counts": TEXT}}
    objects[2] |= {"segmentation": POLYGONS}
    return {"images": images, "annotations": objects, "categories": categories}


@pytest.fixture
def written(tmp_path):
    def write(data):
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(data))
        return path

    return write


def test_objects_lie_with_their_images(written, tmp_path):
    index = open_coco(written(file_data()), tmp_path / "cache")
    assert len(index) == 3
    assert index.names == ("person", "toothbrush")
    assert index.arrays.category_ids.tolist() == [1, 90]
    assert index.arrays.file_names.tolist() == ["c.png", "a.png", "é/b.png"]
    assert index.arrays.sizes.tolist() == [[20, 30], [20, 30], [7, 5]]
    found = index.objects(1)
    assert found.ids.tolist() == [101, 55]
    assert found.labels.tolist() == [1, 0]
    assert found.crowd.tolist() == [True, False]
    assert found.boxes.tolist() == [[4, 3, 17, 9], [1, 2, 28, 18]]
    assert found.areas.tolist() == [77.5, 77.5]
    assert index.objects(0).boxes.tolist() == [[0, 5, 8, 20]]
    assert len(index.objects(2).ids) == 0
    assert index.masks(2).shape == (0, 7, 5)
    assert index.notes == ()


def test_masks_are_those_of_all_three_notations(written, tmp_path):
    path = written(file_data())
    index = open_coco(path, tmp_path / "cache")
    crowd, polygons = index.masks(1)
    (text,) = index.masks(0)
    np.testing.assert_array_equal(crowd, MASK)
    np.testing.assert_array_equal(text, MASK)
    truth = COCO(path)
    np.testing.assert_array_equal(polygons, truth.annToMask(truth.anns[55]))
    assert polygons.sum() > 100


def test_run_lengths_of_noise_are_read_as_pycocotools_does(written, tmp_path):
    # Runs grow and shrink, so that the text has negative differences and several characters.
    noise = np.random.default_rng(0).random((300, 400)) < np.linspace(0, 1, 400) ** 4
    data = file_data()
    data["images"][0] |= {"height": 300, "width": 400}
    code = coco_mask.encode(np.asfortranarray(noise, np.uint8))["counts"].decode()
    data["annotations"][1]["segmentation"] = {"size": [300, 400], "counts": code}
    index = open_coco(written(data), tmp_path / "cache")
    np.testing.assert_array_equal(index.masks(0)[0], noise)


def test_boxes_without_area_and_polygons_of_two_points_are_out(written, tmp_path):
    data = file_data()
    outside, thin, without = (copy.deepcopy(data["annotations"][2]) for _ in range(3))
    outside |= {"id": 200, "bbox": [40, 2, 8, 8]}
    thin |= {"id": 201, "bbox": [4, 2, 0.5, 8]}
    without |= {"id": 202, "segmentation": [[1, 2, 3, 4]]}
    data["annotations"] += [outside, thin, without]
    index = open_coco(written(data), tmp_path / "cache")
    assert index.objects(1).ids.tolist() == [101, 55, 202]
    assert not index.masks(1)[2].any()
    assert index.notes == (
        "instances.json: boxes with less than 1 pixel within their image are left out, 2: "
        "annotation 200 of a.png, 201 of a.png.",
        "instances.json: objects without a polygon of three points have no mask, 1: "
        "annotation 202 of a.png.",
    )


def test_an_index_is_built_once_for_a_file(written, tmp_path, monkeypatch):
    cache, data = tmp_path / "cache", file_data()
    first = open_coco(written(data), cache)
    with monkeypatch.context() as patch:
        patch.setattr("senet_jax.data.coco_index.read_coco", None)
        again = open_coco(written(data), cache)
    assert isinstance(again.arrays.values, np.memmap)
    np.testing.assert_array_equal(again.arrays.boxes, first.arrays.boxes)
    data["categories"][0]["name"] = "brush"
    assert open_coco(written(data), cache).names == ("person", "brush")
    assert len(list(cache.iterdir())) == 2
    next(cache.glob("*/boxes.npy")).write_bytes(b"")
    with pytest.raises(UsageError, match="is damaged: remove it"):
        [open_coco(written(each), cache) for each in (data, file_data())]


def test_images_that_are_not_there_are_counted(written, tmp_path):
    index = open_coco(written(file_data()), tmp_path / "cache")
    folder = tmp_path / "images"
    with pytest.raises(UsageError, match="lacks 3 of the 3 images"):
        index.check_files(folder)
    (folder / "é").mkdir(parents=True)
    for name in ("a.png", "é/b.png"):
        (folder / name).touch()
    with pytest.raises(UsageError, match=r"lacks 1 of the 3 images .*, such as c\.png"):
        index.check_files(folder)
    (folder / "c.png").touch()
    index.check_files(folder)


def changed(place, **values):
    """The file with other values of the last image, object or category."""
    data = file_data()
    data[place][-1] |= values
    return data


def rle(**values):
    return changed("annotations", segmentation={"size": [20, 30], "counts": COUNTS, **values})


WRONG = {
    "no list": ({"images": {}}, "no file of annotations in COCO's format: 'images'"),
    "no object": ({**file_data(), "categories": [3]}, "'categories' must be a list of objects"),
    "image twice": (changed("images", id=30), "1 id is there more than once: image 30"),
    "object twice": (changed("annotations", id=7), "more than once: annotation 7"),
    "category twice": (changed("categories", id=90), "more than once: category 90"),
    "strange image": (changed("annotations", image_id=4), "an id that does not exist: image 4"),
    "strange category": (changed("annotations", category_id=2), "not exist: category 2"),
    "no size": (
        changed("images", height=None),
        "images: 'height' must be a whole number, not None",
    ),
    "size of 0": (changed("images", width=0), "'width' must be at least 1, not 0"),
    "number as text": (changed("images", id="30"), "'id' must be a whole number, not '30'"),
    "no name": (changed("images", file_name=""), "'file_name' must be a text, not ''"),
    "short box": (
        changed("annotations", bbox=[1, 2, 3]),
        "annotation 55: bbox must be a list of 4",
    ),
    "NaN": (changed("annotations", bbox=[1, 2, 3, float("nan")]), "annotation 55: bbox must be"),
    "far box": (changed("annotations", bbox=[1, 2, 3, 1e300]), "annotation 55: bbox must be"),
    "crowd": (changed("annotations", iscrowd=2), "annotation 55: iscrowd must be 0 or 1, not 2"),
    "area": (changed("annotations", area="big"), "annotation 55: area must be"),
    "odd polygon": (changed("annotations", segmentation=[[1] * 7]), "an x without a y"),
    "text": (changed("annotations", segmentation="x"), "polygons or a run-length code"),
    "other size": (
        rle(size=[30, 20]),
        r"the mask has the size \[30, 20\], but the image \[20, 30\]",
    ),
    "runs": (rle(counts=COUNTS[:-1]), "do not add up to the pixels"),
    "negative run": (rle(counts=[-1, 601]), "do not add up"),
    "torn text": (rle(counts=TEXT[:-1] + "P"), "run-length code is damaged"),
    "strange text": (rle(counts="\u00e9"), "run-length code is damaged"),
    "long text": (rle(counts="P" * 50), "run-length code is damaged"),
    "no counts": (rle(counts=None), "counts must be a list"),
}


@pytest.mark.parametrize(("data", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_in_a_sentence(written, data, message):
    with pytest.raises(UsageError, match=rf"instances\.json.*{message}.*\.$"):
        read_coco(written(data))


TINY = os.environ.get("TINY_COCO")


@pytest.mark.slow
@pytest.mark.skipif(not TINY, reason="needs TINY_COCO, a folder of annotations and images")
@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_masks_of_coco_are_those_of_pycocotools(split, tmp_path):
    path = Path(TINY, "annotations", f"instances_{split}.json")
    index, truth = open_coco(path, tmp_path), COCO(path)
    index.check_files(Path(TINY, "images", split))
    for image in range(len(index)):
        for number, mask in zip(index.objects(image).ids, index.masks(image), strict=True):
            np.testing.assert_array_equal(mask, truth.annToMask(truth.anns[int(number)]))
    assert len(index.arrays.ids) == len(truth.anns)
    assert index.arrays.crowd.any()
