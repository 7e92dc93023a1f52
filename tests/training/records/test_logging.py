import errno
import json
import os

import pytest

from senet_jax.errors import UsageError
from senet_jax.training.records.metrics import (
    Meter,
    MetricsLog,
    reached,
    read_last_metrics,
    read_metrics,
    training_speed,
)


def test_lines_of_later_steps_and_torn_lines_are_taken_away(tmp_path):
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        log.write({"step": step, "epoch": 1, "train/loss": 0.5 / step})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "tra')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    log = MetricsLog(tmp_path, 2)
    log.write({"step": 3, "epoch": 1, "train/loss": 9.0})
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
    log.write({"step": 7, "epoch": 1, "val/top1": 0.625})
    log.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    assert b"val/top1" in file.read_bytes()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("null", "it is no JSON object"),
        ("{", "Expecting property name"),
        ('{"epoch": 1}', "it lacks 'step'"),
        ('{"step": 1}', "it lacks 'epoch'"),
        ('{"step": 1, "epoch": null}', "'epoch' is no number"),
        ('{"step": 1, "epoch": 1, "train/loss": true}', "'train/loss' is no number"),
        ('{"step": 1, "epoch": NaN}', "'epoch' is no finite number"),
        ('{"step": 1, "epoch": 1, "val/loss": 1' + "0" * 400 + "}", "'val/loss' is no finite"),
        ('{"step": -1, "epoch": 1}', "'step' is out of range"),
        ('{"step": 1, "epoch": 1, "val/top5": 1.5}', "'val/top5' is out of range"),
        ('{"step": 1, "epoch": 1, "val/top1": 0.5}', "it lacks 'val/loss'"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_line_that_no_run_writes_is_refused(tmp_path, line, problem):
    file = tmp_path / "metrics.jsonl"
    written = f'{{"step": 1, "epoch": 0.5}}\n{line}\n'
    file.write_text(written)
    for read in (read_metrics, lambda folder: MetricsLog(folder, 0)):
        with pytest.raises(UsageError, match=f"damaged in line 2: .*{problem}"):
            read(tmp_path)
    assert file.read_text() == written
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_metrics_that_cannot_be_read_are_refused(tmp_path):
    file = tmp_path / "metrics.jsonl"
    os.mkfifo(file)
    with pytest.raises(UsageError, match="cannot be read as the metrics of a run: it is no reg"):
        read_metrics(tmp_path)
    file.unlink()
    file.write_bytes(b'{"step": 1, "epoch\xff": 1}\n')
    with pytest.raises(UsageError, match="cannot be read as the metrics of a run: 'utf-8' codec"):
        read_metrics(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(UsageError, match="cannot be read as the metrics of a run: Is a dir"):
        read_metrics(tmp_path)


def test_damaged_starts_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "sessions.jsonl").write_text("null\n")
    with pytest.raises(UsageError, match=r"sessions\.jsonl is damaged in line 1"):
        MetricsLog(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["sessions.jsonl"]


def test_a_run_without_its_last_line_has_not_ended(tmp_path):
    for text in ("", '{"step": 1, "epoch": 1}\n'):
        (tmp_path / "metrics.jsonl").write_text(text)
        with pytest.raises(UsageError, match=r"metrics\.jsonl lacks the final validation"):
            read_last_metrics(tmp_path)


def test_every_task_says_what_a_line_of_its_validation_has(tmp_path, median):
    file = tmp_path / "metrics.jsonl"
    line = {"step": 1, "epoch": 2, "val/median": 70.0, "val/count": 360}
    file.write_text(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match="damaged in line 1: it lacks 'val/loss'"):
        read_metrics(tmp_path)
    line["val/loss"] = 0.5
    file.write_text(json.dumps(line) + "\n")
    assert read_last_metrics(tmp_path, "val/median") == line
    with pytest.raises(UsageError, match=r"metrics\.jsonl lacks the final validation"):
        read_last_metrics(tmp_path, "val/top1")


def test_a_run_of_any_task_ends_with_its_last_validation():
    line = {"step": 10, "epoch": 2, "val/unknown": 70.0, "val/count": 360}
    assert reached([line], 2)
    assert not reached([line], 3)
    assert not reached([{"step": 10, "epoch": 2, "val/unknown": 70.0}], 2)
    assert not reached([], 0)


def test_a_step_without_its_time_gives_no_speed():
    assert training_speed([{"step": 1, "epoch": 1, "time/images_per_s": 5.0}]) is None


def test_a_disk_that_is_full_ends_the_log_with_a_sentence(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    log = MetricsLog(tmp_path, 0)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match=r"jsonl .*: No space"):
        log.write({"step": 1, "epoch": 1})
    monkeypatch.undo()
    log.close()
    # The old content stands until the new file is complete.
    assert read_metrics(tmp_path) == []


def test_means_are_over_the_steps_and_survive_a_restart():
    meter = Meter()
    meter.add({"loss": 1.0, "top1": 0.5})
    meter = Meter(json.loads(json.dumps(meter.sums)))
    meter.add({"loss": 2.0, "top1": 1.0})
    assert meter.means() == pytest.approx({"train/loss": 1.5, "train/top1": 0.75})
    meter.add({"loss": 4.0, "top1": 0.0})
    assert meter.means() == {"train/loss": 4.0, "train/top1": 0.0}
