"""The catalogue of detection sets: from a name to two splits of pictures."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from senet_jax.data.class_folders import check_class_names
from senet_jax.data.coco_folders import HELD_OUT, TRAIN, find_annotations, find_images
from senet_jax.data.coco_index import CocoIndex, open_coco
from senet_jax.data.coco_json import pack_coco
from senet_jax.data.datasets import IMAGENET_MEAN, IMAGENET_STD
from senet_jax.data.digit_scenes import LEAST_SIDE, draw_scene
from senet_jax.data.pictures import (
    ImagesInFiles,
    ImagesInMemory,
    PictureDataset,
    Pictures,
    has_masks,
    run_lengths,
)
from senet_jax.data.scene_folders import choose_split, find_root
from senet_jax.data.scene_sets import VAL_SCENES
from senet_jax.data.voc_xml import VOC_CLASSES, read_voc
from senet_jax.errors import UsageError, choose
from senet_jax.text import printable

TRAIN_SCENES = 2048
"""Training scenes that are drawn of digits; each is drawn again when it is read."""


@dataclasses.dataclass(frozen=True)
class PictureOptions:
    """Options with which a set is opened."""

    directory: Path | None = None
    """Folder of the set."""
    side: int | None = None
    """Height and width of drawn scenes, pixels; None means 64."""
    val_split: str | None = None
    """The held-out split; None means that of the set."""
    exif_orientation: bool = False
    """Turn images as their EXIF says."""


def open_pictures(name: str, options: PictureOptions) -> PictureDataset:
    """Opens a detection set that is on this machine.

    Args:
        name: A name of ``PICTURE_SETS``.
        options: Its folder, and the options of reading.

    Raises:
        UsageError: An unknown name, a set that is not there or lacks files, or an option that the
            set does not have.
    """
    opened = PICTURE_SETS[choose("detection set", name, PICTURE_SETS)]
    if name != "scenes":
        if options.side is not None:
            raise UsageError(
                f"data.image_size is for drawn scenes: the images of {name} are scaled by "
                "--data.objects.short and --data.objects.long."
            )
        if options.directory is None and name not in TFDS_SETS:
            raise UsageError(
                f"{name} needs the path of its folder: give --data.dir in training, --data-dir "
                "elsewhere."
            )
    return opened(name, options)


def _dataset(name: str, splits: tuple[Pictures, Pictures], where: Path | None) -> PictureDataset:
    """A set whose splits have the same classes; it is normalized by ImageNet's statistics.

    Raises:
        UsageError: The splits have different classes, or two classes look alike.
    """
    train, val = splits
    classes, ids = _categories(train), tuple(train.index.arrays.category_ids.tolist())
    place = printable(str(where or name))
    if not classes:
        raise UsageError(f"{place} has no class.")
    if _categories(val) != classes or tuple(val.index.arrays.category_ids.tolist()) != ids:
        raise UsageError(
            f"the splits of {place} have different classes: {_listed(classes)} in training, and "
            f"{_listed(_categories(val))} in the held-out split."
        )
    for each in classes:
        if classes.count(each) > 1:
            raise UsageError(f"{place} has the class {printable(repr(each))} twice: rename one.")
    check_class_names(classes, place)
    return PictureDataset(
        name=name,
        train=train,
        val=val,
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        category_ids=ids,
        masks=has_masks(train.index) and has_masks(val.index),
    )


def _categories(pictures: Pictures) -> list[str]:
    return list(pictures.index.names)


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(printable, names[:5]))
    return f"{len(names)} ({shown}{', ...' if len(names) > 5 else ''})"


def _coco_json(name: str, options: PictureOptions) -> PictureDataset:
    """Any folder in COCO's format; see ``coco_folders``."""
    assert options.directory is not None
    root = options.directory
    held_out = HELD_OUT if options.val_split is None else (options.val_split,)
    files = find_annotations(root, TRAIN), find_annotations(root, held_out)
    return _coco_files(name, options, root, files)


def _coco(name: str, options: PictureOptions) -> PictureDataset:
    """COCO 2017: ``annotations/instances_{train,val}2017.json``, ``{train,val}2017/*.jpg``."""
    assert options.directory is not None
    root = find_root(options.directory, ("", "coco", "COCO"), "annotations", name)
    val = choose_split(options.val_split, "val2017", ("val2017", "train2017"))
    files = find_annotations(root, ["train2017"]), find_annotations(root, [val])
    return _coco_files(name, options, root, files)


def _coco_files(
    name: str, options: PictureOptions, root: Path, files: tuple[Path, Path]
) -> PictureDataset:
    def split(annotations: Path) -> Pictures:
        index = open_coco(annotations)
        folder = find_images(root, annotations, index)
        images = ImagesInFiles(folder, index, options.exif_orientation)
        return Pictures(images, index, annotations)

    train, val = map(split, files)
    return _dataset(name, (train, val), root)


def _records(name: str, options: PictureOptions) -> PictureDataset:
    """The boxes of a set that TensorFlow Datasets prepared; see ``tfds_pictures``."""
    from senet_jax.data.tfds_pictures import open_records

    splits = open_records(name, options.directory, options.val_split, options.exif_orientation)
    return _dataset(name, splits, options.directory)


def _voc_xml(name: str, options: PictureOptions) -> PictureDataset:
    """``Annotations/*.xml``, ``JPEGImages`` and ``ImageSets/Main/{train,val,test}.txt``.

    A folder of PASCAL VOC has its classes in their usual order, another the ones of its objects.
    """
    assert options.directory is not None
    places = ("", "VOCdevkit/VOC2012", "VOCdevkit/VOC2007", "VOC2012", "VOC2007")
    root = find_root(options.directory, places, "Annotations", name)
    lists = root / "ImageSets" / "Main"
    there = [path.stem for path in sorted(lists.glob("*.txt"))]
    if "train" not in there:
        raise UsageError(
            f"there is no {printable(str(lists / 'train.txt'))}: it lists the training images, one "
            "a line."
        )
    usual = next((split for split in HELD_OUT if split in there), HELD_OUT[0])
    held_out = choose_split(options.val_split, usual, there)
    read = [read_voc(root, split, None) for split in ("train", held_out)]
    found = {row["name"] for data in read for row in data["categories"]}
    names = VOC_CLASSES if found <= set(VOC_CLASSES) else tuple(sorted(found))

    def split(split: str) -> Pictures:
        data = read_voc(root, split, names)
        index = CocoIndex(pack_coco(data, lists / f"{split}.txt"))
        return Pictures(ImagesInFiles(root / "JPEGImages", index, options.exif_orientation), index)

    return _dataset(name, (split("train"), split(held_out)), root)


def _digits(name: str, options: PictureOptions) -> PictureDataset:
    """Digits in a scene, drawn; see ``digit_scenes``."""
    if options.directory is not None:
        raise UsageError("scenes are drawn, so that they have no folder: leave out --data.dir.")
    choose_split(options.val_split, "val", ["val"])
    side = LEAST_SIDE if options.side is None else options.side
    train, val = _drawn("train", TRAIN_SCENES, side), _drawn("val", VAL_SCENES, side)
    return dataclasses.replace(
        _dataset(name, (train, val), None),
        # Statistics of the training scenes of 64 pixels.
        mean=(0.487, 0.484, 0.466),
        std=(0.299, 0.273, 0.288),
    )


@functools.lru_cache(maxsize=4)
def _drawn(split: str, count: int, side: int) -> Pictures:
    images = np.empty((count, side, side, 3), np.uint8)
    rows: list[dict[str, Any]] = []
    for index in range(count):
        scene = draw_scene("train" if split == "train" else "val", 0, index, side)
        images[index] = scene.image
        for mask, (x1, y1, x2, y2), digit in zip(
            scene.masks, scene.boxes.tolist(), scene.classes.tolist(), strict=True
        ):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": index,
                    "category_id": digit + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": run_lengths(mask),
                }
            )
    images.flags.writeable = False
    pictures = [
        {"id": index, "file_name": f"{split} {index}", "height": side, "width": side}
        for index in range(count)
    ]
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
    data = {"images": pictures, "annotations": rows, "categories": categories}
    packed = CocoIndex(pack_coco(data, Path(f"the {split} scenes")))
    return Pictures(ImagesInMemory(images), packed)


TFDS_SETS = ("coco/2014", "coco/2017", "voc/2007", "voc/2012")
"""Sets of TensorFlow Datasets, by its names."""

PICTURE_SETS: dict[str, Callable[[str, PictureOptions], PictureDataset]] = {
    "scenes": _digits,
    "coco": _coco,
    "coco_json": _coco_json,
    "voc_xml": _voc_xml,
    **dict.fromkeys(TFDS_SETS, _records),
}
"""A name and how it is opened."""
