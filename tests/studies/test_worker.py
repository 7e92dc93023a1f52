import dataclasses
import subprocess
import sys

from senet_jax.studies.worker import Worker
from senet_jax.training.loop import train
from senet_jax.training.presets import preset
from senet_jax.training.records import goodput
from senet_jax.training.records.metrics import read_metrics
from senet_jax.training.run import Run

MEASURED = ("train/", "val/")


def numbers(config):
    return [
        {name: value for name, value in line.items() if name.startswith(MEASURED)}
        for line in read_metrics(config.run_dir)
    ]


def test_a_run_in_a_worker_equals_the_run_by_itself(tmp_path, monkeypatch, capsys):
    small = preset("demo")
    small = dataclasses.replace(
        small,
        epochs=1,
        model=dataclasses.replace(small.model, name="cifar_resnet8", blocks=(1,), widths=(16,)),
        data=dataclasses.replace(small.data, fraction=0.1),
    )
    set_up = []
    begin = Run.__init__
    monkeypatch.setattr(
        Run, "__init__", lambda run, *args, **more: set_up.append(run) or begin(run, *args, **more)
    )
    worker = Worker()
    seeds = [
        dataclasses.replace(small, seed=seed, run_dir=tmp_path / f"seed{seed}") for seed in (0, 1)
    ]
    assert [worker.train(config) for config in seeds] == [0, 0]
    assert len(set_up) == 1
    assert numbers(seeds[0]) != numbers(seeds[1])

    alone = dataclasses.replace(seeds[1], run_dir=tmp_path / "alone")
    train(alone)
    assert numbers(alone) == numbers(seeds[1])

    refused = dataclasses.replace(small, epochs=0, run_dir=tmp_path / "refused")
    assert worker.train(refused) == 2
    assert "error: epochs must be at least 1" in capsys.readouterr().err


def test_the_start_of_a_process_is_accounted_for_once(tmp_path, monkeypatch):
    ages = []
    monkeypatch.setattr(
        "senet_jax.studies.worker.train_and_report",
        lambda config, age_s, run: ages.append(age_s) or 0,
    )
    worker = Worker()
    config = dataclasses.replace(preset("demo"), run_dir=tmp_path)
    assert [worker.train(config), worker.train(config)] == [0, 0]
    assert 0 < ages[0] <= goodput.process_age_s()
    assert ages[1] == 0


CRASH = """
import os, sys
from senet_jax.studies.worker import printing_to
try:
    with printing_to(sys.argv[1]):
        os.system("echo from another process")
        print("from this one")
        raise ArithmeticError("told")
except ArithmeticError:
    print("afterwards")
"""


def test_prints_of_a_run_alone_go_to_its_log(tmp_path):
    log = tmp_path / "a" / "log"
    done = subprocess.run([sys.executable, "-c", CRASH, log], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("afterwards\n", "")
    assert log.read_text().startswith("from another process\nfrom this one\nTraceback")
    assert log.read_text().endswith("ArithmeticError: told\n")
