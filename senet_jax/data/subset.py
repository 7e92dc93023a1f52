"""A share of the training images, to scale an experiment down."""

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
    indices = np.sort(np.random.default_rng(0).permutation(len(dataset.train))[:count])
    train = dataset.train
    if isinstance(train, ArraySource):
        return dataclasses.replace(
            dataset, train=ArraySource(train.images[indices], train.labels[indices])
        )
    return dataclasses.replace(dataset, train=SubsetSource(train, indices))
