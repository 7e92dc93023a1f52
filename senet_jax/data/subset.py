"""A share of the images, to scale an experiment down."""

import dataclasses
from typing import Protocol, Self, TypeVar

import numpy as np
from jaxtyping import Int

from senet_jax.data.datasets import Dataset


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


class _Taken(Protocol):
    def __len__(self) -> int: ...

    def taken(self, indices: Int[np.ndarray, " n"]) -> Self: ...


Split = TypeVar("Split", bound=_Taken)
"""A split of images or of scenes."""


def some(split: Split, count: int) -> Split:
    """Takes ``count`` images of a split, the same ones each time and in its order.

    Args:
        split: The complete split; if it has no more images than ``count``, it is returned.
        count: Number of images, at least 1.
    """
    if count >= len(split):
        return split
    return split.taken(np.sort(np.random.default_rng(0).permutation(len(split))[:count]))
