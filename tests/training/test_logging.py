import json

import pytest

from senet_jax.training.logging import Meter, MetricsLog, read_metrics


def test_lines_of_later_steps_and_torn_lines_are_taken_away(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write({"step": step, "train/loss": 0.5 / step})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "tra')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    log = MetricsLog(tmp_path, 2)
    log.write({"step": 3, "train/loss": 9.0})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[1]["train/loss"] == 0.25
    assert lines[2]["train/loss"] == 9.0


def test_what_is_written_is_in_the_file_at_once(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write({"step": 1, "epoch": 0.1, "train/loss": 0.1})
    assert read_metrics(tmp_path) == [{"step": 1, "epoch": 0.1, "train/loss": 0.1}]
    log.close()


def test_tensorboard_has_the_values(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write({"step": 7, "val/top1": 0.625})
    log.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert b"val/top1" in file.read_bytes()


def test_means_are_over_the_steps_and_survive_a_restart():
    meter = Meter()
    meter.add({"loss": 1.0, "top1": 0.5})
    meter = Meter(json.loads(json.dumps(meter.sums)))
    meter.add({"loss": 2.0, "top1": 1.0})
    assert meter.means() == pytest.approx({"train/loss": 1.5, "train/top1": 0.75})
    meter.add({"loss": 4.0, "top1": 0.0})
    assert meter.means() == {"train/loss": 4.0, "train/top1": 0.0}
