"""The catalogue of data sets: from a name to two splits of images."""

import dataclasses
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from senet_jax.data.class_folders import FolderSource, check_class_names, class_names
from senet_jax.data.decode import Unreadable, decode
from senet_jax.data.sources import ArraySource, RecordSource, Source
from senet_jax.data.tfds_folder import expanded, find_prepared, open_prepared
from senet_jax.errors import UsageError, choose
from senet_jax.files import is_folder

LOGGER = logging.getLogger(__name__)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set, opened."""

    name: str
    train: Source
    """In memory, or encoded photographs that are read when asked for."""
    val: Source
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
        return self.train.image_shape or (self.size, self.size, 3)

    @property
    def photographs(self) -> bool:
        """Images have sizes of their own, and are decoded, scaled and cropped when read."""
        return self.train.image_shape is None


def open_dataset(name: str, directory: Path | None = None, size: int = 224) -> Dataset:
    """Opens a data set that is on this machine.

    Args:
        name: A name of ``DATASETS``, or of any image classification set of TensorFlow Datasets that
            has been prepared.
        directory: Its folder. For TFDS sets None means ``TFDS_DATA_DIR``, else TFDS's default.
        size: Side that photographs are scaled to, pixels; sets of small images have their own.

    Raises:
        UsageError: An unknown name, or a data set that is not there; the message gives the command
            that prepares it.
    """
    if name in DATASETS:
        return DATASETS[name](name, directory, size)
    if find_prepared(name, tfds_dir(directory)) is None:
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
        raise UsageError(
            "a folder of images needs its path: give --data.dir in training, --data-dir elsewhere."
        )
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
    where = tfds_dir(directory)
    prepare = (
        f"prepare it with `senet-jax prepare {name} --data-dir {where}`, or set TFDS_DATA_DIR to "
        "where it is."
    )
    folder = find_prepared(name, where)
    if folder is None and is_folder(where / "train"):
        raise UsageError(
            f"{name} is not in {where}, where there is a folder train: images in folders of their "
            "classes are the data set named folder (--data.name folder in training, else --data)."
        )
    if folder is None:
        raise UsageError(f"{name} is not in {where} as array_record: {prepare}")
    info = open_prepared(folder).info
    image, label = _check_features(info, folder)
    train, val = [_records(split, image, label, info) for split in _check_splits(info, folder)]
    shape, classes = info.features[image].shape, _class_names(info.features[label].names)
    check_class_names(classes, str(folder))
    if None in shape or max(shape[:2]) > SMALL:
        return Dataset(name, train, val, classes, IMAGENET_MEAN, IMAGENET_STD, size)
    small, held_out = _in_memory(train, shape), _in_memory(val, shape)
    mean, std = STATISTICS.get(name) or _statistics(small)
    return Dataset(name, small, held_out, classes, mean, std)


def _check_features(info: Any, folder: Path) -> tuple[str, str]:
    """Returns the names of the images and of the labels among the features."""
    import tensorflow_datasets as tfds

    keys = info.supervised_keys
    pair = isinstance(keys, tuple) and len(keys) == 2 and all(isinstance(k, str) for k in keys)
    image, label = keys if pair else ("image", "label")
    features = info.features
    features = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    if not (
        isinstance(features.get(image), tfds.features.Image)
        and isinstance(features.get(label), tfds.features.ClassLabel)
        and features[label].num_classes
    ):
        raise UsageError(
            f"{folder} is no image classification set, which has an image and one label of named "
            "classes a record: choose another."
        )
    kind, channels = np.dtype(features[image].np_dtype), features[image].shape[-1]
    if kind not in (np.uint8, np.uint16) or channels not in CHANNELS:
        raise UsageError(
            f"{folder} has images of {kind} with {channels} channels, and those of uint8 or uint16 "
            f"with {', '.join(map(str, CHANNELS))} are read: choose another set."
        )
    return image, label


CHANNELS = (1, 3, 4)
"""Numbers of channels that an image can have: grey, RGB, and RGB with opacity."""


def _check_splits(info: Any, folder: Path) -> tuple[Any, Any]:
    """Returns the training and the held-out split."""
    kind = "tfrecord" if info.file_format is None else info.file_format.value
    if kind != "array_record":
        raise UsageError(
            f"{folder} is written as {kind}, and training reads array_record: prepare the set in "
            "another place, `senet-jax prepare --data-dir`."
        )
    splits = info.splits
    held_out = "validation" if "validation" in splits else "test"
    for name in ("train", held_out):
        if name not in splits or not splits[name].shard_lengths:
            raise UsageError(
                f"{folder} has no records of the split {name}: a set needs train and validation or "
                "test."
            )
    return splits["train"], splits[held_out]


def _class_names(names: list[str]) -> list[str]:
    """Names of the classes without the byte order mark that an editor puts before the first."""
    return [names[0].removeprefix("\ufeff"), *names[1:]]


SMALL = 64
"""Images of a fixed size up to this side, pixels, are kept in memory, decoded."""

STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""The means and standard deviations that are in use for the training splits."""


def tfds_dir(directory: Path | None) -> Path:
    """The directory of TensorFlow Datasets' sets, if no other one is named."""
    default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return expanded(directory or Path(default))


def _records(split: Any, image: str, label: str, info: Any) -> RecordSource:
    files = [Path(file) for file in split.filepaths]
    classes = info.features[label].num_classes
    source = RecordSource(files, split.name, image, label, classes)
    if len(source) != split.num_examples:
        raise UsageError(
            f"{files[0].parent} has {len(source):,} records of {split.name} where "
            f"{split.num_examples:,} belong: prepare it again."
        )
    return source


def _in_memory(records: RecordSource, shape: tuple[int, int, int]) -> ArraySource:
    """Decodes every record, on all cores; those that cannot be read are broken."""
    broken: dict[int, str] = {}

    def read(index: int) -> tuple[np.ndarray, int]:
        try:
            encoded, label = records[index]
            image = decode(encoded, channels=shape[-1])
            if image.shape != shape:
                raise Unreadable(f"its shape is {image.shape} and not {shape}")
        except Unreadable as error:
            broken[index] = f"{records.name(index)}: {error}"
            return np.zeros(shape, np.uint8), 0
        return image, label

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images, labels = zip(*pool.map(read, range(len(records)), chunksize=100), strict=True)
    return ArraySource(np.stack(images), np.array(labels, np.int32), dict(sorted(broken.items())))


def _statistics(source: ArraySource) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels, 0 to 1.

    A channel of one value has the deviation 1, so that it is 0 after normalization and not "not a
    number" (scikit-learn's rule).
    """
    intact = [index for index in range(len(source)) if index not in source.broken]
    if not intact:
        raise UsageError("not one training image can be read: prepare the data set again.")
    images = source.images[intact] if source.broken else source.images
    values = np.arange(256) / 255
    means, deviations = [], []
    for number, channel in enumerate(np.moveaxis(images, -1, 0), 1):
        counts = np.bincount(channel.ravel(), minlength=256)
        shares = counts / channel.size
        means.append(float(shares @ values))
        if np.count_nonzero(counts) == 1:
            LOGGER.warning(
                "channel %d of all training images is %d: its standard deviation is taken to be 1",
                *(number, counts.argmax()),
            )
            deviations.append(1.0)
        else:
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
