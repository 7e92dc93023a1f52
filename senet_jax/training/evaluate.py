"""Evaluation: every image of a split exactly once."""

import dataclasses
import logging
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from senet_jax.data.loader import Host, eval_batches
from senet_jax.data.sources import ArraySource, ViewedSource
from senet_jax.errors import UsageError
from senet_jax.training.distributed.mesh import to_devices
from senet_jax.training.step import EvalStep, Metrics

LOGGER = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The result over a split."""

    loss: float
    """Mean cross-entropy."""
    top1: float
    """Fraction right, 0 to 1."""
    count: int
    """Images counted."""
    top5: float | None = None
    """Fraction with the right class among the first five; None where there are no more classes."""

    def metrics(self) -> dict[str, float]:
        """As keys of ``metrics.jsonl``."""
        values = dataclasses.asdict(self).items()
        return {f"val/{name}": value for name, value in values if value is not None}


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
        RuntimeError: Images were lost or counted twice.
    """
    batch_size = padded_size(batch_size, mesh)
    total: dict[str, float] = {}
    pending: Metrics = {}
    readable = 0
    host = Host(jax.process_index(), jax.process_count())
    for batch in eval_batches(source, batch_size, host):
        readable += int(batch["weight"].sum())
        dispatched = eval_step(variables, to_devices(dict(batch), mesh))
        # Read one batch late, so that the device never waits; summed in double precision.
        _add(total, pending)
        pending = dispatched
    _add(total, pending)
    count = round(total.pop("count"))
    if not count:
        raise UsageError("not one image of the validation split could be read.")
    check_count(count, int(np.sum(multihost_utils.process_allgather(np.int32(readable)))))
    if count != len(source):
        LOGGER.warning(
            "%d of %d validation images are counted, the others cannot be read",
            count,
            len(source),
        )
    return Evaluation(**{name: value / count for name, value in total.items()}, count=count)


def padded_size(batch_size: int, mesh: Mesh) -> int:
    """Rounds a number of images up to a multiple of the devices."""
    return -(-batch_size // mesh.size) * mesh.size


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


def _add(total: dict[str, float], sums: Metrics) -> None:
    for name, value in sums.items():
        total[name] = total.get(name, 0.0) + float(value)
