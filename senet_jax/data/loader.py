"""Batches as a function of (seed, step), for training and for evaluation."""

import dataclasses
import functools
import logging
import math
import os
from collections.abc import Iterator, Sequence
from typing import Protocol, TypedDict

import numpy as np
from jaxtyping import Float, Int, UInt8

from senet_jax.data.datasets import Dataset
from senet_jax.data.decode import Unreadable
from senet_jax.data.order import EpochOrder
from senet_jax.data.sources import ArraySource, EncodedSource, ViewedSource
from senet_jax.data.workers import prefetch
from senet_jax.errors import UsageError
from senet_jax.text import printable

LOGGER = logging.getLogger(__name__)


class Batch(TypedDict):
    """The rows of a batch that one host gives its devices."""

    image: UInt8[np.ndarray, "b h w c"]
    label: Int[np.ndarray, " b"]


class WeightedBatch(Batch):
    """A batch of evaluation."""

    weight: Float[np.ndarray, " b"]
    """1 for an image that counts, 0 for padding and for what cannot be read."""


class Transform(Protocol):
    """How a training photograph is decoded and changed; it can be pickled."""

    @property
    def size(self) -> int:
        """Side of the images that it makes, pixels."""

    def __call__(self, data: bytes, rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]: ...


@dataclasses.dataclass(frozen=True)
class Host:
    """One of the processes that train together; each reads its own rows of a batch."""

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> range:
        """The rows of a global batch that this host reads."""
        own = batch_size // self.count
        return range(self.index * own, (self.index + 1) * own)


Broken = list[tuple[int, str]]
"""Indices of images that could not be read, and why."""

REPLACEMENTS = 100
"""How many images are tried in place of one that cannot be read."""

LEAST_CORRUPT = 10
"""So many unreadable images never stop a run, whatever their share."""


@dataclasses.dataclass(frozen=True)
class TrainBatches:
    """The training batches of a run, with random access: ``batches[step]``.

    Every epoch is a new order of all images, its incomplete last batch dropped. An image that
    cannot be read is replaced by another, chosen by the seed. What is drawn for a row of the
    global batch depends on the seed, the step and the row, whoever draws it.
    """

    dataset: Dataset
    batch_size: int
    """Images of a step, over all hosts; they must divide it."""
    seed: int
    steps: int
    """How many batches the run has."""
    transforms: Sequence[Transform] = ()
    """What is done to photographs, each for an equal share of the epochs."""
    balanced: bool = False
    """Draw each class equally often, not each image once an epoch."""
    host: Host = Host()
    workers: int = 0
    """Processes that prepare photographs."""
    max_corrupt: float = 0.001
    """Share of unreadable images beyond which the run stops."""

    def __len__(self) -> int:
        return self.steps

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self.dataset.train) // self.batch_size

    @functools.cached_property
    def _order(self) -> EpochOrder:
        labels = self.dataset.train.labels if self.balanced else None
        return EpochOrder(len(self.dataset.train), self.seed, labels)

    def size(self, step: int) -> int:
        """Side of the photographs of a step, pixels."""
        return self._transform(step).size

    def _transform(self, step: int) -> Transform:
        epoch, epochs = step // self.steps_per_epoch, -(-self.steps // self.steps_per_epoch)
        return self.transforms[epoch * len(self.transforms) // epochs]

    def __getitem__(self, step: int) -> Batch:
        return self.prepare(int(step))[0]

    def prepare(self, step: int) -> tuple[Batch, Broken]:
        """Makes this host's rows of a batch, and tells which images had to be replaced.

        Raises:
            UsageError: Nothing can be read.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = self.host.rows(self.batch_size)
        first = place * self.batch_size
        indices = self._order(epoch)[first + rows.start : first + rows.stop]
        source = self.dataset.train
        broken: Broken = []
        if isinstance(source, ArraySource):
            indices, broken = self._replace(source, step, indices)
            images, labels = source.images[indices], source.labels[indices]
        else:
            images, labels, broken = self._decode(source, step, indices)
        _check_labelled(labels, "training")
        return Batch(image=images, label=labels), broken

    def broken(self, step: int) -> list[tuple[str, str]]:
        """Names and reasons of the images of a step that had to be replaced, safe to print."""
        _, broken = self.prepare(step)
        return [(_named(self.dataset.train, index), reason) for index, reason in broken]

    def _replace(
        self, source: ArraySource, step: int, indices: Int[np.ndarray, " b"]
    ) -> tuple[Int[np.ndarray, " b"], Broken]:
        """Puts other images in the place of those that are broken."""
        if not source.broken:
            return indices, []
        indices, broken = indices.copy(), list[tuple[int, str]]()
        for place, row in enumerate(self.host.rows(self.batch_size)):
            rng = np.random.default_rng((self.seed, 1, step, row))
            for _ in range(REPLACEMENTS):
                index = int(indices[place])
                if index not in source.broken:
                    break
                broken.append((index, source.broken[index]))
                indices[place] = rng.integers(len(source))
            else:
                raise _nearly_all_broken(source, broken)
        return indices, broken

    def _decode(
        self, source: EncodedSource, step: int, indices: Int[np.ndarray, " b"]
    ) -> tuple[UInt8[np.ndarray, "b s s 3"], Int[np.ndarray, " b"], Broken]:
        transform, broken = self._transform(step), list[tuple[int, str]]()
        images = np.empty((len(indices), transform.size, transform.size, 3), np.uint8)
        labels = np.empty(len(indices), np.int32)
        for place, row in enumerate(self.host.rows(self.batch_size)):
            rng = np.random.default_rng((self.seed, 1, step, row))
            index = int(indices[place])
            for _ in range(REPLACEMENTS):
                try:
                    data, labels[place] = source[index]
                    images[place] = transform(data, rng)
                    break
                except Unreadable as error:
                    broken.append((index, str(error)))
                    index = int(rng.integers(len(source)))
            else:
                raise _nearly_all_broken(source, broken)
        return images, labels, broken

    def prefetch(self, start: int) -> Iterator[Batch]:
        """Yields the batches from ``start`` on, prepared while others are used.

        Photographs that cannot be read are named in the log, each once.

        Raises:
            UsageError: Too many of them, or the data set is gone.
        """
        source = self.dataset.train
        share = self.batch_size // self.host.count
        tally = _Tally(source, self.max_corrupt)
        if isinstance(source, ArraySource):
            for batch, broken in prefetch(_Prepared(self), start, threads=2, buffer=8):
                tally.add(share, broken)
                yield batch
            return
        largest = max(transform.size for transform in self.transforms)
        for batch, broken in prefetch(
            _Prepared(self),
            start,
            threads=_CORES,
            buffer=_CORES,
            workers=self.workers,
            batch_bytes=share * largest**2 * 3,
        ):
            tally.add(share, broken)
            yield batch


_CORES = os.cpu_count() or 1


def _nearly_all_broken(source: ArraySource | EncodedSource, broken: Broken) -> UsageError:
    index, reason = broken[-1]
    return UsageError(
        f"nearly all training images are broken, the last one being {_named(source, index)} "
        f"({reason}): prepare the data again."
    )


def _named(source: ArraySource | EncodedSource, index: int) -> str:
    """The name of an image, which may hold anything, for a terminal."""
    return printable(source.name(index))


def _check_labelled(labels: Int[np.ndarray, " b"], split: str) -> None:
    """Refuses labels that stand for "no label".

    Raises:
        UsageError: A label is negative.
    """
    if len(labels) and labels.min() < 0:
        raise UsageError(
            f"a {split} image has the label {labels.min()}, which stands for no label: train on a "
            "set whose splits have labels."
        )


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """Batches as they are read ahead, with what could not be read."""

    batches: "TrainBatches | EvalBatches"

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> tuple[Batch, Broken]:
        return self.batches.prepare(int(step))


class _Tally:
    """Counts the training images that cannot be read, and stops the run when they are too many.

    Args:
        source: The images.
        allowed: Share of them that may be unreadable.
    """

    def __init__(self, source: ArraySource | EncodedSource, allowed: float) -> None:
        self._source, self._allowed = source, allowed
        self._seen, self._broken = 0, set[int]()

    def add(self, seen: int, broken: Broken) -> None:
        """Counts a batch.

        Raises:
            UsageError: More are unreadable than allowed.
        """
        self._seen = min(self._seen + seen, len(self._source))
        for index, reason in broken:
            if index not in self._broken:
                self._broken.add(index)
                LOGGER.warning(
                    "broken image %d is replaced by another: %s (%s)",
                    *(len(self._broken), _named(self._source, index), reason),
                )
        count = len(self._broken)
        if count >= LEAST_CORRUPT and count > self._allowed * self._seen:
            raise UsageError(
                f"{count:,} of {self._seen:,} training images cannot be read, more than the share "
                f"of {self._allowed:g} that data.max_corrupt allows: mend the data (the log "
                "names them), or raise it."
            )


@dataclasses.dataclass(frozen=True)
class EvalBatches:
    """A split in order, every image once; the last batch is padded.

    Padding, and images that cannot be read, have the weight 0.
    """

    source: ArraySource | ViewedSource
    batch_size: int
    """Images of a step, over all hosts; they must divide it."""
    host: Host = Host()

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def prepare(self, step: int) -> tuple[WeightedBatch, Broken]:
        """Makes this host's rows of a batch, and tells which images could not be read.

        Raises:
            UsageError: The data set is gone.
        """
        indices = step * self.batch_size + np.array(self.host.rows(self.batch_size))
        inside = indices < len(self.source)
        broken: Broken = []
        if isinstance(self.source, ArraySource):
            indices = np.where(inside, indices, 0)
            images, readable = self.source.read(indices)
            broken = [
                (int(index), self.source.broken[int(index)])
                for index in indices[inside & ~readable]
            ]
            intact, labels = readable, self.source.labels[indices]
        else:
            images = np.zeros((len(indices), *self.source.image_shape), np.uint8)
            labels, intact = np.zeros(len(indices), np.int32), inside.copy()
            for place, index in enumerate(indices[inside].tolist()):
                try:
                    data, labels[place] = self.source.source[index]
                    images[place] = self.source.view(data)
                except Unreadable as error:
                    intact[place] = False
                    broken.append((index, str(error)))
        _check_labelled(labels, "validation")
        weight = (inside & intact).astype(np.float32)
        return WeightedBatch(image=images, label=labels, weight=weight), broken


def eval_batches(
    source: ArraySource | ViewedSource, batch_size: int, host: Host | None = None
) -> Iterator[WeightedBatch]:
    """Yields every image of a split once, in order, prepared while others are used.

    The last batch is padded to ``batch_size``; padding, and images that cannot be read, have the
    weight 0. Those are named in the log.

    Args:
        source: The split.
        batch_size: Images of a step, over all hosts.
        host: Which rows this process reads; None means all.

    Raises:
        UsageError: The data set is gone.
    """
    batches = EvalBatches(source, batch_size, host or Host())
    if isinstance(source, ArraySource):
        for step in range(len(batches)):
            batch, broken = batches.prepare(step)
            _name_left_out(source, broken)
            yield batch
        return
    share = len(batches.host.rows(batch_size))
    for batch, broken in prefetch(
        _Prepared(batches),
        0,
        threads=_CORES,
        buffer=_CORES,
        workers=source.workers,
        batch_bytes=share * math.prod(source.image_shape),
    ):
        _name_left_out(source.source, broken)
        yield batch


def _name_left_out(source: ArraySource | EncodedSource, broken: Broken) -> None:
    for index, reason in broken:
        LOGGER.warning("a broken image is not counted: %s (%s)", _named(source, index), reason)
