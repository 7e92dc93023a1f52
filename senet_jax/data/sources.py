"""Where images come from: memory, a folder of files, or the records of TensorFlow Datasets."""

import dataclasses
import functools
import logging
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from jaxtyping import Bool, Int, UInt8
from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

from senet_jax.data.decode import Unreadable
from senet_jax.data.verify import label_file
from senet_jax.errors import UsageError

LOGGER = logging.getLogger(__name__)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Images that lie in memory."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def name(self, index: int) -> str:
        """An image's place: it has no other name."""
        return str(index)

    def read(
        self, indices: Int[np.ndarray, " b"]
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Bool[np.ndarray, " b"]]:
        """Reads images.

        Returns:
            The images, and which of them could be read: all.
        """
        return self.images[indices], np.ones(len(indices), bool)


class EncodedSource(Protocol):
    """A split of a data set with random access to encoded photographs; it can be pickled."""

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """An encoded image and its class.

        Raises:
            Unreadable: This image cannot be read.
            UsageError: None can, because the data set is gone.
        """

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        """Class of every image, in order."""

    def name(self, index: int) -> str:
        """Names an image, for a person."""


class FolderSource:
    """Images in ``folder/<class>/<file>``.

    Args:
        folder: A folder of one split, with a folder a class.
        classes: The names of the classes, in the order of their labels.

    Raises:
        UsageError: The folder has no images, or a class of its own.
    """

    def __init__(self, folder: Path, classes: list[str]) -> None:
        unknown = sorted(set(class_names(folder)) - set(classes))
        if unknown:
            raise UsageError(f"{folder} has classes that the training split lacks: {unknown}.")
        self._folder = folder
        self._files: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            files = [
                f"{name}/{file.name}"
                for file in sorted((folder / name).glob("*"))
                if file.suffix.lower() in IMAGE_SUFFIXES
            ]
            self._files += files
            labels += [label] * len(files)
        if not self._files:
            raise UsageError(f"{folder} has no images in folders of classes.")
        self.labels = np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        file = self._folder / self._files[index]
        try:
            return file.read_bytes(), int(self.labels[index])
        except OSError as error:
            if not self._folder.is_dir():
                raise _gone(self._folder) from error
            raise Unreadable(error.strerror or str(error)) from error

    def name(self, index: int) -> str:
        return str(self._folder / self._files[index])


class RecordSource:
    """Encoded images in ``array_record`` files that TensorFlow Datasets wrote.

    The files are read without TensorFlow Datasets: it needs three times as long for a record.

    Args:
        files: The files of one split, in order.
        split: Name of the split; ``labels-<split>.npy`` beside the files has its labels, if there.
        image: Name of the images among the features.
        label: Name of the labels among the features.

    Raises:
        UsageError: A file is missing or no array_record.
    """

    def __init__(
        self, files: Sequence[Path], split: str, image: str = "image", label: str = "label"
    ) -> None:
        self._files = [str(file) for file in files]
        self._folder = Path(self._files[0]).parent
        self._split, self._image, self._label = split, image, label
        _allow_open_files(len(self._files))
        try:
            self._records = ArrayRecordDataSource(self._files)
        # What array_record raises for files that are damaged or missing has no common base.
        except Exception as error:
            raise UsageError(
                f"{Path(self._files[0]).parent} is not whole ({error}): prepare it again."
            ) from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        try:
            example = tf_example.Example.FromString(self._records[index])
            features = example.features.feature
            image = features[self._image].bytes_list.value[0]
            return image, features[self._label].int64_list.value[0]
        # As above, and what protobuf raises.
        except Exception as error:
            missing = [file for file in self._files if not Path(file).exists()]
            if missing:
                raise _gone(Path(missing[0]).parent) from error
            raise Unreadable(f"the record is damaged: {error}") from error

    @functools.cached_property
    def labels(self) -> Int[np.ndarray, " n"]:
        """Class of every image, from ``labels-<split>.npy`` or else from all the records."""
        file = label_file(Path(self._files[0]).parent, self._split)
        if file.exists():
            labels = np.load(file)
            if labels.shape == (len(self),):
                return labels.astype(np.int32)
        LOGGER.warning(
            "there is no %s of %d labels: all %s records are read for their labels",
            *(file, len(self), self._split),
        )
        return np.array([self[index][1] for index in range(len(self))], np.int32)

    def name(self, index: int) -> str:
        """The file that a record was made of, where the set says so, or the place of the record."""
        try:
            example = tf_example.Example.FromString(self._records[index])
            file = example.features.feature["file_name"].bytes_list.value
        # As above. What is damaged has no name but its place.
        except Exception:
            file = ()
        return file[0].decode() if file else f"record {index} of {self._split} in {self._folder}"


def _allow_open_files(more: int) -> None:
    """Raises the number of files that this process and its workers may have open, if it must.

    Each file of a split stays open, ImageNet has 1,024 of them, and so many are the usual limit.
    """
    wanted = len(list(Path("/dev/fd").iterdir())) + more + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


SPARE_FILES = 512
"""Files that are opened later, for checkpoints and the like, at the most."""


@dataclasses.dataclass(frozen=True)
class ViewedSource:
    """Encoded images, each as a transform shows it: what is evaluated."""

    source: EncodedSource
    view: Callable[[bytes], UInt8[np.ndarray, "..."]]
    """Raises Unreadable for bytes that are no image."""
    image_shape: tuple[int, ...]
    """Shape of what ``view`` makes."""
    workers: int = 0
    """Processes that prepare the views; 0 means threads."""

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        """Class of every image, in order."""
        return self.source.labels


def _gone(folder: Path) -> UsageError:
    return UsageError(
        f"{folder} can no longer be read: bring it back and start the same command again; the run "
        "goes on from its last checkpoint."
    )


def class_names(folder: Path) -> list[str]:
    """Names of the classes of a folder: its folders, sorted.

    Raises:
        UsageError: There is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder}: a folder of images is DIR/train/<class>/<image> and "
            "DIR/val/<class>/<image>; give DIR with --data.dir."
        )
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
