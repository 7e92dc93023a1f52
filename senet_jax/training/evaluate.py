"""Evaluation: every image of a split exactly once, over any mesh and hosts."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array

from senet_jax.data.examples import Batch, Examples
from senet_jax.data.loader import EvalBatch, EvalBatches, EvalGroups, Host
from senet_jax.errors import UsageError
from senet_jax.tasks.base import Accumulator, Measured, Task
from senet_jax.text import printable
from senet_jax.training.distributed.mesh import to_devices
from senet_jax.training.step import EvalStep

LOGGER = logging.getLogger(__name__)

Output = TypeVar("Output")
Value = TypeVar("Value")


def eval_batches(examples: Examples, batch_size: int, mesh: Mesh) -> EvalBatches:
    """The batches of a split, as this process reads them.

    Args:
        examples: The split.
        batch_size: Images of a step over all hosts; rounded up to a multiple of the devices.
        mesh: The devices that share a batch.
    """
    padded = -(-batch_size // mesh.size) * mesh.size
    return EvalBatches(examples, padded, Host(jax.process_index(), jax.process_count()))


def eval_groups(groups: Sequence[Examples], batch_size: int, mesh: Mesh) -> EvalGroups:
    """The batches of a split in groups, as this process reads them.

    Args:
        groups: The split: each image is in one of them.
        batch_size: As in ``eval_batches``. The batches of a smaller group are as small as it is.
        mesh: The devices that share a batch.
    """
    return EvalGroups(
        tuple(eval_batches(group, min(batch_size, len(group) or 1), mesh) for group in groups)
    )


def over_batches(
    batches: EvalBatches | EvalGroups, workers: int, dispatch: Callable[[Batch], Output]
) -> Iterator[tuple[EvalBatch, Output]]:
    """Yields the batches of a split and what was dispatched for each.

    An output is yielded once the next batch is dispatched, so that the devices need not wait for
    the host that reads it; no more batches are, since on CPUs the collectives of many starve.

    Args:
        batches: The split.
        workers: Processes that prepare the batches; 0 means threads.
        dispatch: Lets the devices compute what they do not wait for.
    """
    pending: tuple[EvalBatch, Output] | None = None
    for batch in batches.read(workers):
        dispatched = batch, dispatch(batch.arrays)
        if pending is not None:
            yield pending
        pending = dispatched
    if pending is not None:
        yield pending


def evaluate(
    task: Task,
    step: EvalStep,
    variables: dict[str, Any],
    groups: Sequence[Examples],
    batch_size: int,
    mesh: Mesh,
    workers: int = 0,
    accumulator: Accumulator | None = None,
) -> dict[str, float]:
    """Evaluates variables on all images of a split.

    Args:
        task: The task.
        step: From ``make_eval_step``.
        variables: ``params`` and ``batch_stats``.
        groups: The split: each image is in one of them.
        batch_size: Images of a step; rounded up to a multiple of the devices.
        mesh: The mesh of ``step``.
        workers: Processes that prepare the images; 0 means threads.
        accumulator: Takes the measurements; if None, a new one of the task does.

    Returns:
        The metrics as keys of ``metrics.jsonl``, and ``val/count``, the number of images that
        count.

    Raises:
        UsageError: Not one image of the split could be read.
        RuntimeError: Images were lost or counted twice.
    """

    def dispatch(batch: Batch) -> Measured:
        return step(variables, to_devices(without_index(batch), mesh))

    batches = eval_groups(groups, batch_size, mesh)
    return measure_batches(task, batches, dispatch, workers, accumulator)


def measure_batches(
    task: Task,
    batches: EvalGroups,
    dispatch: Callable[[Batch], Measured],
    workers: int = 0,
    accumulator: Accumulator | None = None,
) -> dict[str, float]:
    """Evaluates the batches of a split by any measurement of a batch.

    Args:
        task: The task, which adds up what is measured.
        batches: The split: each image is in one of the groups.
        dispatch: Measures this host's rows of a batch; the sums have ``count``, the number of the
            images of weight 1 on all hosts.
        workers: Processes that prepare the images; 0 means threads.
        accumulator: Takes the measurements; if None, a new one of the task does.

    Returns:
        As ``evaluate``.

    Raises:
        UsageError: Not one image of the split could be read.
        RuntimeError: Images were lost or counted twice.
    """
    accumulator = task.accumulator() if accumulator is None else accumulator
    counted, readable = 0.0, 0
    for number, (batch, measured) in enumerate(over_batches(batches, workers, dispatch)):
        group, _ = batches.place(number)
        for index, reason in batch.errors.items():
            name = printable(group.examples.name(index))
            LOGGER.warning("a broken image is not counted: %s (%s)", name, reason)
        counts = batch.arrays["weight"] > 0
        readable += int(counts.sum())
        sums = {name: np.asarray(value) for name, value in measured.sums.items()}
        counted += float(sums["count"])
        rows = {name: own_rows(value)[counts] for name, value in measured.rows.items()}
        accumulator.add(sums, rows)
    count = round(counted)
    if not count:
        raise UsageError("not one image of the validation split could be read.")
    check_count(count, int(np.sum(multihost_utils.process_allgather(np.int32(readable)))))
    if count != batches.images:
        LOGGER.warning(
            "%d of %d validation images are counted, the others cannot be read",
            *(count, batches.images),
        )
    summary = accumulator.summary(_of_all_hosts(accumulator.part()))
    return {**{f"val/{name}": value for name, value in summary.items()}, "val/count": count}


def without_index(batch: Mapping[str, Value]) -> dict[str, Value]:
    """The arrays that the devices are sent."""
    return {name: values for name, values in batch.items() if name != "index"}


def own_rows(values: Array) -> np.ndarray:
    """The rows of an array, divided over the batch, that belong to the images of this host."""
    shards = {shard.index[0].start or 0: shard.data for shard in values.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def _of_all_hosts(part: Mapping[str, np.ndarray]) -> list[Mapping[str, np.ndarray]]:
    """The arrays of each host, in the order of ranks; their first axes may differ in length."""
    hosts = jax.process_count()
    if hosts == 1:
        return [part]
    parts: list[dict[str, np.ndarray]] = [{} for _ in range(hosts)]
    for name, own in part.items():
        own = np.asarray(own)
        lengths = multihost_utils.process_allgather(np.int32(len(own)))
        padded = np.zeros((max(int(lengths.max()), 1), *own.shape[1:]), own.dtype)
        padded[: len(own)] = own
        # As bytes: jax would make float32 of float64.
        flat = np.frombuffer(padded.tobytes(), np.uint8)
        gathered = np.asarray(multihost_utils.process_allgather(flat))
        for host, data in enumerate(gathered):
            whole = np.frombuffer(data.tobytes(), own.dtype).reshape(padded.shape)
            parts[host][name] = whole[: int(lengths[host])]
    return list(parts)


def check_count(counted: int, expected: int) -> None:
    """Makes sure that nothing was lost or counted twice on the way.

    Raises:
        RuntimeError: Another number of images was counted than there were.
    """
    if counted != expected:
        raise RuntimeError(
            f"{counted:,} images were counted where there are {expected:,}: the result is wrong, "
            "please report this."
        )
