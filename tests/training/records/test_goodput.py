import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from senet_jax.analysis.run_report import report_run
from senet_jax.errors import UsageError
from senet_jax.training.loop import Preempted, train
from senet_jax.training.machine.hardware import processor
from senet_jax.training.records import goodput
from senet_jax.training.records.goodput import (
    KINDS,
    Account,
    Session,
    SessionLog,
    goodput_of,
    process_age_s,
    read_sessions,
)
from senet_jax.training.records.metrics import read_metrics

pytestmark = pytest.mark.usefixtures("shared_programs")


class Killed(BaseException):
    """Ends a run where it stands, as SIGKILL would: nothing is caught, nothing finished."""


@pytest.fixture
def clock_time(monkeypatch):
    """A clock that goes on only when it is told to."""
    now = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: 5000.0 + now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def session(start, step, began=0.0, hardware=None, **seconds):
    return Session(began, start, step, {**dict.fromkeys(KINDS, 0.0), **seconds}, hardware)


def test_every_second_is_of_one_kind(clock_time):
    account = Account(age_s=7.0)
    clock_time(1.0)
    account.turn_to("steps")
    clock_time(2.0)
    with account.during("checkpoint"):
        clock_time(4.0)
        with pytest.raises(Killed), account.during("evaluation"):
            raise Killed(clock_time(8.0))
    clock_time(16.0)
    expected = {"startup": 8.0, "steps": 18.0, "checkpoint": 4.0, "evaluation": 8.0}
    assert account.spent() == {**dict.fromkeys(KINDS, 0.0), **expected}
    assert account.lap() == {f"time/spent/{kind}_s": spent for kind, spent in expected.items()}
    clock_time(32.0)
    assert account.lap() == {"time/spent/steps_s": 32.0}
    assert account.began == 5993.0


def test_the_age_of_a_process_is_that_since_its_start():
    code = (
        "import time; time.sleep(0.3)\n"
        "from senet_jax.training.records.goodput import process_age_s; print(process_age_s())"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.29 < float(done.stdout) < time.perf_counter() - began + 0.02
    assert process_age_s() > float(done.stdout)


def test_only_kept_steps_are_good():
    # Killed at 9 with a checkpoint at 5, at 8 with none since, and at 12 with one that is damaged.
    sessions = [
        session(0, 9, 0.0, startup=1.0, steps=9.0),
        session(5, 8, 20.0, steps=6.0),
        session(5, 12, 26.0, steps=7.0, checkpoint=3.0),
        session(3, 15, 40.0, steps=12.0, other=2.0),
    ]
    run = goodput_of(sessions)
    assert run.starts == 4
    assert run.redone_steps == (9 - 3) + (8 - 5) + (12 - 5)
    assert run.seconds["redone"] == pytest.approx(6.0 + 6.0 + 7.0)
    assert run.seconds["steps"] == pytest.approx(3.0 + 12.0)
    assert run.wall_s == pytest.approx(40.0)
    assert run.share == pytest.approx(15.0 / 40.0)
    assert run.between_s == pytest.approx(10.0 + 0.0 + 4.0)
    assert goodput_of(sessions[:1]).redone_steps == 0
    assert goodput_of([]).share == 0.0


def test_a_session_is_written_at_most_once_a_second(clock_time, tmp_path, monkeypatch):
    log = SessionLog(tmp_path, Account(), 3, "2 x cpu")
    assert [(s.start, s.step) for s in read_sessions(tmp_path)] == [(3, 3)]
    clock_time(0.5)
    log.beat(4)
    assert read_sessions(tmp_path)[-1].step == 3
    clock_time(0.5)
    log.beat(5)
    assert read_sessions(tmp_path)[-1] == session(3, 5, 6000.0, "2 x cpu", startup=1.0)
    write = goodput.write_text
    monkeypatch.setattr(goodput, "write_text", lambda *args: (clock_time(0.25), write(*args)))
    log.write(6)
    clock_time(249.0)
    log.beat(7)
    assert read_sessions(tmp_path)[-1].step == 6
    clock_time(1.0)
    log.beat(8)
    assert read_sessions(tmp_path)[-1].step == 8


def test_a_torn_last_line_of_the_starts_is_left_out(tmp_path):
    SessionLog(tmp_path, Account(), 3, "2 x cpu")
    with (tmp_path / "sessions.jsonl").open("a") as file:
        file.write('{"began": 1.0, "sta')
    (first,) = read_sessions(tmp_path)
    SessionLog(tmp_path, Account(), 5, "2 x cpu")
    assert [s.start for s in read_sessions(tmp_path)] == [3, 5]
    assert read_sessions(tmp_path)[0] == first


LINE = {"began": 1.0, "start": 0, "step": 2, "seconds": {"steps": 1.0}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seconds": None}, "'seconds' are not those of"),
        ({"seconds": {"sleep": 1.0}}, "'seconds' are not those of"),
        ({"seconds": {"steps": "1"}}, "'steps' is no number"),
        ({"seconds": {"steps": float("nan")}}, "'steps' is out of range"),
        ({"step": 2.5}, "'step' is no whole number"),
        ({"start": True}, "'start' is no whole number"),
        ({"start": 3}, "'step' is before 'start'"),
        ({"step": 10**400}, "'step' is out of range"),
        ({"hardware": 3}, "'hardware' is no text"),
        ({"more": 3}, "'more' is unknown"),
    ],
)
def test_a_start_that_no_run_writes_is_refused(tmp_path, changed, message):
    lines = [json.dumps(line) + "\n" for line in (LINE, {**LINE, **changed})]
    (tmp_path / "sessions.jsonl").write_text("".join(lines))
    with pytest.raises(UsageError, match=f"sessions.jsonl is damaged in line 2: {message}"):
        read_sessions(tmp_path)


@pytest.mark.parametrize("missing", ["began", "start", "step", "seconds"])
def test_a_start_without_a_field_is_refused(tmp_path, missing):
    line = {name: value for name, value in LINE.items() if name != missing}
    (tmp_path / "sessions.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match=f"in line 1: it lacks '{missing}'; .* take it away"):
        read_sessions(tmp_path)


def test_a_start_without_all_kinds_of_time_is_read(tmp_path):
    (tmp_path / "sessions.jsonl").write_text(json.dumps(LINE) + "\n")
    assert goodput_of(read_sessions(tmp_path)).share == 1.0


def test_the_account_of_a_killed_run_is_whole(tiny, monkeypatch):
    monkeypatch.setattr(goodput, "_AT_MOST_EVERY_S", 0.0)
    monkeypatch.setattr(goodput, "_SHARE", 1e9)
    ticks = []

    def counting(step):
        ticks.append(step)
        if len(ticks) == 9:  # After the dispatch of step 9, when step 8 is known to be done.
            raise Killed
        if len(ticks) == 9 + 6:
            os.kill(os.getpid(), signal.SIGTERM)

    began = time.perf_counter()
    with pytest.raises(Killed):
        train(tiny, on_step=counting)
    took = time.perf_counter() - began
    (killed,) = read_sessions(tiny.run_dir)
    assert (killed.start, killed.step) == (0, 8)
    assert killed.hardware == f"{len(os.sched_getaffinity(0))} x {processor() or 'cpu'}"
    assert 0 < killed.wall_s <= took
    # From the checkpoint of step 5; its sixth step is the last, and is saved.
    with pytest.raises(Preempted, match="step 11"):
        train(tiny, on_step=counting)
    began = time.perf_counter()
    last = train(tiny, age_s=100.0)
    took = 100.0 + time.perf_counter() - began
    sessions = read_sessions(tiny.run_dir)
    assert sessions[0] == killed
    assert [(s.start, s.step) for s in sessions] == [(0, 8), (5, 11), (11, 28)]
    assert 0.9 * took < sessions[-1].wall_s <= took
    assert sessions[-1].seconds["startup"] > 100.0
    assert all(sessions[-1].seconds[kind] > 0 for kind in KINDS)
    assert goodput_of(sessions).redone_steps == 3
    assert last["time/goodput"] == pytest.approx(goodput_of(sessions).share, rel=0.1)
    assert ", 3 steps redone; goodput " in report_run(tiny.run_dir)
    # A run that is done is told about again, and nothing is added.
    assert train(tiny) == last
    assert read_sessions(tiny.run_dir) == sessions


def test_the_lines_account_for_the_time_between_them(tiny):
    train(dataclasses.replace(tiny, log_every_steps=None))
    lines, (only,) = read_metrics(tiny.run_dir), read_sessions(tiny.run_dir)
    told = [
        {key: spent for key, spent in line.items() if key.startswith("time/spent/")}
        for line in lines
    ]
    # The last checkpoint comes after the last line.
    behind = only.wall_s - sum(sum(spent.values()) for spent in told)
    assert 0 < behind < only.seconds["checkpoint"] + only.seconds["other"]
    for line, spent in zip(lines, told, strict=True):
        assert 0 < spent["time/spent/evaluation_s"] <= line["time/validation_s"]
    assert ["time/spent/startup_s" in spent for spent in told] == [True, False]
