"""A run that is small enough to be repeated in every test."""

import dataclasses
from pathlib import Path

import pytest

from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.models import zoo
from senet_jax.models.resnet import SE, ResNet
from senet_jax.training.config import (
    CheckpointConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)


def tiny_network(**fields):
    """One SE block of four channels: compiles in a second."""
    defaults = {
        "blocks": (1,),
        "widths": (4,),
        "stem": "cifar",
        "stem_width": 4,
        "bottleneck": False,
        "attention": dataclasses.replace(SE, reduction=2),
        "num_classes": 10,
    }
    return ResNet(**{**defaults, **fields})


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> TrainConfig:
    """Two epochs of digits in 28 steps."""
    return tiny_config(tmp_path, monkeypatch)


def tiny_config(folder: Path, patch: pytest.MonkeyPatch) -> TrainConfig:
    """Two epochs of digits in 28 steps; the network is in the zoo as long as the patch."""
    patch.setitem(zoo.ZOO, "tiny", zoo.ZooEntry(tiny_network, 8))
    return TrainConfig(
        run_dir=Path(folder / "run"),
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
