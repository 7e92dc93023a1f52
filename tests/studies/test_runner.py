"""Real processes that train networks that are as small as can be, one after the other or beside."""

import dataclasses
import os

import pytest

from senet_jax.errors import UsageError
from senet_jax.studies import runner
from senet_jax.studies.grid import jobs, with_model
from senet_jax.studies.live import LiveTable, tell_failures
from senet_jax.studies.places import places
from senet_jax.studies.runner import log_of, run_jobs
from senet_jax.training.logging import read_metrics
from senet_jax.training.presets import preset

DEMO = dataclasses.replace(preset("demo"), epochs=1)
SMALL = with_model(DEMO, name="cifar_resnet8")
CPU = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}


def states(progress):
    return [(one.job.name, one.state) for one in progress]


def test_what_fails_is_told_and_stops_nothing_and_what_is_done_is_not_run_again(tmp_path, capsys):
    absent = dataclasses.replace(SMALL.data, name="cifar10", dir=tmp_path / "nowhere")
    broken = dataclasses.replace(SMALL, data=absent)
    grid = jobs({"broken": broken, "small": SMALL}, tmp_path / "study", [0])
    with LiveTable() as table:
        progress = run_jobs(grid, [CPU, CPU], tmp_path / "cache", table.show)
    assert states(progress) == [("broken/seed0", "failed"), ("small/seed0", "done")]
    assert progress[0].reason.startswith("error: cifar10 is not in")
    assert tell_failures(progress) == 1
    captured = capsys.readouterr()
    assert "broken/seed0 failed: error: cifar10 is not in" in captured.err
    assert "small/seed0 | done | 1 of 1 | " in captured.out
    last = read_metrics(grid[1].config.run_dir)[-1]
    assert last["val/count"] == 360
    assert any((tmp_path / "cache").iterdir())

    before = log_of(grid[1]).stat().st_mtime_ns
    again = run_jobs(grid[1:], [CPU], tmp_path / "cache", lambda progress: None)
    assert states(again) == [("small/seed0", "done")]
    assert log_of(grid[1]).stat().st_mtime_ns == before


def test_asked_to_stop_it_stops_its_runs_and_they_go_on(tmp_path):
    long = dataclasses.replace(SMALL, epochs=400)
    grid = jobs({"long": long}, tmp_path / "study", [0])
    run_dir = grid[0].config.run_dir

    def interrupt(progress):
        if len(read_metrics(run_dir)) >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(grid, [CPU], tmp_path / "cache", interrupt)
    assert not grid[0].done
    text = log_of(grid[0]).read_text()
    assert "stopped by a signal after step" in text
    assert len(list((run_dir / "checkpoints").iterdir())) >= 1


@pytest.mark.parametrize(
    ("answer", "at_once", "expected"),
    [
        ('["cpu", 8]', None, [{}]),
        ('["cpu", 1]', 2, [{}, {}]),
        ('["tpu", 4]', None, [{}]),
        ('["gpu", 2]', None, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
        (
            '["gpu", 1]',
            2,
            [{"CUDA_VISIBLE_DEVICES": "0", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45"}] * 2,
        ),
    ],
)
def test_places_are_devices(monkeypatch, answer, at_once, expected):
    class Done:
        stdout = answer.encode()

    monkeypatch.setattr("subprocess.run", lambda *args, **options: Done())
    assert list(places(at_once)) == expected


def test_less_than_one_at_once_is_refused():
    with pytest.raises(UsageError, match="at_once must be at least 1"):
        places(0)


def test_a_process_is_given_what_its_place_says(tmp_path, monkeypatch):
    given = []

    class Started:
        def __init__(self, command, env, **options):
            given.append(env)

    monkeypatch.setattr(runner.subprocess, "Popen", Started)
    runner._Place({"CUDA_VISIBLE_DEVICES": "3"}, tmp_path / "cache")._launch(tmp_path / "log")
    assert given[0]["CUDA_VISIBLE_DEVICES"] == "3"
    assert given[0]["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "cache")
    assert given[0].keys() >= os.environ.keys()
