"""Real processes on this machine, each with devices of its own."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.records.metrics import read_metrics
from senet_jax.training.records.run_dir import read_config
from senet_jax.training.run import Run

CHILD = """
import functools, os, signal, sys
from senet_jax import cli
from senet_jax.data import datasets
from senet_jax.models import zoo
from senet_jax.training import loop
from tests.tiny_runs import TINY, random_digits, shared_run

zoo.ZOO["tiny"] = TINY
datasets.DATASETS["digits"] = random_digits
loop.Run = shared_run
number, at = int(sys.argv[1]), int(sys.argv[2])
steps = iter(range(1, 10**6))

def count(step):
    if next(steps) == at:
        os.kill(os.getpid(), number)

loop.train = functools.partial(loop.train, on_step=count)
codes = [cli.main([*sys.argv[4:], "--run-dir", folder]) for folder in sys.argv[3].split(":")]
sys.exit(max(codes))
"""
FLAGS = (
    "train --epochs 2 --model.name tiny --data.name digits --data.batch-size 96 "
    "--data.augment.pad 1 --checkpoint.every-steps 7 --ema-decay 0.9 --log-every-steps 4"
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(folders, hosts, signal=0, at=0, flags=""):
    """Starts one process, which sends itself a signal after so many steps.

    It trains the same run in each of the folders. ``hosts`` is (port, index, count), or None.
    """
    where, devices = [], 2
    if hosts:
        port, index, count = hosts
        where = f"--hosts.coordinator 127.0.0.1:{port} --hosts.count {count} --hosts.index {index}"
        where, devices = where.split(), 2 // count
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PJRT_NPROC": "2",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        # jax warns of a program that the other host is writing to the cache. Of small ones, which
        # all are written otherwise, that happens.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        # jax speaks of every program that it loads from its cache on a CPU.
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [
        *(sys.executable, "-c", CHILD, str(signal), str(at), ":".join(map(str, folders))),
        *(*FLAGS.split(), *flags.split(), *where),
    ]
    pipe = subprocess.PIPE
    root = Path(__file__).parents[3]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=pipe, stderr=pipe, text=True)


def outcomes(processes):
    """Exit code, output and errors of each, without what XLA says of its cache."""
    texts = [process.communicate(timeout=300) for process in processes]
    return [
        (process.returncode, out, err) for process, (out, err) in zip(processes, texts, strict=True)
    ]


def final(run_dir, tiny):
    checkpoints = Checkpoints(run_dir / "checkpoints")
    config = dataclasses.replace(read_config(run_dir), mesh=tiny.mesh)
    state = checkpoints.restore(checkpoints.steps()[-1], Run(config).abstract).state
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


def lines(run_dir):
    return [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in read_metrics(run_dir)
    ]


@pytest.mark.slow
def test_a_signal_stops_both_and_one_process_resumes_bit_by_bit(tmp_path, tiny):
    run_dir, whole = tmp_path / "run", tmp_path / "whole"
    port = free_port()
    # After the first epoch, whose validation both have counted together.
    both = [start([run_dir], (port, index, 2), 10 * index, 17 * index) for index in range(2)]
    first, second = outcomes(both)
    assert (first[0], second[0]) == (75, 75), first[2] + second[2]
    (step,) = set(Checkpoints(run_dir / "checkpoints").steps()) - {7, 14}
    assert 17 <= step <= 19
    assert f"stopped by a signal after step {step}; the state is saved" in first[2]
    # Only the first prints.
    assert "digits" in first[1]
    assert second[1:] == ("", "")

    ((code, out, err),) = outcomes([start([run_dir, whole], None)])
    assert code == 0, err
    assert f"resuming after step {step}" in out
    assert final(run_dir, tiny) == final(whole, tiny)
    assert lines(run_dir) == lines(whole)
    assert [line["val/count"] for line in lines(run_dir) if "val/count" in line] == [360, 360]


def test_a_host_that_is_killed_is_named_by_the_other(tmp_path):
    port = free_port()
    both = [start([tmp_path / "run"], (port, i, 2), 9 * (1 - i), 3) for i in range(2)]
    first, second = outcomes(both)
    assert first[0] == -9
    assert second[0] == 75
    name = socket.gethostname()
    gone = f"senet-jax: host 0 ({name}) is gone; the same command on all hosts resumes."
    assert second[2].splitlines()[-1] == gone


def test_a_host_without_data_stops_the_other_with_its_reason(tmp_path):
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            Image.new("RGB", (16, 16)).save(folder / "one.png")
    flags = "--data.name folder --data.image-size 8 --data.batch-size 2 --data.augment.pad 0"
    port = free_port()
    both = [
        start([tmp_path / "run"], (port, index, 2), flags=f"{flags} --data.dir {tmp_path / name}")
        for index, name in enumerate(("data", "elsewhere"))
    ]
    first, second = outcomes(both)
    assert (first[0], second[0]) == (2, 2)
    said = second[2].splitlines()[-1]
    assert str(tmp_path / "elsewhere") in said
    reason = said.removeprefix("senet-jax: error: ")
    assert f"host 1 ({socket.gethostname()}) stopped: {reason}" in first[2]
    assert not (tmp_path / "run").exists()
