"""Weights averaged over checkpoints, and the batch norm statistics that belong to them."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from senet_jax.data.augment.keys import StepKeys
from senet_jax.errors import UsageError
from senet_jax.inference.trained import open_run
from senet_jax.ops.norm import MOMENTUM
from senet_jax.tasks.base import Arrays
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.run import Run
from senet_jax.training.step import network_keys


@dataclasses.dataclass(frozen=True)
class Average:
    """The mean of checkpoints."""

    run: Run
    """The run of the first of them."""
    variables: dict[str, PyTree[np.ndarray]]
    """``params`` and ``batch_stats``, each the mean of those that are evaluated."""
    members: list[tuple[Path, int]]
    """Run and step of each checkpoint."""


def average_checkpoints(
    paths: Sequence[Path], last: int | None = None, *, with_data: bool = False
) -> Average:
    """Averages the weights of checkpoints that are evaluated: moving averages if a run keeps them.

    Args:
        paths: Folders of runs, of which all checkpoints are taken, and of checkpoints.
        last: Number of the newest checkpoints of a run to take; None means all.
        with_data: Open the data set, for ``batch_norm_statistics``.

    Raises:
        UsageError: They cannot be read, or are of different networks.
    """
    first, *_ = open_run(paths[0], with_data=with_data)
    members: list[tuple[Path, int]] = []

    def evaluated() -> Iterator[Any]:
        for path in paths:
            run, checkpoints, named = open_run(path)
            if (run.config.model, run.dataset.classes) != (
                first.config.model,
                first.dataset.classes,
            ):
                raise UsageError(
                    f"{path} has another network or other classes than {paths[0]}: only "
                    "checkpoints of the same can be averaged."
                )
            for step in checkpoints.steps()[-(last or 0) :] if named is None else [named]:
                members.append((path, step))
                yield checkpoints.restore(step, run.abstract).state.eval_variables

    mean = _mean(evaluated())
    return Average(first, mean, members)


def batch_norm_statistics(
    run: Run, variables: Mapping[str, PyTree[Array]], batches: int
) -> dict[str, PyTree[np.ndarray]]:
    """The statistics of the batch norms of a network, over training batches as it is shown them.

    The statistics of averaged weights are not the averages of statistics (stochastic weight
    averaging, arXiv 1803.05407, section 3.2). Means and variances of the batches are averaged.

    Args:
        run: The run, with its data.
        variables: The weights, ``params``, and ``batch_stats``, of which norms keep theirs whose
            statistics training does not change.
        batches: The number of batches, from the first step's on.

    Returns:
        ``batch_stats``; empty for a network without batch norm.

    Raises:
        UsageError: The run has fewer batches.
    """
    if not 1 <= batches <= run.batches.steps:
        raise UsageError(f"{run.batches.steps} batches can be had at the most, not {batches}.")

    def of_batch(variables: Any, batch: Arrays, index: Array) -> Any:
        keys = StepKeys.of(jax.random.key(run.config.seed), index)
        arrays, _ = run.task.prepare(batch, keys, run.network.normalization)
        _, updated = run.network.apply(
            variables,
            *run.task.inputs(arrays, train=True),
            train=True,
            mutable=["batch_stats"],
            rngs=network_keys(run.task, keys.dropout),
        )
        # The share of the batch's statistics in the new ones; frozen ones stay as they are.
        return jax.tree.map(
            lambda new, old: (new - MOMENTUM * old) / (1 - MOMENTUM),
            updated.get("batch_stats", {}),
            variables["batch_stats"],
        )

    everywhere = meshes.replicated(run.mesh)
    step = run.network.jit(of_batch, out_shardings=everywhere)
    variables = jax.device_put(
        {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}, everywhere
    )
    return _mean(
        step(variables, meshes.to_devices(run.batches[index][0], run.mesh), jnp.int32(index))
        for index in range(batches)
    )


def _mean(trees: Iterable[Any]) -> Any:
    """The mean of trees, in double precision."""
    total, count = None, 0
    for tree in trees:
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(tree))
        total = wide if total is None else jax.tree.map(np.add, total, wide)
        count += 1
    return jax.tree.map(lambda leaf: np.asarray(leaf / count, np.float32), total)
