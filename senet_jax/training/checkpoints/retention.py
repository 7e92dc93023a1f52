"""The checkpoints of a run that are kept, and the reasons."""

import dataclasses
from collections.abc import Iterable

from senet_jax.config import CheckpointConfig
from senet_jax.tasks.metrics import Metric


@dataclasses.dataclass(frozen=True)
class Record:
    """The facts of a checkpoint that are known without reading its state."""

    step: int
    metrics: dict[str, float]
    """``epoch``, and the validation of this very state, if it was validated: keys of
    ``metrics.jsonl``. Empty for a checkpoint that does not say."""


def best(records: Iterable[Record], metric: Metric | None) -> int | None:
    """The step of the best by a metric of the validation, the earlier one where two are alike.

    Returns:
        None where none has the metric, or none is asked for.
    """
    if metric is None:
        return None
    key, sign = metric.validation, 1 if metric.higher_is_better else -1
    known = [record for record in records if key in record.metrics]
    chosen = max(known, key=lambda r: (sign * r.metrics[key], -r.step), default=None)
    return None if chosen is None else chosen.step


def reasons(
    records: Iterable[Record], config: CheckpointConfig, metric: Metric | None
) -> dict[int, list[str]]:
    """Maps each step to the reasons to keep its checkpoint: "newest", "best" or "every".

    Steps with an empty list are to be deleted.
    """
    records = sorted(records, key=lambda record: record.step)
    steps: dict[str, set[int | None]] = {
        "newest": {record.step for record in records[-config.keep_last :]},
        "best": {best(records, metric)},
        "every": {record.step for record in records if _kept_for_good(record, config)},
    }
    return {
        record.step: [reason for reason, kept in steps.items() if record.step in kept]
        for record in records
    }


def _kept_for_good(record: Record, config: CheckpointConfig) -> bool:
    every, epoch = config.keep_every_epochs, record.metrics.get("epoch")
    return bool(every and epoch and epoch % every == 0)
