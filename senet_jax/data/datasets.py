"""The catalogue of data sets: from a name to two splits of images."""

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from senet_jax.data.sources import (
    ArraySource,
    EncodedSource,
    FolderSource,
    RecordSource,
    class_names,
)
from senet_jax.errors import UsageError, choose

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set, opened."""

    name: str
    train: ArraySource | EncodedSource
    """In memory, or encoded photographs that are read when asked for."""
    val: ArraySource | EncodedSource
    """The held-out split; CIFAR's is its test set."""
    classes: list[str]
    """Names of the classes, in the order of their labels."""
    mean: tuple[float, ...]
    """Mean of each channel over the training split, 0 to 1."""
    std: tuple[float, ...]
    """Standard deviation of each channel over the training split, 0 to 1."""
    size: int = 224
    """Side that photographs are scaled to, pixels."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what a network is shown."""
        if isinstance(self.train, ArraySource):
            return self.train.image_shape
        return self.size, self.size, 3


def open_dataset(name: str, directory: Path | None = None, size: int = 224) -> Dataset:
    """Opens a data set that is on this machine.

    Args:
        name: A name of ``DATASETS``, or of any image classification set of TensorFlow Datasets that
            has been prepared.
        directory: Where it lies. For TFDS sets None means ``TFDS_DATA_DIR``, else TFDS's default.
        size: Side that photographs are scaled to, pixels; sets of small images have their own.

    Raises:
        UsageError: An unknown name, or a data set that is not there; the message gives the command
            that prepares it.
    """
    if name in DATASETS:
        return DATASETS[name](name, directory, size)
    if not (_data_dir(directory) / name).is_dir():
        choose("data set", name, DATASETS)
    return _tfds(name, directory, size)


def _digits(name: str, directory: Path | None, size: int) -> Dataset:
    """Handwritten digits of 8x8 pixels that scikit-learn brings along; 80/20 by a fixed seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int32)
    train, val = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )
    return Dataset(
        name=name,
        train=ArraySource(images[train], labels[train]),
        val=ArraySource(images[val], labels[val]),
        classes=[str(digit) for digit in range(10)],
        mean=(0.305,),
        std=(0.376,),
    )


def _folder(name: str, directory: Path | None, size: int) -> Dataset:
    """``directory/train/<class>/<image>`` and ``directory/val/<class>/<image>``."""
    if directory is None:
        raise UsageError("a folder of images needs --data.dir.")
    classes = class_names(directory / "train")
    return Dataset(
        name=name,
        train=FolderSource(directory / "train", classes),
        val=FolderSource(directory / "val", classes),
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        size=size,
    )


def _tfds(name: str, directory: Path | None, size: int) -> Dataset:
    """A set of TensorFlow Datasets with an image and a class; small images go into memory."""
    import tensorflow_datasets as tfds

    where = _data_dir(directory)
    try:
        builder = tfds.builder(name, data_dir=where, file_format="array_record")
        info, splits = builder.info, builder.info.splits
        train, val = splits["train"], splits["validation" if "validation" in splits else "test"]
        image, label = info.supervised_keys or ("image", "label")
        shape, classes = info.features[image].shape, info.features[label].names
        train, val = (_records(split, image, label) for split in (train, val))
    except (KeyError, ValueError, AttributeError, TypeError, NotImplementedError) as error:
        raise UsageError(
            f"{name} is not in {where} as array_record with classes and the splits train and "
            f"validation or test: prepare it with `senet-jax prepare {name} --data-dir {where}`, "
            "or set TFDS_DATA_DIR to where it is."
        ) from error
    if None in shape or max(shape[:2]) > SMALL:
        return Dataset(name, train, val, classes, IMAGENET_MEAN, IMAGENET_STD, size)
    train, val = _in_memory(train), _in_memory(val)
    mean, std = STATISTICS.get(name) or _statistics(train.images)
    return Dataset(name, train, val, classes, mean, std)


SMALL = 64
"""Images of a fixed size up to this side, pixels, are kept in memory, decoded."""

STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""The means and standard deviations that are in use for the training splits."""


def _data_dir(directory: Path | None) -> Path:
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return (directory or Path(default)).expanduser()


def _records(split: Any, image: str, label: str) -> RecordSource:
    return RecordSource([Path(file) for file in split.filepaths], split.name, image, label)


def _in_memory(records: RecordSource) -> ArraySource:
    """Decodes every record, on all cores."""

    def decode(index: int) -> tuple[np.ndarray, int]:
        encoded, label = records[index]
        image = np.asarray(Image.open(BytesIO(encoded)))
        return image if image.ndim == 3 else image[..., None], label

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images, labels = zip(*pool.map(decode, range(len(records)), chunksize=100), strict=True)
    return ArraySource(np.stack(images), np.array(labels, np.int32))


def _statistics(
    images: UInt8[np.ndarray, "n h w c"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels, 0 to 1."""
    values = np.arange(256) / 255
    means, deviations = [], []
    for channel in np.moveaxis(images, -1, 0):
        shares = np.bincount(channel.ravel(), minlength=256) / channel.size
        means.append(float(shares @ values))
        deviations.append(float(np.sqrt(shares @ (values - means[-1]) ** 2)))
    return tuple(means), tuple(deviations)


TFDS_NAMES = ("cifar10", "cifar100", "imagenet2012", "imagenette", "places365_small")
"""Sets of TensorFlow Datasets that are known by name; its others open too, once prepared."""

DATASETS: dict[str, Callable[[str, Path | None, int], Dataset]] = {
    "digits": _digits,
    **dict.fromkeys(TFDS_NAMES, _tfds),
    "folder": _folder,
}
"""A name and how it is opened."""
