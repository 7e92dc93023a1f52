"""Opens a segmentation set of files, whatever its layout."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from senet_jax.data.class_folders import check_class_names
from senet_jax.data.datasets import IMAGENET_MEAN, IMAGENET_STD
from senet_jax.data.label_files import LabelMap
from senet_jax.data.scene_files import FileScenes, Pair
from senet_jax.data.scene_folders import find_root
from senet_jax.data.scene_names import voc_colors
from senet_jax.data.scenes import Color, SceneDataset, Scenes
from senet_jax.errors import UsageError
from senet_jax.text import printable


@dataclasses.dataclass(frozen=True)
class SceneOptions:
    """Options with which a set is opened."""

    directory: Path | None = None
    """Folder of the set."""
    frame: tuple[int, int] | None = None
    """Height and width of the training crops, pixels; None means those of the images."""
    side: int | None = None
    """Height and width of drawn scenes, pixels; None means 64."""
    val_split: str | None = None
    """The held-out split; None means that of the set."""
    ignore_label: int | None = None
    """Stored value of pixels without a class in a general folder; if None, 255."""
    exif_orientation: bool = False
    """Turn images, not labels, as their EXIF says."""


def files_dataset(
    name: str,
    folder: Path,
    splits: Sequence[tuple[Pair, ...]],
    classes: list[str],
    numbers: LabelMap,
    options: SceneOptions,
    palette: tuple[Color, ...] = (),
) -> SceneDataset:
    """A set of files, which is normalized by ImageNet's statistics.

    Args:
        name: Its name.
        folder: The folder that the paths start from.
        splits: The pairs of the training and of the held-out split.
        classes: Names of the classes.
        numbers: The numbers that stand for them in the labels.
        options: The options of opening.
        palette: A colour for each class; none means those of PASCAL VOC.

    Raises:
        UsageError: Two classes look alike, or the images have several sizes and no crop is asked
            for.
    """
    check_class_names(classes, printable(str(folder)))
    train, val = (FileScenes(folder, pairs, numbers, options.exif_orientation) for pairs in splits)
    return SceneDataset(
        name=name,
        train=train,
        val=val,
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        frame=options.frame or _common_size(train, folder),
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


def set_root(options: SceneOptions, places: tuple[str, ...], wanted: str, name: str) -> Path:
    """The folder of a set below the directory of the options; see ``find_root``."""
    assert options.directory is not None
    return find_root(options.directory, places, wanted, name)
