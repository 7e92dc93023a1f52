import pickle

import numpy as np
import pytest
from PIL import Image
from scene_folder import write_masks, write_scene
from scipy.io import savemat

from senet_jax.data import scene_sets
from senet_jax.data.scene_names import CITYSCAPES, CONTEXT, VOC, voc_colors
from senet_jax.data.scene_sets import SCENE_SETS, SceneOptions, open_scenes
from senet_jax.errors import UsageError


def opened(name, folder, **options):
    return open_scenes(name, SceneOptions(folder, **options))


def names(scenes):
    return [pair.image for pair in scenes.pairs]


@pytest.fixture
def ade(tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    for split, folder, count in (("training", "train", 3), ("validation", "val", 2)):
        for index in range(count):
            name = f"{split}/ADE_{folder}_{index:08}"
            write_scene(
                root,
                f"images/{name}.jpg",
                f"annotations/{name}.png",
                values=(0, 1, 150),
                seed=index,
            )
    rows = [f"{i}\t0.1\t10\t1\tname{i}, other" for i in range(1, 151)]
    rows[4], rows[6] = "5\t0.1\t10\t1\tscreen, a", "7\t0.1\t10\t1\tscreen, b"
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + "\n".join(rows))
    return tmp_path


def test_ade20k(ade):
    dataset = opened("ade20k", ade)
    assert names(dataset.train)[0] == "images/training/ADE_train_00000000.jpg"
    assert (len(dataset.train), len(dataset.val), len(dataset.classes)) == (3, 2, 150)
    assert dataset.classes[:7] == [
        "name1",
        "name2",
        "name3",
        "name4",
        "screen 5",
        "name6",
        "screen 7",
    ]
    stored = np.asarray(Image.open(ade / "ADEChallengeData2016" / dataset.train.pairs[0].label))
    label = dataset.train.scene(0).label
    assert np.array_equal(label, np.where(stored == 0, 255, stored.astype(int) - 1))
    assert dataset.ignore_label == 255
    assert names(opened("ade20k", ade / "ADEChallengeData2016").train) == names(dataset.train)


def test_cityscapes_maps_label_ids_to_train_ids(tmp_path):
    for split in ("train", "val"):
        for city in ("aachen", "bochum"):
            stem = f"{city}/{city}_000000_000019"
            write_scene(
                tmp_path,
                f"leftImg8bit/{split}/{stem}_leftImg8bit.png",
                f"gtFine/{split}/{stem}_gtFine_labelIds.png",
                values=(0, 7, 11, 29, 33),
            )
            for other in ("color", "instanceIds"):
                Image.new("L", (8, 6)).save(tmp_path / f"gtFine/{split}/{stem}_gtFine_{other}.png")
    dataset = opened("cityscapes", tmp_path)
    assert names(dataset.val) == [
        f"leftImg8bit/val/{city}/{city}_000000_000019_leftImg8bit.png"
        for city in ("aachen", "bochum")
    ]
    stored = np.asarray(Image.open(tmp_path / dataset.train.pairs[0].label))
    expected = np.select([stored == 7, stored == 11, stored == 33], [0, 2, 18], 255)
    assert np.array_equal(dataset.train.scene(0).label, expected)
    assert len(dataset.classes) == len(CITYSCAPES) == 19
    assert dataset.classes[13] == "car"
    assert dataset.palette[13] == (0, 0, 142)


def write_voc(root, folder="VOC2012", labels="SegmentationClass", lists="Segmentation", count=6):
    for index in range(count):
        write_scene(
            root,
            f"{folder}/JPEGImages/2007_{index:06}.jpg",
            f"{folder}/{labels}/2007_{index:06}.png",
            values=(0, 20, 255),
            seed=index,
            mode="P",
        )
    write_lists(root / folder / "ImageSets" / lists, train=(0, 2), val=(1,), prefix="2007_")
    return root / folder


def write_lists(folder, prefix="", **splits):
    folder.mkdir(parents=True, exist_ok=True)
    for split, indices in splits.items():
        lines = "".join(f"{prefix}{index:06}\n" for index in indices)
        (folder / f"{split}.txt").write_text(lines)


@pytest.mark.parametrize("place", ["", "VOCdevkit"])
def test_voc_is_read_by_its_lists(tmp_path, place):
    root = write_voc(tmp_path / place)
    dataset = opened("voc2012", tmp_path)
    assert names(dataset.train) == ["JPEGImages/2007_000000.jpg", "JPEGImages/2007_000002.jpg"]
    assert names(dataset.val) == ["JPEGImages/2007_000001.jpg"]
    assert dataset.classes == list(VOC)
    stored = np.asarray(Image.open(root / "SegmentationClass/2007_000002.png"))
    assert np.array_equal(dataset.train.scene(1).label, stored)
    assert set(np.unique(stored)) == {0, 20, 255}


def write_sbd(folder, indices):
    (folder / "cls").mkdir(parents=True)
    for index in indices:
        label = np.full((6, 8), index, np.uint8)
        savemat(folder / "cls" / f"2007_{index:06}.mat", {"GTcls": {"Segmentation": label}})


def test_sbd_adds_its_images_that_voc_does_not_hold_out(tmp_path):
    write_voc(tmp_path / "VOCdevkit")
    sbd = tmp_path / "benchmark_RELEASE" / "dataset"
    write_sbd(sbd, (0, 1, 3, 4))
    write_lists(sbd, train=(0, 1), val=(3, 4), prefix="2007_")
    dataset = opened("voc2012_aug", tmp_path)
    assert [name.split("/")[-1] for name in names(dataset.train)] == [
        f"2007_{index:06}.jpg" for index in (0, 2, 3, 4)
    ]
    assert names(dataset.val) == ["VOCdevkit/VOC2012/JPEGImages/2007_000001.jpg"]
    # 0 has the label of VOC, 4 that of SBD.
    assert set(np.unique(dataset.train.scene(0).label)) == {0, 20, 255}
    assert np.unique(dataset.train.scene(3).label).tolist() == [4]
    assert dataset.val.scene(0).label.shape == (6, 8)
    assert dataset.train.sizes.tolist() == [[6, 8]] * 4


def test_sbd_may_be_a_folder_of_labels_in_voc(tmp_path):
    root = write_voc(tmp_path)
    (root / "SegmentationClassAug").mkdir()
    for index in range(5):
        Image.new("L", (8, 6), index).save(root / "SegmentationClassAug" / f"2007_{index:06}.png")
    dataset = opened("voc2012_aug", tmp_path)
    assert [name[-5] for name in names(dataset.train)] == ["0", "2", "3", "4"]
    assert set(np.unique(dataset.train.scene(0).label)) == {0, 20, 255}
    assert np.unique(dataset.train.scene(3).label).tolist() == [4]


def test_sbd_that_is_missing_is_told(tmp_path):
    write_voc(tmp_path)
    with pytest.raises(UsageError, match="no SBD beside PASCAL VOC"):
        opened("voc2012_aug", tmp_path)


def test_pascal_context_ignores_the_background(tmp_path):
    root = write_voc(tmp_path, "VOC2010", "SegmentationClassContext", "SegmentationContext")
    for index in range(6):
        Image.new("L", (8, 6), (0, 59, 1)[index % 3]).save(
            root / f"SegmentationClassContext/2007_{index:06}.png"
        )
    dataset = opened("pascal_context", tmp_path)
    assert dataset.classes == list(CONTEXT) == sorted(CONTEXT)
    assert len(dataset.classes) == 59
    found = [np.unique(dataset.train.scene(index).label).tolist() for index in range(2)]
    assert found == [[255], [0]]
    (root / "SegmentationClassContext").rename(root / "59_context_labels")
    (root / "59_labels.txt").write_text("".join(f"{n}: class{n}\n" for n in range(1, 60)))
    assert opened("pascal_context", tmp_path).classes[:2] == ["class1", "class2"]


@pytest.mark.parametrize("layout", ["segnet", "folders"])
def test_camvid_holds_out_its_test_split(tmp_path, layout):
    for split in ("train", "val", "test"):
        image, label = {
            "segnet": (f"CamVid/{split}", f"CamVid/{split}annot"),
            "folders": (f"images/{split}", f"annotations/{split}"),
        }[layout]
        write_scene(tmp_path, f"{image}/{split}1.png", f"{label}/{split}1.png", values=(0, 10, 11))
    dataset = opened("camvid", tmp_path)
    assert names(dataset.val)[0].endswith("test1.png")
    assert set(np.unique(dataset.val.scene(0).label)) == {0, 10, 255}
    assert names(opened("camvid", tmp_path, val_split="val").val)[0].endswith("val1.png")
    with pytest.raises(UsageError, match="unknown split 'tset': did you mean test"):
        opened("camvid", tmp_path, val_split="tset")


def test_masks_in_folders(tmp_path):
    written = write_masks(tmp_path)
    dataset = opened("masks", tmp_path)
    assert dataset.classes == ["sky", "road", "car"]
    assert dataset.image_shape == (6, 8, 3)
    assert dataset.photographs
    for split, scenes in (("train", dataset.train), ("val", dataset.val)):
        assert len(scenes) == len(written[split])
        for index, (image, label) in enumerate(written[split]):
            scene = scenes.scene(index)
            assert np.array_equal(scene.image, image)
            assert np.array_equal(scene.label, label)
    taken = pickle.loads(pickle.dumps(dataset.train)).taken(np.array([2, 0]))
    assert names(taken) == ["images/train/02.png", "images/train/00.png"]
    assert np.array_equal(taken.scene(0).label, written["train"][2][1])


def test_masks_by_lists(tmp_path):
    for name in ("a", "b", "sub/c"):
        write_scene(tmp_path, f"images/{name}.jpg", f"annotations/{name}.png")
    (tmp_path / "classes.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "train.txt").write_text("sub/c\n\na.jpg\n")
    (tmp_path / "test.txt").write_text("b\n")
    dataset = opened("masks", tmp_path)
    assert names(dataset.train) == ["images/sub/c.jpg", "images/a.jpg"]
    assert names(dataset.val) == ["images/b.jpg"]
    (tmp_path / "train.txt").write_text("a\nmissing\n")
    with pytest.raises(UsageError, match=r"1 name of its list without an image \(missing\)"):
        opened("masks", tmp_path)


def test_another_value_may_be_ignored(tmp_path):
    write_scene(tmp_path, "images/train/a.png", "annotations/train/a.png", values=(0, 1, 2))
    write_scene(tmp_path, "images/val/a.png", "annotations/val/a.png", values=(0, 1, 2))
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    dataset = opened("masks", tmp_path, ignore_label=0)
    stored = np.asarray(Image.open(tmp_path / "annotations/train/a.png"))
    expected = np.choose(stored, [255, 0, 1])
    assert np.array_equal(dataset.train.scene(0).label, expected)
    with pytest.raises(UsageError, match=r"data\.ignore_label is for the set masks"):
        opened("camvid", tmp_path, ignore_label=0)


def test_images_of_several_sizes_need_a_crop(tmp_path):
    write_masks(tmp_path, sizes=((6, 8), (8, 6)))
    with pytest.raises(UsageError, match=r"2 sizes, such as 6x8 and 8x6 pixels: give .*crop.size"):
        opened("masks", tmp_path)
    assert opened("masks", tmp_path, frame=(4, 4)).image_shape == (4, 4, 3)


def test_what_is_missing_is_named(tmp_path):
    write_masks(tmp_path)
    (tmp_path / "annotations/train/01.png").unlink()
    (tmp_path / "images/train/03.png").unlink()
    with pytest.raises(UsageError) as error:
        opened("masks", tmp_path)
    assert "1 image without a label in annotations/train (images/train/01.png)" in str(error.value)
    assert "1 label without an image in images/train (annotations/train/03.png)" in str(error.value)
    write_scene(tmp_path, "images/val/00.jpg", "annotations/val/00.png")
    (tmp_path / "annotations/train/01.png").write_bytes(b"")
    (tmp_path / "images/train/03.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"two files for one scene, images/val/00.jpg and"):
        opened("masks", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ade20k", "no ade20k in .*no folder annotations or ADEChallengeData2016/annotations"),
        ("voc2012", "no folder SegmentationClass or VOC2012"),
        ("cityscapes", "no folder gtFine"),
        ("pascal_context", "no folder JPEGImages or VOC2010"),
        ("camvid", "no folder trainannot or CamVid/trainannot"),
        ("masks", "masks are DIR/images, DIR/annotations .* and DIR/classes.txt"),
        ("ade", "unknown segmentation set 'ade': did you mean ade20k"),
        ("scenes", "leave out --data.dir"),
    ],
)
def test_a_set_that_is_not_there_is_told(tmp_path, name, message):
    with pytest.raises(UsageError, match=message):
        opened(name, tmp_path)


def test_every_set_of_files_needs_a_folder():
    for name in SCENE_SETS.keys() - {"scenes"}:
        with pytest.raises(UsageError, match=f"{name} needs the path of its folder"):
            open_scenes(name, SceneOptions())


def test_scenes_are_drawn_in_memory(monkeypatch):
    monkeypatch.setattr(scene_sets, "TRAIN_SCENES", 2048)
    dataset = open_scenes("scenes", SceneOptions())
    assert (len(dataset.train), len(dataset.val)) == (2048, 512)
    assert dataset.image_shape == (64, 64, 3)
    assert not dataset.photographs
    pixels = dataset.train.images / 255
    assert pixels.mean((0, 1, 2)) == pytest.approx(dataset.mean, abs=1e-3)
    assert pixels.std((0, 1, 2)) == pytest.approx(dataset.std, abs=1e-3)
    with pytest.raises(UsageError, match="64 to 192 pixels, not 32"):
        open_scenes("scenes", SceneOptions(side=32))


def test_colours_of_voc():
    colours = voc_colors(256)
    assert colours[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert colours[20] == (0, 64, 128)
    assert colours[255] == (224, 224, 192)
    assert len(set(colours)) == 256
