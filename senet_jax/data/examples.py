"""Examples: what a network is shown of each image of a split, as the arrays of a batch."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int, UInt8

from senet_jax.data.decode import Unreadable

Batch = dict[str, np.ndarray]
"""Arrays by name, each with a row for each image; ``image`` holds the pixels, 0 to 255."""


class ArraySpec(NamedTuple):
    """An array of a batch, of which each image has a row."""

    shape: tuple[int, ...]
    """Shape of a row."""
    dtype: Any
    fill: float = 0
    """The value of a row of padding."""

    def rows(self, count: int) -> np.ndarray:
        """Rows of padding."""
        return np.full((count, *self.shape), self.fill, self.dtype)


class Draws:
    """A generator of random numbers for one image, which is made when it is first asked for.

    Args:
        *seed: Numbers that together determine what is drawn.
    """

    def __init__(self, *seed: int) -> None:
        self._seed = seed

    @functools.cached_property
    def rng(self) -> np.random.Generator:
        """The generator."""
        return np.random.default_rng(self._seed)


class Examples(Protocol):
    """The images of a split as a network is shown them; they can be pickled."""

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """The arrays of a batch by their names."""

    def __len__(self) -> int:
        """Number of images."""

    def name(self, index: int) -> str:
        """Names an image, for a person."""

    def read(
        self, indices: Int[np.ndarray, " n"], draws: Sequence[Draws]
    ) -> tuple[Batch, dict[int, str]]:
        """Reads some images.

        Args:
            indices: The images.
            draws: Sources of the random numbers, one for each of them; unused in evaluation.

        Returns:
            A row for each image, and why images could not be read, by their rows, which may then
            hold anything.

        Raises:
            UsageError: None can be read, because the data set is gone.
        """


class View(Protocol):
    """Decodes an encoded photograph and changes it; it can be pickled."""

    @property
    def size(self) -> int:
        """Side of the images that it makes, pixels."""

    def __call__(self, data: bytes, rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
        """Makes the image of the bytes of a photograph.

        Raises:
            Unreadable: The bytes are not an image.
        """


class Encoded(Protocol):
    """Encoded photographs with the labels of their classes, in random access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[bytes, int]: ...

    def name(self, index: int) -> str: ...


@dataclasses.dataclass(frozen=True)
class EncodedExamples:
    """Photographs, each as a view shows it, with the label of its class."""

    source: Encoded
    view: View

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        return image_and_label((self.view.size, self.view.size, 3))

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def read(
        self, indices: Int[np.ndarray, " n"], draws: Sequence[Draws]
    ) -> tuple[Batch, dict[int, str]]:
        def example(index: int, own: Draws) -> dict[str, Any]:
            data, label = self.source[index]
            return {"image": self.view(data, own.rng), "label": label}

        return read_each(self.arrays, example, indices, draws)


def image_and_label(shape: tuple[int, ...]) -> Mapping[str, ArraySpec]:
    """The arrays of classification: an image of this shape and the number of its class."""
    return {"image": ArraySpec(shape, np.uint8), "label": ArraySpec((), np.int32)}


def read_each(
    arrays: Mapping[str, ArraySpec],
    example: Callable[[int, Draws], Mapping[str, Any]],
    indices: Int[np.ndarray, " n"],
    draws: Sequence[Draws],
) -> tuple[Batch, dict[int, str]]:
    """Reads images one by one.

    Args:
        arrays: The arrays of a batch.
        example: Returns the row of an image for each of them, or raises Unreadable.
        indices: As in ``Examples.read``.
        draws: Likewise.

    Returns:
        As ``Examples.read``.
    """
    batch = {name: spec.rows(len(indices)) for name, spec in arrays.items()}
    broken: dict[int, str] = {}
    for row, (index, own) in enumerate(zip(indices.tolist(), draws, strict=True)):
        try:
            for name, value in example(index, own).items():
                batch[name][row] = value
        except Unreadable as error:
            broken[row] = str(error)
    return batch, broken


def batch_bytes(arrays: Mapping[str, ArraySpec], images: int) -> int:
    """Bytes of a batch of this many images."""
    return images * sum(
        math.prod(spec.shape) * np.dtype(spec.dtype).itemsize for spec in arrays.values()
    )
