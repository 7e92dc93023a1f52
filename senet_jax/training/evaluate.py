"""Evaluation: every image of a split exactly once."""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from senet_jax.data.loader import Host, eval_batches
from senet_jax.data.sources import ArraySource, ViewedSource
from senet_jax.errors import UsageError
from senet_jax.training.mesh import to_devices
from senet_jax.training.step import EvalStep, Metrics


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result over a split."""

    loss: float
    """Mean cross-entropy."""
    top1: float
    """Fraction right, 0 to 1."""
    count: int
    """Images counted."""

    def metrics(self) -> dict[str, float]:
        """As keys of ``metrics.jsonl``."""
        return {f"val/{name}": value for name, value in dataclasses.asdict(self).items()}


def evaluate(
    eval_step: EvalStep,
    variables: dict[str, Any],
    source: ArraySource | ViewedSource,
    batch_size: int,
    mesh: Mesh,
) -> Evaluation:
    """Evaluates variables on all images of a split.

    Args:
        eval_step: From ``make_eval_step``.
        variables: ``params`` and ``batch_stats``.
        source: The split.
        batch_size: Images of a step; rounded up to a multiple of the devices.
        mesh: The mesh of ``eval_step``.

    Raises:
        UsageError: Not one image of the split could be read.
    """
    batch_size = -(-batch_size // mesh.size) * mesh.size
    total = {"loss": 0.0, "top1": 0.0, "count": 0.0}
    pending: Metrics = {}
    host = Host(jax.process_index(), jax.process_count())
    for batch in eval_batches(source, batch_size, host):
        dispatched = eval_step(variables, to_devices(dict(batch), mesh))
        # Read one batch late, so that the device never waits; summed in double precision.
        _add(total, pending)
        pending = dispatched
    _add(total, pending)
    count = round(total["count"])
    if not count:
        raise UsageError("not one image of the validation split could be read.")
    return Evaluation(loss=total["loss"] / count, top1=total["top1"] / count, count=count)


def _add(total: dict[str, float], sums: Metrics) -> None:
    for name, value in sums.items():
        total[name] += float(value)
