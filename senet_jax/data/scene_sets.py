"""The catalogue of segmentation sets: from a name to two splits of scenes.

Each set is read as its makers publish it; a general folder is described at :func:`_masks`.
"""

import functools
from collections.abc import Callable
from pathlib import Path

from senet_jax.data.digit_scenes import CLASSES, LEAST_SIDE, PALETTE, draw_scenes
from senet_jax.data.image_search import is_folder
from senet_jax.data.label_files import LabelMap
from senet_jax.data.pascal_scenes import pascal_context, voc
from senet_jax.data.scene_files import Pair
from senet_jax.data.scene_folders import (
    by_key,
    choose_split,
    ending,
    listed_pairs,
    pairs_of_folders,
    read_list,
    stem,
)
from senet_jax.data.scene_names import CAMVID, CITYSCAPES, CITYSCAPES_IDS
from senet_jax.data.scene_opening import SceneOptions, files_dataset, set_root
from senet_jax.data.scenes import ArrayScenes, SceneDataset
from senet_jax.errors import UsageError, choose
from senet_jax.files import read_text
from senet_jax.text import printable


def open_scenes(name: str, options: SceneOptions) -> SceneDataset:
    """Opens a segmentation set that is on this machine.

    Args:
        name: A name of ``SCENE_SETS``.
        options: Its folder, and the options of reading.

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


TRAIN_SCENES, VAL_SCENES = 7168, 512
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
        # Statistics of the training scenes of 64 pixels.
        mean=(0.487, 0.484, 0.466),
        std=(0.299, 0.273, 0.288),
        palette=PALETTE,
    )


@functools.lru_cache(maxsize=4)
def _drawn(split: str, count: int, side: int) -> ArrayScenes:
    images, labels = draw_scenes("train" if split == "train" else "val", 0, count, side)
    images.flags.writeable = labels.flags.writeable = False
    return ArrayScenes(images, labels)


def _ade20k(options: SceneOptions) -> SceneDataset:
    """``ADEChallengeData2016/{images,annotations}/{training,validation}``; 0 is ignored."""
    root = set_root(options, ("", "ADEChallengeData2016"), "annotations", "ade20k")
    folders = {"train": "training", "val": "validation"}
    val = folders[choose_split(options.val_split, "val", folders)]
    pairs = [
        pairs_of_folders(root, f"images/{split}", f"annotations/{split}")
        for split in ("training", val)
    ]
    return files_dataset(
        "ade20k", root, pairs, _ade_names(root), LabelMap.counting(150, 0), options
    )


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
    root = set_root(options, ("", "cityscapes"), "gtFine", "cityscapes")
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
    return files_dataset("cityscapes", root, pairs, list(names), numbers, options, colors)


def _camvid(options: SceneOptions) -> SceneDataset:
    """SegNet's ``{train,val,test}`` and ``{train,val,test}annot``; 11 is ignored.

    ``images/SPLIT`` and ``annotations/SPLIT`` are read, too. The test split is held out.
    """
    assert options.directory is not None
    below = is_folder(options.directory / "annotations")
    wanted = "annotations" if below else "trainannot"
    root = set_root(options, ("", "CamVid"), wanted, "camvid")
    val = choose_split(options.val_split, "test", ("train", "val", "test"))
    pairs = [
        pairs_of_folders(root, f"images/{split}", f"annotations/{split}")
        if below
        else pairs_of_folders(root, split, f"{split}annot")
        for split in ("train", val)
    ]
    numbers = LabelMap.counting(len(CAMVID), 11)
    palette = tuple(CAMVID.values())
    return files_dataset("camvid", root, pairs, list(CAMVID), numbers, options, palette)


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
    return files_dataset("masks", root, find(root, options), classes, numbers, options)


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


SCENE_SETS: dict[str, Callable[[SceneOptions], SceneDataset]] = {
    "scenes": _digits,
    "ade20k": _ade20k,
    "cityscapes": _cityscapes,
    "voc2012": voc,
    "voc2012_aug": functools.partial(voc, augmented=True),
    "pascal_context": pascal_context,
    "camvid": _camvid,
    "masks": _masks,
}
"""A name and how it is opened."""
