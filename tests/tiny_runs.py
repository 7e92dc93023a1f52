"""A run that is small enough to be repeated in every test."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from senet_jax.config import (
    CheckpointConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.data.datasets import Dataset
from senet_jax.data.sources import ArraySource
from senet_jax.models import zoo
from senet_jax.models.resnet import SE, ResNet
from senet_jax.training import loop
from senet_jax.training.run import Run

TINY = zoo.ZooEntry(
    ResNet,
    {
        "blocks": (1,),
        "widths": (4,),
        "stem": "cifar",
        "stem_width": 4,
        "bottleneck": False,
        "attention": dataclasses.replace(SE, reduction=2),
        "num_classes": 10,
    },
    input_size=8,
)
"""One SE block of four channels: compiles in a second."""


def tiny_config(run_dir) -> TrainConfig:
    """Two epochs of digits in 28 steps."""
    return TrainConfig(
        run_dir=Path(run_dir),
        epochs=2,
        model=ModelConfig(name="tiny", dropout=0.1),
        data=DataConfig(
            name="digits", batch_size=96, eval_batch_size=200, augment=AugmentConfig(pad=1)
        ),
        optimizer=OptimizerConfig(learning_rate=0.05, warmup_epochs=0.5),
        checkpoint=CheckpointConfig(every_steps=5),
        ema_decay=0.9,
        log_every_steps=4,
        mesh=MeshConfig(data=1),
    )


def random_digits(name, directory, size) -> Dataset:
    """As many images of the sizes of the digits, drawn: scikit-learn takes a second to import."""
    rng = np.random.default_rng(0)
    train, val = (
        ArraySource(
            rng.integers(0, 256, (count, 8, 8, 1), np.uint8), rng.integers(0, 10, count, np.int32)
        )
        for count in (1437, 360)
    )
    return Dataset(name, train, val, [str(digit) for digit in range(10)], (0.5,), (0.3,))


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> TrainConfig:
    """Two epochs of digits in 28 steps."""
    monkeypatch.setitem(zoo.ZOO, "tiny", TINY)
    return tiny_config(tmp_path / "run")


_RUNS: dict[tuple, Run] = {}


def shared_run(config: TrainConfig) -> Run:
    """A run whose programs are those of every run of this process that computes the same.

    Set up anew, each would be traced again.
    """
    data = dataclasses.replace(config.data, workers=0)
    same = {"run_dir": None, "seed": 0, "checkpoint": None, "log_every_steps": None, "data": data}
    key = (repr(dataclasses.replace(config, **same)), zoo.find(config.model.name))
    if key not in _RUNS:
        _RUNS[key] = Run(config)
    run = _RUNS[key].with_seed(config.seed, config.run_dir)
    run.config = config
    run.batches = dataclasses.replace(run.batches, workers=config.data.workers)
    return run


@pytest.fixture
def run_of():
    """Sets up the run of a config, with the programs of one before it that computes the same."""
    return shared_run


@pytest.fixture
def shared_programs(monkeypatch):
    """Lets the runs of a test have the programs of those before it."""
    monkeypatch.setattr(loop, "Run", shared_run)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> TrainConfig:
    """The config of a ``tiny`` run that has ended; its folder is only read."""
    config = tiny_config(tmp_path_factory.mktemp("finished") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.ZOO, "tiny", TINY)
        patch.setattr(loop, "Run", shared_run)
        loop.train(config)
    return config
