import pytest

from senet_jax.config import CheckpointConfig
from senet_jax.training.checkpoints.retention import Record, best, reasons

RECORDS = [
    Record(10, {"epoch": 1.0, "val/top1": 0.3, "val/loss": 2.0}),
    Record(15, {"epoch": 1.5}),
    Record(20, {"epoch": 2.0, "val/top1": 0.5, "val/loss": 1.5}),
    Record(30, {"epoch": 3.0, "val/top1": 0.5, "val/loss": 1.0}),
    Record(40, {"epoch": 4.0, "val/top1": 0.4, "val/loss": 1.2}),
    Record(50, {}),
]


def test_of_a_loss_the_lowest_is_the_best_else_the_highest_and_of_equals_the_first():
    assert best(RECORDS, "val/top1") == 20
    assert best(RECORDS, "val/loss") == 30
    assert best(RECORDS, "val/top5") is None


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (CheckpointConfig(keep_last=1), {20: ["best"], 50: ["newest"]}),
        (CheckpointConfig(keep_last=1, best_metric="val/loss"), {30: ["best"], 50: ["newest"]}),
        (
            CheckpointConfig(keep_last=2, keep_every_epochs=2),
            {20: ["best", "every"], 40: ["newest", "every"], 50: ["newest"]},
        ),
    ],
)
def test_what_has_a_reason_is_kept(config, kept):
    assert {step: why for step, why in reasons(RECORDS, config).items() if why} == kept
