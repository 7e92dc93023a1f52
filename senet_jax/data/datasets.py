"""The catalogue of data sets: from a name to two splits of images."""

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from senet_jax.data.sources import ArraySource, FolderSource, ImageSource, class_names
from senet_jax.errors import UsageError, choose

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set, opened."""

    name: str
    train: ImageSource
    val: ImageSource
    """The held-out split; CIFAR's is its test set."""
    classes: list[str]
    """Names of the classes, in the order of their labels."""
    mean: tuple[float, ...]
    """Mean of each channel over the training split, 0 to 1."""
    std: tuple[float, ...]
    """Standard deviation of each channel over the training split, 0 to 1."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self.train.image_shape


def open_dataset(name: str, directory: Path | None = None, size: int | None = None) -> Dataset:
    """Opens a data set that is on this machine.

    Args:
        name: A key of ``DATASETS``.
        directory: Where it lies. For TFDS sets None means ``TFDS_DATA_DIR``, else TFDS's default.
        size: Side of the images, pixels, for a folder of images; the other sets have their own.

    Raises:
        UsageError: An unknown name, or a data set that is not there; the message gives the command
            that prepares it.
    """
    return DATASETS[choose("data set", name, DATASETS)](name, directory, size)


def _digits(name: str, directory: Path | None, size: int | None) -> Dataset:
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


def _cifar(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[[str, Path | None, int | None], Dataset]:
    def load(name: str, directory: Path | None, size: int | None) -> Dataset:
        import tensorflow_datasets as tfds

        where = directory or os.environ.get("TFDS_DATA_DIR")
        try:
            builder = tfds.builder(name, data_dir=where, file_format="array_record")
            train, val = (
                builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
                for split in ("train", "test")
            )
        except (KeyError, ValueError, NotImplementedError) as error:
            where = where or tfds.core.constants.DATA_DIR
            raise UsageError(
                f"{name} is not in {where} as array_record: prepare it with `senet-jax prepare "
                f"{name} --data-dir {where}`, or set TFDS_DATA_DIR to where it is."
            ) from error
        return Dataset(
            name=name,
            train=_in_memory(train),
            val=_in_memory(val),
            classes=builder.info.features["label"].names,
            mean=mean,
            std=std,
        )

    return load


def _in_memory(records: Any) -> ArraySource:
    """Decodes every record of a ``tfds.data_source``, a thousand at a time, on all cores."""

    def decode(start: int) -> list[tuple[np.ndarray, int]]:
        rows = records.__getitems__(list(range(start, min(start + 1000, len(records)))))
        return [(np.asarray(Image.open(BytesIO(row["image"]))), row["label"]) for row in rows]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = [row for rows in pool.map(decode, range(0, len(records), 1000)) for row in rows]
    images, labels = zip(*rows, strict=True)
    return ArraySource(np.stack(images), np.array(labels, np.int32))


def _folder(name: str, directory: Path | None, size: int | None) -> Dataset:
    """``directory/train/<class>/<image>`` and ``directory/val/<class>/<image>``."""
    if directory is None or size is None:
        raise UsageError("a folder of images needs --data.dir and --data.image-size.")
    classes = class_names(directory / "train")
    return Dataset(
        name=name,
        train=FolderSource(directory / "train", size, classes),
        val=FolderSource(directory / "val", size, classes),
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


_TFDS = {
    "cifar10": _cifar((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": _cifar((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
TFDS_NAMES = tuple(_TFDS)
"""The sets that come from TensorFlow Datasets."""

DATASETS: dict[str, Callable[[str, Path | None, int | None], Dataset]] = {
    "digits": _digits,
    **_TFDS,
    "folder": _folder,
}
"""A name and how it is opened; the means and standard deviations are those of the training
splits."""
