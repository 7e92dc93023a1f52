import pytest

from senet_jax.config import CheckpointConfig
from senet_jax.tasks.metrics import Metric
from senet_jax.training.checkpoints.retention import Record, best, reasons

RECORDS = [
    Record(10, {"epoch": 1.0, "val/top1": 0.3, "val/loss": 2.0}),
    Record(15, {"epoch": 1.5}),
    Record(20, {"epoch": 2.0, "val/top1": 0.5, "val/loss": 1.5}),
    Record(30, {"epoch": 3.0, "val/top1": 0.5, "val/loss": 1.0}),
    Record(40, {"epoch": 4.0, "val/top1": 0.4, "val/loss": 1.2}),
    Record(50, {}),
]


TOP1, LOSS, MEDIAN = Metric("top1", "", True), Metric("loss", "", False), Metric("m", "", False)


def test_the_metric_decides_the_best_and_ties_go_to_the_first():
    assert best(RECORDS, TOP1) == 20
    assert best(RECORDS, LOSS) == 30
    assert best(RECORDS, MEDIAN) is None
    errors = [Record(step, {"val/m": error}) for step, error in ((1, 3.0), (2, -1.0), (3, -1.0))]
    assert best(errors, MEDIAN) == 2
    assert best(errors, None) is None


@pytest.mark.parametrize(
    ("config", "metric", "kept"),
    [
        (CheckpointConfig(keep_last=1), TOP1, {20: ["best"], 50: ["newest"]}),
        (CheckpointConfig(keep_last=1), LOSS, {30: ["best"], 50: ["newest"]}),
        (
            CheckpointConfig(keep_last=2, keep_every_epochs=2),
            TOP1,
            {20: ["best", "every"], 40: ["newest", "every"], 50: ["newest"]},
        ),
    ],
)
def test_what_has_a_reason_is_kept(config, metric, kept):
    assert {step: why for step, why in reasons(RECORDS, config, metric).items() if why} == kept
