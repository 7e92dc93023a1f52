"""The catalogue of segmentation sets: from a name to two splits of scenes.

Each set is read as its makers publish it; a general folder is described at :func:`_masks`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from senet_jax.data.datasets import IMAGENET_MEAN, IMAGENET_STD
from senet_jax.data.digit_scenes import CLASSES, LEAST_SIDE, draw_scenes
from senet_jax.data.image_search import is_folder
from senet_jax.data.label_files import LabelMap
from senet_jax.data.scene_files import FileScenes, Pair
from senet_jax.data.scene_folders import (
    by_key,
    choose_split,
    ending,
    find_root,
    listed_pairs,
    pairs_of_folders,
    read_list,
    stem,
)
from senet_jax.data.scene_names import CAMVID, CITYSCAPES, CITYSCAPES_IDS, CONTEXT, VOC, voc_colors
from senet_jax.data.scenes import ArrayScenes, Color, SceneDataset, Scenes
from senet_jax.data.sources import check_class_names
from senet_jax.errors import UsageError, choose
from senet_jax.files import read_text
from senet_jax.text import printable


@dataclasses.dataclass(frozen=True)
class SceneOptions:
    """How a set is opened."""

    directory: Path | None = None
    """Where the set lies."""
    frame: tuple[int, int] | None = None
    """Height and width of the training crops, pixels; None means those of the images."""
    side: int | None = None
    """Height and width of drawn scenes, pixels; None means 64."""
    val_split: str | None = None
    """The held-out split; None means that of the set."""
    ignore_label: int | None = None
    """Of a general folder: the stored value of pixels without a class; None means 255."""
    exif_orientation: bool = False
    """Turn images, not labels, as their EXIF says."""


def open_scenes(name: str, options: SceneOptions) -> SceneDataset:
    """Opens a segmentation set that is on this machine.

    Args:
        name: A name of ``SCENE_SETS``.
        options: Where it lies, and how it is read.

    Raises:
        UsageError: An unknown name, a set that is not there or lacks files, or an option that the
            set does not have.
    """
    opened = SCENE_SETS[choose("segmentation set", name, SCENE_SETS)]
    if opened is not _masks and options.ignore_label is not None:
        raise UsageError(
            f"data.ignore_label is for the set masks: {name} has an ignored value of its own."
        )
    if opened is _digits:
        return _digits(options)
    if options.side is not None:
        raise UsageError(
            f"data.image_size is for drawn scenes: those of {name} have their own size and are "
            "cropped, --data.crop.size."
        )
    if options.directory is None:
        raise UsageError(
            f"{name} needs the path of its folder: give --data.dir in training, --data-dir "
            "elsewhere."
        )
    return opened(options)


TRAIN_SCENES, VAL_SCENES = 2048, 512
"""Scenes that are drawn of digits."""


def _digits(options: SceneOptions) -> SceneDataset:
    """Digits in a scene, drawn; see ``digit_scenes``."""
    if options.directory is not None:
        raise UsageError("scenes are drawn, so that they have no folder: leave out --data.dir.")
    choose_split(options.val_split, "val", ["val"])
    side = LEAST_SIDE if options.side is None else options.side
    train, val = _drawn("train", TRAIN_SCENES, side), _drawn("val", VAL_SCENES, side)
    return SceneDataset(
        name="scenes",
        train=train,
        val=val,
        classes=list(CLASSES),
        # Of the training scenes of 64 pixels.
        mean=(0.487, 0.484, 0.466),
        std=(0.299, 0.273, 0.288),
        palette=voc_colors(len(CLASSES)),
    )


@functools.lru_cache(maxsize=4)
def _drawn(split: str, count: int, side: int) -> ArrayScenes:
    images, labels = draw_scenes("train" if split == "train" else "val", 0, count, side)
    images.flags.writeable = labels.flags.writeable = False
    return ArrayScenes(images, labels)


def _of_files(
    name: str,
    folder: Path,
    train: tuple[Pair, ...],
    val: tuple[Pair, ...],
    classes: list[str],
    numbers: LabelMap,
    options: SceneOptions,
    palette: tuple[Color, ...] = (),
) -> SceneDataset:
    """A set of files, which is normalised by ImageNet's statistics."""
    check_class_names(classes, printable(str(folder)))
    splits = [
        FileScenes(folder, pairs, numbers, options.exif_orientation) for pairs in (train, val)
    ]
    return SceneDataset(
        name=name,
        train=splits[0],
        val=splits[1],
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        frame=options.frame or _common_size(splits[0], folder),
        palette=palette or voc_colors(len(classes)),
    )


def _common_size(scenes: Scenes, folder: Path) -> tuple[int, int]:
    """The size that all scenes have.

    Raises:
        UsageError: They have several.
    """
    sizes, counts = np.unique(scenes.sizes, axis=0, return_counts=True)
    if len(sizes) > 1:
        (height, width), (other, wide) = sizes[np.argsort(-counts, kind="stable")[:2]].tolist()
        raise UsageError(
            f"the training images of {printable(str(folder))} have {len(sizes):,} sizes, such as "
            f"{height}x{width} and {other}x{wide} pixels: give the size of the crops that are "
            "trained on, --data.crop.size."
        )
    height, width = sizes[0].tolist()
    return height, width


def _ade20k(options: SceneOptions) -> SceneDataset:
    """``ADEChallengeData2016/{images,annotations}/{training,validation}``; 0 is ignored."""
    root = _root(options, ("", "ADEChallengeData2016"), "annotations", "ade20k")
    folders = {"train": "training", "val": "validation"}
    val = folders[choose_split(options.val_split, "val", folders)]
    pairs = [
        pairs_of_folders(root, f"images/{split}", f"annotations/{split}")
        for split in ("training", val)
    ]
    return _of_files("ade20k", root, *pairs, _ade_names(root), LabelMap.counting(150, 0), options)


def _ade_names(root: Path) -> list[str]:
    """The 150 names of ``objectInfo150.txt``, of which each class has the first."""
    file = root / "objectInfo150.txt"
    rows = [line.split("\t") for line in read_text(file, "the classes of ADE20K").splitlines()[1:]]
    names = [row[-1].split(",")[0].strip() for row in rows if len(row) > 1]
    if len(names) != 150:
        raise UsageError(f"{printable(str(file))} has {len(names)} classes where 150 belong.")
    # Some first names stand for two classes.
    return [
        f"{name} {index + 1}" if names.count(name) > 1 else name for index, name in enumerate(names)
    ]


def _cityscapes(options: SceneOptions) -> SceneDataset:
    """``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png``, ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``."""
    root = _root(options, ("", "cityscapes"), "gtFine", "cityscapes")
    val = choose_split(options.val_split, "val", ("val", "train"))
    pairs = [
        pairs_of_folders(
            root,
            f"leftImg8bit/{split}",
            f"gtFine/{split}",
            ending("_leftImg8bit.png"),
            ending("_gtFine_labelIds.png"),
        )
        for split in ("train", val)
    ]
    others = tuple(value for value in range(CITYSCAPES_IDS) if value not in CITYSCAPES)
    names, colors = zip(*CITYSCAPES.values(), strict=True)
    # The licence plate is -1, which is 255 in a byte.
    numbers = LabelMap(tuple(CITYSCAPES), (*others, 255))
    return _of_files("cityscapes", root, *pairs, list(names), numbers, options, colors)


def _voc(options: SceneOptions, augmented: bool = False) -> SceneDataset:
    """``VOCdevkit/VOC2012``, by the lists in ``ImageSets/Segmentation``; 255 is ignored."""
    name = "voc2012_aug" if augmented else "voc2012"
    places = ("", "VOC2012", "VOCdevkit/VOC2012")
    root = _root(options, places, "SegmentationClass", name)
    lists = root / "ImageSets" / "Segmentation"
    images = by_key(root, "JPEGImages", stem)
    labels = by_key(root, "SegmentationClass", stem)

    def split(which: str) -> list[str]:
        return read_list(lists / f"{which}.txt", "the images of a split")

    val = split(choose_split(options.val_split, "val", ("train", "val")))
    to = "SegmentationClass"
    train = listed_pairs(root, split("train"), images, labels, to)
    folder = root
    if augmented:
        folder, train = _sbd(options, root, split("train"), split("val"), images, labels)
    held_out = listed_pairs(root, val, images, labels, to)
    if folder != root:
        above = root.relative_to(folder).as_posix()
        held_out = tuple(Pair(*(f"{above}/{path}" for path in pair)) for pair in held_out)
    palette = voc_colors(len(VOC))
    numbers = LabelMap.counting(len(VOC), 255)
    return _of_files(name, folder, train, held_out, list(VOC), numbers, options, palette)


def _sbd(
    options: SceneOptions,
    root: Path,
    train: list[str],
    val: list[str],
    images: Mapping[str, str],
    labels: Mapping[str, str],
) -> tuple[Path, tuple[Pair, ...]]:
    """VOC's training images and those of SBD that are not in its validation: 10,582.

    VOC's own labels are taken for its images. The others are in ``SegmentationClassAug`` of VOC's
    folder, or in ``cls`` of ``benchmark_RELEASE/dataset`` (or ``sbd``) beside it.

    Returns:
        The folder that all paths start from, and the pairs, sorted by name.
    """
    held_out = set(val)
    if is_folder(root / "SegmentationClassAug"):
        more = by_key(root, "SegmentationClassAug", stem)
        names = sorted({*train, *more} - held_out)
        all_labels = {**more, **{name: labels[name] for name in train if name in labels}}
        return root, listed_pairs(root, names, images, all_labels, "SegmentationClassAug")
    assert options.directory is not None
    directory = options.directory
    sbd = find_root(
        directory,
        ("", "sbd", "benchmark_RELEASE/dataset", "VOCdevkit/benchmark_RELEASE/dataset"),
        "cls",
        "SBD beside PASCAL VOC (nor SegmentationClassAug in it)",
    )
    names = [
        name
        for split in ("train", "val")
        for name in read_list(sbd / f"{split}.txt", "the images of a split")
    ]
    below, voc = (path.relative_to(directory).as_posix() for path in (sbd, root))
    all_images = {name: f"{voc}/{path}" for name, path in images.items()}
    all_labels = {
        name: f"{below}/cls/{name}.mat" for name in names if (sbd / "cls" / f"{name}.mat").exists()
    } | {name: f"{voc}/{labels[name]}" for name in train if name in labels}
    wanted = sorted({*train, *names} - held_out)
    return directory, listed_pairs(directory, wanted, all_images, all_labels, f"{below}/cls")


def _context(options: SceneOptions) -> SceneDataset:
    """PASCAL Context's 59 classes on the images of VOC 2010; 0, the background, is ignored.

    The labels are ``SegmentationClassContext``, whose classes are in alphabetical order, or the
    authors' ``59_context_labels`` with the names in ``59_labels.txt``.
    """
    places = ("", "VOC2010", "VOCdevkit/VOC2010")
    root = _root(options, places, "JPEGImages", "pascal_context")
    if is_folder(root / "SegmentationClassContext"):
        folder, names = "SegmentationClassContext", list(CONTEXT)
    elif is_folder(root / "59_context_labels"):
        folder, names = "59_context_labels", _context_names(root / "59_labels.txt")
    else:
        raise UsageError(
            f"{printable(str(root))} has neither SegmentationClassContext nor 59_context_labels: "
            "put the labels of PASCAL Context there."
        )
    images, labels = by_key(root, "JPEGImages", stem), by_key(root, folder, stem)
    val = choose_split(options.val_split, "val", ("train", "val"))
    lists = root / "ImageSets" / "SegmentationContext"
    pairs = [
        listed_pairs(
            root, read_list(lists / f"{split}.txt", "the images of a split"), images, labels, folder
        )
        for split in ("train", val)
    ]
    numbers = LabelMap.counting(len(names), 0)
    palette = voc_colors(len(names) + 1)[1:]
    return _of_files("pascal_context", root, *pairs, names, numbers, options, palette)


def _context_names(file: Path) -> list[str]:
    """The names of "1: aeroplane" and so on, in the order of their numbers."""
    names = {}
    for line in read_list(file, "the classes of PASCAL Context"):
        number, _, name = line.partition(":")
        if number.strip().isdigit() and name.strip():
            names[int(number)] = name.strip()
    if sorted(names) != list(range(1, 60)):
        raise UsageError(f"{printable(str(file))} does not name the classes 1 to 59, one a line.")
    return [names[number] for number in sorted(names)]


def _camvid(options: SceneOptions) -> SceneDataset:
    """SegNet's ``{train,val,test}`` and ``{train,val,test}annot``; 11 is ignored.

    ``images/SPLIT`` and ``annotations/SPLIT`` are read, too. The test split is held out.
    """
    assert options.directory is not None
    below = is_folder(options.directory / "annotations")
    wanted = "annotations" if below else "trainannot"
    root = _root(options, ("", "CamVid"), wanted, "camvid")
    val = choose_split(options.val_split, "test", ("train", "val", "test"))
    pairs = [
        pairs_of_folders(root, f"images/{split}", f"annotations/{split}")
        if below
        else pairs_of_folders(root, split, f"{split}annot")
        for split in ("train", val)
    ]
    numbers = LabelMap.counting(len(CAMVID), 11)
    palette = tuple(CAMVID.values())
    return _of_files("camvid", root, *pairs, list(CAMVID), numbers, options, palette)


def _masks(options: SceneOptions) -> SceneDataset:
    """A folder with ``images``, ``annotations`` and ``classes.txt``, the names, one a line.

    An image and its label, a PNG of one channel, have the same path but for the suffix. The splits
    are folders in both (``images/train``, ``annotations/train``), or lists of names beside them
    (``train.txt``). The classes have the values from 0 on, in the order of their names, leaving out
    the ignored value (255 if no other is given).
    """
    assert options.directory is not None
    root = options.directory
    for folder in ("images", "annotations"):
        if not is_folder(root / folder):
            raise UsageError(
                f"there is no folder {printable(str(root / folder))}: masks are DIR/images, "
                "DIR/annotations (a PNG with the class of each pixel for each image) and "
                "DIR/classes.txt, with train and val as folders in both or as lists DIR/train.txt "
                "and DIR/val.txt."
            )
    classes = read_list(root / "classes.txt", "the names of the classes")
    ignored = 255 if options.ignore_label is None else options.ignore_label
    numbers = LabelMap.counting(len(classes), ignored)
    find = _listed_masks if (root / "train.txt").exists() else _mask_folders
    train, val = find(root, options)
    return _of_files("masks", root, train, val, classes, numbers, options)


HELD_OUT = ("val", "validation", "test")
"""Names of the held-out split, the first of which that is there is taken."""


def _listed_masks(root: Path, options: SceneOptions) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    images, labels = by_key(root, "images", stem), by_key(root, "annotations", stem)
    there = [path.stem for path in root.glob("*.txt") if path.name != "classes.txt"]
    usual = next((name for name in HELD_OUT if name in there), HELD_OUT[0])
    val = choose_split(options.val_split, usual, there)
    train, held_out = (
        listed_pairs(
            root,
            read_list(root / f"{split}.txt", "the images of a split"),
            images,
            labels,
            "annotations",
        )
        for split in ("train", val)
    )
    return train, held_out


def _mask_folders(root: Path, options: SceneOptions) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    there = [path.name for path in (root / "images").iterdir() if is_folder(path)]
    own = next((name for name in ("train", "training") if name in there), None)
    if own is None:
        raise UsageError(
            f"{printable(str(root))} has no training split: make the folders images/train and "
            "annotations/train, or a list train.txt of the names of its images."
        )
    usual = next((name for name in HELD_OUT if name in there), HELD_OUT[0])
    val = choose_split(options.val_split, usual, there)
    train, held_out = (
        pairs_of_folders(root, f"images/{split}", f"annotations/{split}") for split in (own, val)
    )
    return train, held_out


def _root(options: SceneOptions, places: tuple[str, ...], wanted: str, name: str) -> Path:
    assert options.directory is not None
    return find_root(options.directory, places, wanted, name)


SCENE_SETS: dict[str, Callable[[SceneOptions], SceneDataset]] = {
    "scenes": _digits,
    "ade20k": _ade20k,
    "cityscapes": _cityscapes,
    "voc2012": _voc,
    "voc2012_aug": functools.partial(_voc, augmented=True),
    "pascal_context": _context,
    "camvid": _camvid,
    "masks": _masks,
}
"""A name and how it is opened."""
