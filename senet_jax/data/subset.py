"""A share of the images, to scale an experiment down."""

import dataclasses

import numpy as np
from jaxtyping import Int

from senet_jax.data.datasets import Dataset
from senet_jax.data.sources import ArraySource, EncodedSource


class SubsetSource:
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

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        """Class of every image, in order."""
        return self._source.labels[self._indices]

    def name(self, index: int) -> str:
        """Names an image, for a person."""
        return self._source.name(int(self._indices[index]))


def training_share(dataset: Dataset, fraction: float) -> Dataset:
    """The data set with a share of its training images, the same ones for every seed of a run.

    Args:
        dataset: The whole.
        fraction: The share, above 0, at most 1; at least one image stays. All other facts, such as
            the statistics of the channels, are those of the whole.
    """
    if fraction == 1:
        return dataset
    count = max(1, round(fraction * len(dataset.train)))
    return dataclasses.replace(dataset, train=some(dataset.train, count))


def some(split: ArraySource | EncodedSource, count: int) -> ArraySource | EncodedSource:
    """So many images of a split, the same ones each time and in its order; all if it has no more.

    Args:
        split: The whole.
        count: How many, at least 1.
    """
    if count >= len(split):
        return split
    return taken(split, np.sort(np.random.default_rng(0).permutation(len(split))[:count]))


def taken(
    split: ArraySource | EncodedSource, indices: Int[np.ndarray, " n"]
) -> ArraySource | EncodedSource:
    """The images of a split at some places, in this order."""
    if isinstance(split, ArraySource):
        broken = {
            place: split.broken[index]
            for place, index in enumerate(indices.tolist())
            if index in split.broken
        }
        return ArraySource(split.images[indices], split.labels[indices], broken)
    return SubsetSource(split, indices)
