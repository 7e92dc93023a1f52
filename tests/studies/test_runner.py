"""Real processes that train networks that are as small as can be, one after the other or beside."""

import dataclasses
import os

import pytest

from senet_jax.errors import UsageError
from senet_jax.studies import runner
from senet_jax.studies.grid import jobs, with_model
from senet_jax.studies.live import LiveTable, tell_failures
from senet_jax.studies.runner import log_of, run_jobs
from senet_jax.studies.slots import MEMORY_OF_A_RUN, Slot, slots
from senet_jax.training.presets import preset
from senet_jax.training.records.metrics import read_metrics

DEMO = dataclasses.replace(preset("demo"), epochs=1)
SMALL = with_model(DEMO, name="cifar_resnet8", blocks=(1,), widths=(16,))
CPU = Slot({"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"})


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Looks at the runs more often than a user needs."""
    monkeypatch.setattr(runner, "POLL_S", 0.1)


def states(progress):
    return [(one.job.name, one.state) for one in progress]


@pytest.mark.slow
def test_failures_stop_nothing_and_finished_runs_stay(tmp_path, capsys):
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


def test_a_run_whose_process_is_killed_fails_for_that_reason(tmp_path):
    (job,) = jobs({"a": SMALL}, tmp_path, [0])
    log_of(job).parent.mkdir(parents=True)
    log_of(job).write_text("epoch 1.00 of 2\n")
    for code, reason in (
        (-9, "its process was killed by SIGKILL, as Linux does where memory is short"),
        (-11, "its process was killed by SIGSEGV"),
        (1, "epoch 1.00 of 2"),
    ):
        one = runner.Progress(job, "running")
        one.settle(code)
        assert (one.state, one.reason) == ("failed", reason)


def test_a_log_that_cannot_be_read_gives_no_reason(tmp_path):
    (job,) = jobs({"a": SMALL}, tmp_path, [0])
    log_of(job).parent.mkdir(parents=True)
    os.mkfifo(log_of(job))
    one = runner.Progress(job, "running")
    one.settle(2)
    assert one.reason == "exit code 2"


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (job,) = jobs({"a": SMALL}, tmp_path, [0])
    log_of(job).mkdir(parents=True)
    with pytest.raises(UsageError, match=r"seed0\.log cannot be written: Is a directory"):
        runner._SlotProcess(Slot(), tmp_path)._launch(log_of(job))


@pytest.mark.slow
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
        ('["cpu", 8]', None, [Slot(cores=(0,)), Slot(cores=(1,)), Slot(cores=(5,))]),
        ('["cpu", 1]', 1, [Slot()]),
        ('["cpu", 1]', 2, [Slot(cores=(0, 5)), Slot(cores=(1,))]),
        ('["cpu", 1]', 4, [Slot()] * 4),
        ('["tpu", 4]', None, [Slot()]),
        ('["gpu", 2]', None, [Slot({"CUDA_VISIBLE_DEVICES": n}) for n in "01"]),
        ('["gpu", 4]', 1, [Slot({"CUDA_VISIBLE_DEVICES": "0,1,2,3"})]),
        ('["gpu", 5]', 2, [Slot({"CUDA_VISIBLE_DEVICES": n}) for n in ("0,1", "2,3")]),
        (
            '["gpu", 1]',
            2,
            [Slot({"CUDA_VISIBLE_DEVICES": "0", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45"})] * 2,
        ),
    ],
)
def test_places_are_devices_or_cores(monkeypatch, answer, at_once, expected):
    class Done:
        stdout = answer.encode()

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("subprocess.run", lambda *args, **options: Done())
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 5})
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 2**40}.get)
    assert list(slots(at_once)) == expected


def test_places_are_among_the_gpus_that_the_study_was_given(monkeypatch):
    class Done:
        stdout = b'["gpu", 2]'

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr("subprocess.run", lambda *args, **options: Done())
    assert [slot.variables["CUDA_VISIBLE_DEVICES"] for slot in slots(None)] == ["4", "6"]


def test_no_more_runs_at_once_than_the_memory_takes(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)))
    pages = {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 5 * MEMORY_OF_A_RUN // 2}
    monkeypatch.setattr("os.sysconf", pages.get)
    monkeypatch.setattr("subprocess.run", lambda *args, **options: Answer())
    assert [len(slot.cores) for slot in slots(None)] == [32, 32]


class Answer:
    stdout = b'["cpu", 1]'


def test_less_than_one_at_once_is_refused():
    with pytest.raises(UsageError, match="at_once must be at least 1"):
        slots(0)


def test_a_process_is_given_what_its_place_says(tmp_path, monkeypatch):
    given, commands = [], []

    class Started:
        def __init__(self, command, env, **options):
            given.append(env)
            commands.append(command)

    monkeypatch.setattr(runner.subprocess, "Popen", Started)
    slot = Slot({"CUDA_VISIBLE_DEVICES": "3"}, cores=(4, 6))
    runner._SlotProcess(slot, tmp_path / "cache")._launch(tmp_path / "log")
    assert commands[0][-2:] == ["4", "6"]
    assert given[0]["CUDA_VISIBLE_DEVICES"] == "3"
    assert given[0]["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "cache")
    assert given[0].keys() >= os.environ.keys()


def test_a_process_that_was_killed_while_it_waited_is_replaced(tmp_path, monkeypatch):
    class Killed:
        def poll(self):
            return -9

    class Orders:
        def __init__(self):
            self.sent = []

        def send(self, order):
            self.sent.append(order["log"])

    (job,) = jobs({"a": SMALL}, tmp_path, [0])
    process, orders = runner._SlotProcess(Slot(), tmp_path / "cache"), Orders()
    process._process = Killed()
    monkeypatch.setattr(process, "_launch", lambda log: (None, orders))
    process.start(runner.Progress(job, "waiting"))
    assert orders.sent == [str(log_of(job))]
