"""Batches as a function of (seed, step), for training and for evaluation."""

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from senet_jax.data.examples import ArraySpec, Batch, Draws, Examples, batch_bytes
from senet_jax.data.order import EpochOrder, GroupedOrder, steps_of_groups
from senet_jax.data.workers import prefetch
from senet_jax.errors import UsageError
from senet_jax.text import printable

LOGGER = logging.getLogger(__name__)


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
"""The number of images that are tried in place of one that cannot be read."""

LEAST_CORRUPT = 10
"""Number of unreadable images that never stops a run, whatever their share."""

_CORES = os.cpu_count() or 1


@dataclasses.dataclass(frozen=True)
class TrainBatches:
    """The training batches of a run, with random access: ``batches[step]``.

    Every epoch is a new order of all images, its incomplete last batch dropped. An image that
    cannot be read is replaced by another, chosen by the seed. What is drawn for a row of the
    global batch depends on the seed, the step and the row, whoever draws it.
    """

    examples: Sequence[Examples]
    """The images; of several forms, each is read for an equal share of the epochs."""
    batch_size: int
    """Images of a step, over all hosts; they must divide it."""
    seed: int
    steps: int
    """The number of batches of the run."""
    classes: Callable[[], Int[np.ndarray, " n"] | None] | None = None
    """Returns the class of every image, to draw each class equally often. If it or its result is
    None, each image is drawn once an epoch."""
    groups: tuple[Int[np.ndarray, " m"], ...] | None = None
    """Images of each form of ``examples``, where a batch has images of one form. If None, all
    images are read in each form, each for an equal share of the epochs."""
    host: Host = Host()
    workers: int = 0
    """Processes that prepare the batches."""
    max_corrupt: float = 0.001
    """Share of unreadable images beyond which the run stops."""

    def __len__(self) -> int:
        return self.steps

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        if self.groups is not None:
            return steps_of_groups(self.groups, self.batch_size)
        return len(self.examples[0]) // self.batch_size

    @functools.cached_property
    def _order(self) -> EpochOrder:
        classes = None if self.classes is None else self.classes()
        return EpochOrder(len(self.examples[0]), self.seed, classes)

    @functools.cached_property
    def _grouped(self) -> GroupedOrder:
        assert self.groups is not None
        return GroupedOrder(self.groups, self.batch_size, self.seed)

    def _images(self, step: int) -> tuple[Examples, Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
        """The form of a batch, its images, and those that may take the place of broken ones."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self.groups is not None:
            of_group, batches = self._grouped(epoch)
            group = int(of_group[place])
            return self.examples[group], batches[place], self.groups[group]
        epochs = -(-self.steps // self.steps_per_epoch)
        first = place * self.batch_size
        examples = self.examples[epoch * len(self.examples) // epochs]
        drawn = self._order(epoch)[first : first + self.batch_size]
        return examples, drawn, np.arange(len(examples))

    def __getitem__(self, step: int) -> tuple[Batch, Broken]:
        """Makes this host's rows of a batch, and tells which images had to be replaced.

        Raises:
            UsageError: Nothing can be read.
        """
        step = int(step)
        rows = self.host.rows(self.batch_size)
        examples, drawn, others = self._images(step)
        indices = drawn[rows.start : rows.stop]
        draws = [Draws(self.seed, 1, step, row) for row in rows]
        batch, failed = examples.read(indices, draws)
        broken: Broken = []
        for _ in range(REPLACEMENTS):
            if not failed:
                return batch, broken
            indices = indices.copy()
            for row, reason in failed.items():
                broken.append((int(indices[row]), reason))
                indices[row] = others[draws[row].rng.integers(len(others))]
            again = np.array(list(failed))
            read, failing = examples.read(indices[again], [draws[row] for row in again])
            for name, values in read.items():
                batch[name][again] = values
            failed = {int(again[row]): reason for row, reason in failing.items()}
        index, reason = broken[-1]
        raise UsageError(
            f"nearly all training images are broken, the last one being {_named(examples, index)} "
            f"({reason}): prepare the data again."
        )

    def broken(self, step: int) -> list[tuple[str, str]]:
        """Names and reasons of the images of a step that had to be replaced, safe to print."""
        _, broken = self[step]
        return [(_named(self.examples[0], index), reason) for index, reason in broken]

    def prefetch(self, start: int) -> Iterator[Batch]:
        """Yields the batches from ``start`` on, prepared while others are used.

        Images that cannot be read are named in the log, each once.

        Raises:
            UsageError: Too many of them, or the data set is gone.
        """
        share = self.batch_size // self.host.count
        largest = max(batch_bytes(examples.arrays, share) for examples in self.examples)
        unreadable = _Unreadable(self.examples[0], self.max_corrupt)
        for batch, broken in prefetch(
            self, start, threads=_CORES, buffer=_CORES, workers=self.workers, batch_bytes=largest
        ):
            unreadable.add(share, broken)
            yield batch


def _named(examples: Examples, index: int) -> str:
    """The name of an image, which may hold anything, for a terminal."""
    return printable(examples.name(index))


class _Unreadable:
    """Counts the training images that cannot be read, and stops the run when they are too many.

    Args:
        examples: The images.
        allowed: Share of them that may be unreadable.
    """

    def __init__(self, examples: Examples, allowed: float) -> None:
        self._examples, self._allowed = examples, allowed
        self._seen, self._broken = 0, set[int]()

    def add(self, seen: int, broken: Broken) -> None:
        """Counts a batch.

        Raises:
            UsageError: More are unreadable than allowed.
        """
        self._seen = min(self._seen + seen, len(self._examples))
        for index, reason in broken:
            if index not in self._broken:
                self._broken.add(index)
                LOGGER.warning(
                    "broken image %d is replaced by another: %s (%s)",
                    *(len(self._broken), _named(self._examples, index), reason),
                )
        count = len(self._broken)
        if count >= LEAST_CORRUPT and count > self._allowed * self._seen:
            raise UsageError(
                f"{count:,} of {self._seen:,} training images cannot be read, more than the share "
                f"of {self._allowed:g} that data.max_corrupt allows: repair the data (the log "
                "names them), or raise it."
            )


PADDING = -1
"""The index of a row that is no image. Image i that cannot be read has the index -2 - i."""

INDEX = ArraySpec((), np.int32, PADDING)
WEIGHT = ArraySpec((), np.float32)


class EvalBatch(NamedTuple):
    """Rows of a batch of evaluation, those of one host."""

    arrays: Batch
    """The arrays of the examples; ``index``, the place of each image in its split, ``PADDING`` or
    -2 - i; and ``weight``, 1 for an image that counts, 0 for padding and unreadable images."""
    errors: dict[int, str]
    """Why images could not be read, by their places in the split."""


@dataclasses.dataclass(frozen=True)
class EvalBatches:
    """A split in order, every image once, with random access; the last batch is padded.

    A global batch is divided evenly over the hosts, so that each host has as many batches.
    """

    examples: Examples
    batch_size: int
    """Images of a step, over all hosts; they must divide it."""
    host: Host = Host()

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """The arrays of a batch by their names."""
        return {**self.examples.arrays, "index": INDEX, "weight": WEIGHT}

    def __getitem__(self, step: int) -> EvalBatch:
        """Makes this host's rows of a batch.

        Raises:
            UsageError: The data set is gone.
        """
        rows = self.host.rows(self.batch_size)
        first = int(step) * self.batch_size
        indices = np.arange(first + rows.start, min(first + rows.stop, len(self.examples)))
        read, failed = self.examples.read(indices, [Draws(index) for index in indices.tolist()])
        arrays = {name: spec.rows(len(rows)) for name, spec in self.arrays.items()}
        arrays["index"][: len(indices)] = indices
        arrays["weight"][: len(indices)] = 1
        for name, values in read.items():
            arrays[name][: len(indices)] = values
        for row in failed:
            for name, spec in self.arrays.items():
                arrays[name][row] = spec.fill
            arrays["index"][row] = -2 - indices[row]
        return EvalBatch(arrays, {int(indices[row]): failed[row] for row in failed})

    @property
    def batch_bytes(self) -> int:
        """Bytes of this host's rows of a batch."""
        return batch_bytes(self.arrays, len(self.host.rows(self.batch_size)))

    def read(self, workers: int = 0) -> Iterator[EvalBatch]:
        """Yields the batches, prepared while others are used.

        Args:
            workers: Processes that prepare them; 0 means threads.
        """
        return _read_ahead(self, self.batch_bytes, workers)


@dataclasses.dataclass(frozen=True)
class EvalGroups:
    """The batches of a split whose images are in groups, such as those of one shape each.

    A batch has images of one group. Each host has as many batches of the same groups.
    """

    groups: tuple[EvalBatches, ...]

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(len(group.examples) for group in self.groups)

    def place(self, step: int) -> tuple[EvalBatches, int]:
        """The group of a batch, and the place of the batch in it."""
        for group in self.groups:
            if step < len(group):
                return group, step
            step -= len(group)
        raise IndexError(step)

    def __getitem__(self, step: int) -> EvalBatch:
        """Makes this host's rows of a batch; errors as ``EvalBatches``."""
        group, place = self.place(int(step))
        return group[place]

    def read(self, workers: int = 0) -> Iterator[EvalBatch]:
        """As ``EvalBatches.read``."""
        return _read_ahead(self, max(group.batch_bytes for group in self.groups), workers)


def _read_ahead(
    batches: EvalBatches | EvalGroups, largest: int, workers: int
) -> Iterator[EvalBatch]:
    """Yields the batches of evaluation; the largest has ``largest`` bytes."""
    for batch in prefetch(
        batches, 0, threads=_CORES, buffer=_CORES, workers=workers, batch_bytes=largest
    ):
        yield EvalBatch(*batch)
