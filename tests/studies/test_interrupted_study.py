"""A study that is killed, with all its processes or alone, and started again."""

import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.ablate import gate
from senet_jax.command_line import study
from senet_jax.training.records.lock import folder_lock
from senet_jax.training.records.metrics import read_metrics

STUDY = (
    *("-m", "experiments.ablate", "gate", "--model", "cifar_seresnet8"),
    *("--fraction", "0.2", "--seeds", "2"),
)


def start(out, epochs=3):
    command = [sys.executable, *STUDY, "--epochs", str(epochs), "--out", str(out)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell lets what it starts in the background ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def table(text):
    """The rows of the printed table without the speeds, which differ."""
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    speed = lines[0].index("images/s")
    return [line[:speed] + line[speed + 1 :] for line in lines]


def workers_of(process):
    listed = subprocess.run(
        ["pgrep", "--parent", str(process.pid)], capture_output=True, text=True
    ).stdout
    return [int(line) for line in listed.split()]


@pytest.mark.slow
def test_a_study_that_is_often_killed_ends_with_the_same_table(tmp_path):
    undisturbed = start(tmp_path / "undisturbed")
    expected = table(undisturbed.communicate()[0])
    assert undisturbed.returncode == 0
    assert len(expected) == 2 + 4

    disturbed = tmp_path / "disturbed"
    for cell, seed, with_workers in (("plain", 0, True), ("tanh", 0, False), ("sigmoid", 1, True)):
        process = start(disturbed)
        metrics = disturbed / cell / f"seed{seed}"
        while not read_metrics(metrics) and process.poll() is None:
            time.sleep(0.05)
        workers = workers_of(process)
        process.kill()
        for worker in workers if with_workers else []:
            os.kill(worker, signal.SIGKILL)
        process.communicate()
    last = start(disturbed)
    assert table(last.communicate()[0]) == expected
    assert last.returncode == 0


def answer(out, monkeypatch, capsys):
    """Exit code and errors of the study in this process."""
    monkeypatch.setattr(sys, "argv", ["x", *STUDY[3:], "--out", str(out)])
    code = study.main("ablate_gate", "A study.", gate, baseline="plain")
    return code, capsys.readouterr().err


def test_a_study_in_use_is_refused(tmp_path, monkeypatch, capsys):
    with folder_lock(tmp_path, ""):
        code, said = answer(tmp_path, monkeypatch, capsys)
    assert code == 2
    assert f"is in use by process {os.getpid()}" in said
    assert "--out" in said


def test_an_interrupted_study_says_how_it_goes_on(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "run_jobs", interrupt)
    assert answer(tmp_path, monkeypatch, capsys) == (
        75,
        "stopped; the runs have saved their state: the same command goes on.\n",
    )
