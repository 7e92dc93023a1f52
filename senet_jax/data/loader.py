"""Batches as a function of (seed, step), and the reading ahead of them."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import TypedDict

import grain
import numpy as np
from jaxtyping import Float, Int, UInt8

from senet_jax.data.datasets import Dataset
from senet_jax.data.sources import ImageSource
from senet_jax.errors import UsageError


class Batch(TypedDict):
    """A batch on the host."""

    image: UInt8[np.ndarray, "b h w c"]
    label: Int[np.ndarray, " b"]
    weight: Float[np.ndarray, " b"]
    """1 for an image that counts, 0 for padding."""


@dataclasses.dataclass(frozen=True)
class TrainBatches:
    """The training batches of a run, with random access: ``batches[step]``.

    Every epoch is a new order of all images, its incomplete last batch dropped. An image that
    cannot be read is replaced by another, chosen by the seed.
    """

    dataset: Dataset
    batch_size: int
    seed: int
    steps: int
    """How many batches the run has."""

    def __len__(self) -> int:
        return self.steps

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self.dataset.train.labels) // self.batch_size

    def __getitem__(self, step: int) -> Batch:
        source = self.dataset.train
        epoch, place = divmod(int(step), self.steps_per_epoch)
        order = _epoch_order(self.seed, epoch, len(source.labels))
        indices = order[place * self.batch_size : (place + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, 1, step))
        indices, images = _read_intact(source, indices, rng)
        return Batch(
            image=images,
            label=source.labels[indices],
            weight=np.ones(len(indices), np.float32),
        )

    def read_ahead(self, start: int) -> Iterator[Batch]:
        """Yields the batches from ``start`` on, prepared by threads while others are used."""
        rest = grain.MapDataset.source(self).slice(slice(start, self.steps))
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
        return iter(rest.to_iter_dataset(options))


@functools.lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, size: int) -> Int[np.ndarray, " size"]:
    return np.random.default_rng((seed, 0, epoch)).permutation(size)


def _read_intact(
    source: ImageSource, indices: Int[np.ndarray, " b"], rng: np.random.Generator
) -> tuple[Int[np.ndarray, " b"], UInt8[np.ndarray, "b h w c"]]:
    """Reads a batch and replaces what cannot be read, until nothing is left to replace."""
    images, intact = source.read(indices)
    indices = indices.copy()
    for _ in range(100):
        if intact.all():
            return indices, images
        missing = np.flatnonzero(~intact)
        indices[missing] = rng.integers(0, len(source.labels), len(missing))
        images[missing], intact[missing] = source.read(indices[missing])
    raise UsageError("nearly all images of the training split are broken: see the log.")


def eval_batches(source: ImageSource, batch_size: int) -> Iterator[Batch]:
    """Yields every image of a split once, in order.

    The last batch is padded to ``batch_size``; padding, and images that cannot be read, have the
    weight 0.
    """
    total = len(source.labels)
    for start in range(0, total, batch_size):
        indices = np.arange(start, start + batch_size)
        inside = indices < total
        indices = np.where(inside, indices, 0)
        images, intact = source.read(indices)
        yield Batch(
            image=images,
            label=source.labels[indices],
            weight=(inside & intact).astype(np.float32),
        )
