"""A second task, defined in ``toy.py``, is trained, resumed, evaluated, studied and reported."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn
from toy import Depth, Scenes

from senet_jax import cli, tasks
from senet_jax.config import CheckpointConfig, MeshConfig, OptimizerConfig, TrainConfig
from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.errors import UsageError
from senet_jax.inference.trained import restore_run
from senet_jax.planning.dry_run import compile_step, set_up
from senet_jax.studies.run import train_and_report
from senet_jax.studies.worker import Worker
from senet_jax.training import loop
from senet_jax.training.records.metrics import read_metrics
from senet_jax.training.run import Run
from tests.evaluated_run import evaluate_run

ROOT = Path(__file__).parents[2]
STOP = (os.getpid(), signal.SIGTERM)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A folder of packages, one of which brings the task along."""
    folder = tmp_path / "packages"
    about = folder / "toy-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[senet_jax.tasks]\ndepth = toy:Depth\n")
    (folder / "toy.py").symlink_to(Path(__file__).with_name("toy.py"))
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def depth(plugin, tmp_path):
    """Four epochs in 32 steps, the first half on smaller images."""
    return TrainConfig(
        run_dir=tmp_path / "run",
        task="depth",
        epochs=4,
        data=DataConfig(name="scenes", batch_size=8, eval_batch_size=10),
        optimizer=OptimizerConfig(learning_rate=0.3, weight_decay=0.0),
        checkpoint=CheckpointConfig(every_steps=5),
        mesh=MeshConfig(data=1),
    )


def validations(config):
    return [line["val/median"] for line in read_metrics(config.run_dir) if "val/median" in line]


def states_equal(left, right):
    states = [restore_run(config.run_dir)[2] for config in (left, right)]
    return jax.tree.all(jax.tree.map(np.array_equal, *states))


def test_it_learns_and_a_killed_run_ends_with_the_same_bits(depth, tmp_path):
    last = loop.train(depth)
    assert last["val/count"] == 27
    assert last["val/median"] == min(validations(depth)) < 0.1 < validations(depth)[0]
    assert {"train/loss", "train/grad_norm"} <= last.keys()

    killed = dataclasses.replace(depth, run_dir=tmp_path / "killed")
    for at in (9, 18):
        with pytest.raises(loop.Preempted):
            loop.train(killed, on_step=lambda step, at=at: step == at and os.kill(*STOP))
    assert loop.train(killed)["val/median"] == last["val/median"]
    assert validations(killed) == validations(depth)
    assert states_equal(killed, depth)


def test_the_median_is_that_of_all_pixels_on_any_mesh_and_hosts(depth, plugin):
    loop.train(dataclasses.replace(depth, epochs=1))
    run, step, variables = restore_run(depth.run_dir, with_data=True)
    scenes = [Scenes(64, 27).scene(index, None) for index in range(27)]
    images = np.stack([scene["image"] for scene in scenes]).astype(np.float32)
    depths = np.stack([scene["depth"] for scene in scenes])
    outputs = run.model.apply(variables, (images / 255 - 0.5) / np.float32(0.3), train=False)
    median = np.median(np.abs(outputs - depths)[depths >= 0])
    assert validations(depth) == [pytest.approx(median, rel=1e-5)]

    for devices in (1, 8):
        on = Run(dataclasses.replace(depth, mesh=MeshConfig(devices)))
        found = on.evaluate(jax.device_get(variables))
        assert found == {"val/median": pytest.approx(median, rel=1e-5), "val/count": 27}
    assert evaluate_run(depth.run_dir) == (step, found)


def test_the_normalizer_is_that_of_the_whole_batch(depth):
    def gradient(parts):
        run = Run(dataclasses.replace(depth, accumulate=parts))
        _, metrics = run.train_step(run.fresh_state(), run.batches[0][0])
        return [float(metrics[name]) for name in ("loss", "grad_norm")]

    known = [np.sum(Scenes(0, 8).scene(index, None)["depth"] >= 0) for index in range(8)]
    assert len(set(known)) > 1
    assert gradient(4) == pytest.approx(gradient(1), rel=1e-5)


@pytest.mark.slow
def test_two_processes_train_and_measure_as_one_with_two_devices(depth, plugin, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = (
        f"train --task depth --data.name scenes --data.batch-size 8 --data.eval-batch-size 10 "
        f"--epochs 1 --optimizer.learning-rate 0.3 --optimizer.weight-decay 0 "
        f"--run-dir {tmp_path / 'two'} --hosts.coordinator 127.0.0.1:{port} --hosts.count 2"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{plugin}:{ROOT}",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    code = "import sys; from senet_jax.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *flags.split(), "--hosts.index"]
    processes = [subprocess.Popen([*command, str(index)], env=environment) for index in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]

    one = dataclasses.replace(depth, epochs=1, mesh=MeshConfig(data=2))
    loop.train(one)
    two = dataclasses.replace(one, run_dir=tmp_path / "two")
    assert validations(two) == pytest.approx(validations(one), rel=1e-6)


@pytest.mark.slow
def test_it_is_studied_over_two_seeds_and_reported(depth, tmp_path, capsys):
    worker = Worker()
    for cell, rate in (("slow", 1e-4), ("fast", 0.3)):
        optimizer = dataclasses.replace(depth.optimizer, learning_rate=rate)
        for seed in (0, 1):
            folder = tmp_path / "study" / cell / f"seed{seed}"
            config = dataclasses.replace(depth, seed=seed, run_dir=folder, optimizer=optimizer)
            assert worker.train(dataclasses.replace(config, epochs=2)) == 0
    capsys.readouterr()
    assert cli.main(["report", str(tmp_path / "study"), "--baseline", "slow"]) == 0
    table = capsys.readouterr().out
    assert "| median error (m) |" in table
    assert "median error of the final validation" in table
    best = [
        [
            validations(dataclasses.replace(depth, run_dir=tmp_path / "study" / cell / seed))[-1]
            for seed in ("seed0", "seed1")
        ]
        for cell in ("slow", "fast")
    ]
    for cell, values in zip(("slow", "fast"), best, strict=True):
        assert f"| {cell} | 2 | {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} |" in table
    assert "better" in table or "no significant difference" in table


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "dept"}, "unknown task 'dept': did you mean depth"),
        (
            {"label_smoothing": 0.1},
            r"--label-smoothing .* is no field of",
        ),
        (
            {"data": DataConfig(augment=AugmentConfig(mixup=0.2))},
            r"--data.augment.mixup .* is no field",
        ),
        ({"checkpoint": CheckpointConfig(best_metric="val/top1")}, "did you mean|choose from"),
    ],
)
def test_fields_of_another_task_are_refused_before_any_write(depth, changes, message):
    with pytest.raises(UsageError, match=message):
        loop.train(dataclasses.replace(depth, **changes))
    assert not depth.run_dir.exists()


def test_only_commands_for_classification_refuse_the_task(depth, capsys):
    last = loop.train(dataclasses.replace(depth, epochs=1))
    run = str(depth.run_dir)
    assert cli.main(["evaluate", run]) == 0
    assert (
        f"median error {last['val/median']:.4f} m (27 held-out images)" in capsys.readouterr().out
    )
    assert cli.main(["evaluate", run, "--views", "ten-crop"]) == 2
    assert "leave out --views" in capsys.readouterr().err
    average = ["average", run, "--out", str(depth.run_dir / "average.npz")]
    for command in (["predict", "a.png", "--run", run], ["convert", run], average):
        assert cli.main(command) == 2
        assert "is a run of the task depth, and the command takes" in capsys.readouterr().err


def test_a_package_that_is_damaged_or_gone_is_told_in_a_sentence(depth, plugin, capsys):
    loop.train(dataclasses.replace(depth, epochs=1))
    about = plugin / "toy-1.0.dist-info" / "entry_points.txt"
    for target, message in (
        ("toy:errors", "is no subclass of Task"),
        ("toy:Absent", "cannot be imported"),
        ("broken:Depth", "cannot be imported"),
    ):
        (plugin / "broken.py").write_text("def")
        about.write_text(f"[senet_jax.tasks]\ndepth = {target}\n")
        assert cli.main(["evaluate", str(depth.run_dir)]) == 2
        assert message in capsys.readouterr().err
    about.unlink()
    assert cli.main(["evaluate", str(depth.run_dir)]) == 2
    assert "if another package has it, install that package." in capsys.readouterr().err


class TwoInputs(nn.Module):
    """A network that is given the mean depth of an image, in training its own, else zero."""

    @nn.compact
    def __call__(self, images, mean, train):
        x = nn.Conv(1, (1, 1), name="head")(images)[..., 0]
        return x + nn.Dense(1)(mean[:, None])[..., None]


class Sized(Depth):
    """As ``Depth``, with a second input and a key for it."""

    rngs = ("dropout", "sampling")

    def build(self, dataset):
        return TwoInputs()

    def inputs(self, arrays, *, train):
        mean = arrays["depth"].mean((1, 2))
        return arrays["image"], mean if train else 0 * mean


def test_a_network_of_two_inputs_is_planned_trained_and_reported(depth, monkeypatch, capsys):
    monkeypatch.setitem(tasks.TASKS, "sized", "test_toy_task:Sized")
    config = dataclasses.replace(depth, task="sized", epochs=1)
    # The head has 4 parameters and the dense layer 2; 64 pixels of 3 products, and 1.
    assert "6 parameters, 0.00 MMACs an image of 8x8x3" in Run(config).describe()
    assert train_and_report(config) == 0
    folder = str(depth.run_dir.parent)
    assert cli.main(["report", folder]) == 0
    assert "| run | 1 |" in capsys.readouterr().out
    assert compile_step(set_up(config, None)).image_shape == (8, 8, 3)
