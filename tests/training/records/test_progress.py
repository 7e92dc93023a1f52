import dataclasses
import time

import numpy as np
import pytest

from senet_jax.config import CheckpointConfig, TrainConfig
from senet_jax.tasks.classification import Classification
from senet_jax.training.records.goodput import Account
from senet_jax.training.records.progress import Clock, Forecast, ProgressBar
from tests.median_task import Median


@pytest.fixture
def clock_time(monkeypatch):
    """A clock that goes on only when it is told to."""
    now = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def batches(wait, seconds, sizes):
    for size in sizes:
        wait(seconds)
        yield {"image": np.zeros((4, size, size, 3), np.uint8)}


def test_a_lap_counts_steps_and_waiting_but_not_what_compiles(clock_time):
    account = Account()
    clock = Clock(account)
    for _ in clock.reading(batches(clock_time, 0.25, [8, 8, 8])):
        clock_time(10.0 if clock.compiling else 0.75)
        clock.tick({})
    clock.pause()
    clock_time(100.0)
    lap = clock.lap(batch_size=4)
    assert lap == {
        "time/steps_s": pytest.approx(2.0),
        "time/first_step_s": pytest.approx(10.25),
        "time/step_s": pytest.approx(1.0),
        "time/images_per_s": pytest.approx(4.0),
        "time/data_wait": pytest.approx(0.25),
    }
    assert clock.recent_step_s == pytest.approx(1.0)
    told = {kind: seconds for kind, seconds in account.spent().items() if seconds}
    assert told == {"compile": 10.0, "data_wait": 0.75, "steps": 1.5, "other": 100.0}
    clock.resume()
    clock.pause()
    assert clock.lap(4) == {"time/steps_s": 0.0}


def test_the_first_step_of_another_size_compiles_too(clock_time):
    clock = Clock(Account())
    compiled = []
    for _ in clock.reading(batches(clock_time, 0.25, [8, 8, 16, 16, 16])):
        compiled.append(clock.compiling)
        clock_time(10.0 if clock.compiling else 1.75)
        clock.tick({})
    clock.pause()
    assert compiled == [True, False, True, False, False]
    lap = clock.lap(4)
    assert lap["time/first_step_s"] == pytest.approx(20.5)
    assert lap["time/step_s"] == pytest.approx(2.0)
    # The time left is told by the steps of the present size alone.
    assert clock.recent_step_s == pytest.approx(2.0)


def test_a_dispatched_step_is_not_taken_for_a_quick_one(clock_time):
    clock = Clock(Account())
    for number, _ in enumerate(clock.reading(batches(clock_time, 0.0, [8] * 5))):
        # The step that compiles, one that is dispatched, and then each waits for the one before.
        clock_time([10.0, 0.1, 1.0, 1.0, 1.0][number])
        clock.tick({})
        assert clock.recent_step_s in (None, pytest.approx(1.1), pytest.approx(1.05, rel=0.03))
    clock_time(1.0)
    clock.pause()
    assert clock.recent_step_s == pytest.approx(4.1 / 4)


CONFIG = TrainConfig(
    epochs=5,
    eval_every_epochs=2,
    checkpoint=CheckpointConfig(every_epochs=3, every_steps=20),
)


def simulated(config, sizes, step_s, validation_s, save_s, start):
    """The time of a run, step by step, from ``start`` on."""
    seconds, total = 0.0, 10 * config.epochs
    for step in range(start + 1, total + 1):
        epoch, rest = divmod(step, 10)
        now = sizes[max(start - 1, 0) // 10]
        seconds += step_s * (sizes[(step - 1) // 10] / now) ** 2
        last, end = step == total, rest == 0
        seconds += validation_s * (end and (last or epoch % config.eval_every_epochs == 0))
        seconds += save_s * (end and (last or epoch % config.checkpoint.every_epochs == 0))
        seconds += save_s * (step % config.checkpoint.every_steps == 0)
    return seconds


@pytest.mark.parametrize("start", [0, 1, 10, 15, 29, 30, 41, 49, 50])
@pytest.mark.parametrize("sizes", [[8] * 5, [8, 8, 16, 16, 16]])
def test_the_time_left_is_that_of_all_that_is_to_come(start, sizes):
    forecast = Forecast(CONFIG, 10, 500, sizes)
    for seconds in (100.0, 7.0):
        forecast.took("evaluation", seconds)
    for seconds in (100.0, 3.0):
        forecast.took("checkpoint", seconds)
    expected = simulated(CONFIG, sizes, 0.5, 7.0, 3.0, start)
    assert forecast.left(start, 0.5) == pytest.approx(expected)


def test_a_validation_is_first_estimated_as_training():
    config = dataclasses.replace(CONFIG, epochs=1)
    forecast = Forecast(config, 10, val_images=config.data.batch_size * 3, sizes=[8])
    for _ in range(2):
        assert forecast.left(4, 2.0) == pytest.approx((6 + 3) * 2.0)
        forecast.took("evaluation", 1000.0)
        forecast.took("checkpoint", 1000.0)


def test_where_there_is_no_terminal_a_line_comes_now_and_then(clock_time, capsys):
    asked = []

    def status():
        asked.append(True)
        return {"train/loss": 1.5, "train/top1": 0.25, "time/left_s": 3723.0}

    with ProgressBar(1000, start=100, epochs=4, task=Classification, status=status) as bar:
        for step in range(101, 231):
            clock_time(1.0)
            bar.advance(step)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "step 160 of 1,000 | train loss 1.5000 error 75.00% | 1:02:03 left",
        "step 220 of 1,000 | train loss 1.5000 error 75.00% | 1:02:03 left",
    ]
    assert len(asked) == 2


def test_the_line_of_an_epoch_has_all_of_it(capsys):
    line = {
        "step": 10,
        "epoch": 2.0,
        "train/loss": 2.5,
        "train/top1": 0.5,
        "train/learning_rate": 0.05,
        "train/grad_norm": 1.0,
        "val/loss": 1.25,
        "val/top1": 0.6,
        "val/top5": 0.9,
        "time/images_per_s": 1234.5,
        "time/step_s": 0.1037,
        "time/data_wait": 0.012,
        "time/mfu": 0.431,
        "time/validation_s": 4.0,
        "time/left_s": 90061.0,
    }
    with ProgressBar(total=100, start=0, epochs=16, task=Classification) as bar:
        bar.say(line)
    assert capsys.readouterr().out == (
        "epoch 2.00 of 16 | train loss 2.5000 error 50.00% | val loss 1.2500 error 40.00% "
        "top-5 10.00% | lr 0.05 | 1,234 images/s | 104 ms/step | data wait 1.2% | MFU 43.1% | "
        "validated in 4.0 s | 1 day, 1:01:01 left\n"
    )


def test_the_metrics_of_another_task_are_told_with_their_units(capsys):
    line = {
        "step": 10,
        "epoch": 2.0,
        "train/loss": 2.5,
        "train/top1": 0.5,
        "val/loss": 1.25,
        "val/median": 0.0625,
        "val/count": 360.0,
        "time/left_s": 61.0,
    }
    with ProgressBar(total=100, start=0, epochs=16, task=Median) as bar:
        bar.say(line)
    assert capsys.readouterr().out == (
        "epoch 2.00 of 16 | train loss 2.5000 | val loss 1.2500 median error 0.0625 m | "
        "0:01:01 left\n"
    )
