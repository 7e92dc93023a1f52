import dataclasses

import pytest

from senet_jax.config import CheckpointConfig, TrainConfig
from senet_jax.training.due import Due

CONFIG = TrainConfig(
    epochs=5,
    eval_every_epochs=2,
    log_every_steps=4,
    checkpoint=CheckpointConfig(every_epochs=3, every_steps=7),
)


def steps_with(field, config=CONFIG, **arguments):
    """The steps of a run of 5 epochs of 10 steps after which an event is due."""
    events = {step: Due.after(step, config, 10, **arguments) for step in range(1, 51)}
    return [step for step, due in events.items() if getattr(due, field)]


def test_epochs_end_every_ten_steps():
    assert steps_with("epoch_end") == [10, 20, 30, 40, 50]


def test_lines_come_every_four_steps_and_with_each_epoch():
    assert steps_with("write") == sorted({*range(4, 51, 4), 10, 20, 30, 40, 50})
    silent = dataclasses.replace(CONFIG, log_every_steps=None)
    assert steps_with("write", silent) == [10, 20, 30, 40, 50]


def test_validations_come_every_two_epochs_and_at_the_end():
    assert steps_with("validate") == [20, 40, 50]


def test_checkpoints_come_by_epochs_by_steps_and_at_the_end():
    assert steps_with("save") == sorted({30, 50, *range(7, 51, 7)})
    by_epochs = dataclasses.replace(CONFIG, checkpoint=CheckpointConfig(every_epochs=3))
    assert steps_with("save", by_epochs) == [30, 50]


@pytest.mark.parametrize("step", [1, 10, 49])
def test_a_run_that_is_asked_to_stop_saves_and_stops(step):
    due = Due.after(step, CONFIG, 10, stopping=True)
    assert due.save
    assert due.preempted


def test_a_run_is_not_stopped_after_its_last_step():
    due = Due.after(50, CONFIG, 10, stopping=True)
    assert due.save
    assert not due.preempted
