"""Sources of labelled images: memory, encoded files, the records of TensorFlow Datasets."""

import abc
import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int, UInt8

from senet_jax.data.decode import Unreadable, decode
from senet_jax.data.examples import (
    ArraySpec,
    Batch,
    Draws,
    EncodedExamples,
    Examples,
    View,
    image_and_label,
)
from senet_jax.data.records import features_of, read_records
from senet_jax.data.set_files import gone
from senet_jax.data.stored_labels import Damaged, label_file, stored_labels
from senet_jax.errors import UsageError

LOGGER = logging.getLogger(__name__)


class Source(Protocol):
    """A split of a data set: images and the labels of their classes; it can be pickled."""

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels; None of photographs, each of which has its own size."""

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        """Class of every image, in order."""

    def __len__(self) -> int:
        """Number of images."""

    def name(self, index: int) -> str:
        """Names an image, for a person."""

    def taken(self, indices: Int[np.ndarray, " n"]) -> "Source":
        """The images at some places, in this order."""

    def decoded(
        self, index: int, turns: Set[bool], channels: int
    ) -> tuple[dict[bool, UInt8[np.ndarray, "h w c"]], int]:
        """Reads a whole image.

        Args:
            index: The image.
            turns: True: turned as its EXIF says; False: as it is stored.
            channels: 1 turns encoded images to grey; those in memory have their own number.

        Returns:
            The image, by ``turns``, and its label.

        Raises:
            Unreadable: This image cannot be read.
            UsageError: None can, because the data set is gone.
        """

    def shown(self, view: View) -> Examples:
        """The images as a view shows them; those in memory are shown as they are."""


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Images that lie in memory; they are their own examples."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]
    broken: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Why images could not be read, by their indices; their rows are zeros."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """As ``Examples.arrays``."""
        return image_and_label(self.image_shape)

    def name(self, index: int) -> str:
        """An image's place: it has no other name."""
        return str(index)

    def taken(self, indices: Int[np.ndarray, " n"]) -> "ArraySource":
        """As ``Source.taken``."""
        broken = {
            place: self.broken[index]
            for place, index in enumerate(indices.tolist())
            if index in self.broken
        }
        return ArraySource(self.images[indices], self.labels[indices], broken)

    def decoded(
        self, index: int, turns: Set[bool], channels: int
    ) -> tuple[dict[bool, UInt8[np.ndarray, "h w c"]], int]:
        """As ``Source.decoded``."""
        if index in self.broken:
            raise Unreadable(self.broken[index])
        return dict.fromkeys(turns, self.images[index]), int(self.labels[index])

    def shown(self, view: View) -> Examples:
        """As ``Source.shown``."""
        return self

    def read(
        self, indices: Int[np.ndarray, " n"], draws: Sequence[Draws]
    ) -> tuple[Batch, dict[int, str]]:
        """As ``Examples.read``."""
        broken = {
            row: self.broken[index]
            for row, index in enumerate(indices.tolist())
            if index in self.broken
        }
        return {"image": self.images[indices], "label": self.labels[indices]}, broken


class EncodedSource(abc.ABC):
    """A split of encoded photographs in random access; it can be pickled."""

    image_shape = None

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abc.abstractmethod
    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """An encoded image and its class.

        Raises:
            Unreadable: This image cannot be read.
            UsageError: None can, because the data set is gone.
        """

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """Names an image, for a person."""

    @property
    @abc.abstractmethod
    def labels(self) -> Int[np.ndarray, " n"]:
        """Class of every image, in order."""

    def taken(self, indices: Int[np.ndarray, " n"]) -> "EncodedSource":
        """As ``Source.taken``."""
        return SubsetSource(self, indices)

    def decoded(
        self, index: int, turns: Set[bool], channels: int
    ) -> tuple[dict[bool, UInt8[np.ndarray, "h w c"]], int]:
        """As ``Source.decoded``."""
        data, label = self[index]
        return {turn: decode(data, turn, channels) for turn in turns}, label

    def shown(self, view: View) -> Examples:
        """As ``Source.shown``."""
        return EncodedExamples(self, view)


class SubsetSource(EncodedSource):
    """Some photographs of a source.

    Args:
        source: All of them.
        indices: Which ones.
    """

    def __init__(self, source: EncodedSource, indices: Int[np.ndarray, " n"]) -> None:
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return self._source[int(self._indices[index])]

    @functools.cached_property
    def labels(self) -> Int[np.ndarray, " n"]:
        """Class of every image, in order."""
        return self._source.labels[self._indices]

    def name(self, index: int) -> str:
        return self._source.name(int(self._indices[index]))


class RecordSource(EncodedSource):
    """Encoded images in ``array_record`` files that TensorFlow Datasets wrote.

    The files are read without TensorFlow Datasets: it needs three times as long for a record.

    Args:
        files: The files of one split, in order.
        split: Name of the split; ``labels-<split>.npy`` beside the files has its labels, if there.
        image: Name of the images among the features.
        label: Name of the labels among the features.
        classes: Number of classes; None if it is not known. -1 stands for no label.

    Raises:
        UsageError: A file is missing or no array_record, or the file of labels cannot be read or
            has a label that is no class.
    """

    def __init__(
        self,
        files: Sequence[Path],
        split: str,
        image: str = "image",
        label: str = "label",
        classes: int | None = None,
    ) -> None:
        self._files = [str(file) for file in files]
        self._folder = Path(self._files[0]).parent
        self._split, self._image, self._label = split, image, label
        self._classes = classes
        self._records = read_records(files)
        self._stored_labels()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        try:
            features = features_of(self._records[index])
            image = features[self._image].bytes_list.value[0]
            label = features[self._label].int64_list.value[0]
        # As above, and what protobuf raises.
        except Exception as error:
            missing = [file for file in self._files if not Path(file).exists()]
            if missing:
                raise gone(Path(missing[0]).parent) from error
            raise Unreadable(f"the record is damaged: {error}") from error
        if not self._is_label(label):
            raise UsageError(
                f"record {index} of {self._split} in {self._folder} has the label {label}, and the "
                f"data set names {self._classes} classes, 0 to {(self._classes or 0) - 1}: mend "
                f"{self._label}.labels.txt and features.json there, or prepare it again."
            )
        return image, label

    def _is_label(self, label: int) -> bool:
        return self._classes is None or -1 <= label < self._classes

    def _stored_labels(self) -> Int[np.ndarray, " n"] | None:
        """The labels of ``labels-<split>.npy``; None without it, or if it is of another set."""
        file = label_file(self._folder, self._split)
        advice = "delete it, it is made again of the records by `senet-jax prepare`"
        try:
            labels = stored_labels(self._folder, self._split)
        except Damaged as error:
            raise UsageError(f"{error}: {advice}.") from error
        if labels is None or labels.shape != (len(self),):
            return None
        for label in (labels.min(initial=0), labels.max(initial=0)):
            if not self._is_label(label):
                raise UsageError(
                    f"{file} has the label {label}, and the data set names {self._classes} "
                    f"classes, 0 to {(self._classes or 0) - 1}: if it is not that of the records, "
                    f"{advice}."
                )
        return labels

    @functools.cached_property
    def labels(self) -> Int[np.ndarray, " n"]:
        """Class of every image, from ``labels-<split>.npy`` or else from all the records.

        -1 stands for no label; a record that cannot be read has none.
        """
        labels = self._stored_labels()
        if labels is not None:
            return labels
        LOGGER.warning(
            "there is no %s of %d labels: all %s records are read for their labels",
            *(label_file(self._folder, self._split), len(self), self._split),
        )
        return np.array([self._read_label(index) for index in range(len(self))], np.int32)

    def _read_label(self, index: int) -> int:
        try:
            return self[index][1]
        except Unreadable as error:
            LOGGER.warning("%s is left out: %s", self.name(index), error)
            return -1

    def name(self, index: int) -> str:
        """The file that a record was made of, where the set says so, or the place of the record."""
        try:
            file = features_of(self._records[index])["file_name"].bytes_list.value
        # As above. What is damaged has no name but its place.
        except Exception:
            file = ()
        if file:
            return file[0].decode("utf-8", "backslashreplace")
        return f"record {index} of {self._split} in {self._folder}"
