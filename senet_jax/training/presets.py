"""Experiments by name, for the command line."""

import dataclasses
from pathlib import Path

from senet_jax.config import ModelConfig, OptimizerConfig, TrainConfig
from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.errors import choose

_CIFAR = TrainConfig(
    run_dir=Path("runs/cifar10"),
    epochs=164,
    data=DataConfig(augment=AugmentConfig(pad=4, flip=True)),
    optimizer=OptimizerConfig(schedule="step", milestones=(82, 123), nesterov=False),
)

PRESETS: dict[str, TrainConfig] = {
    "demo": TrainConfig(
        run_dir=Path("runs/demo"),
        epochs=30,
        model=ModelConfig(name="cifar_seresnet8"),
        data=DataConfig(name="digits", batch_size=64, augment=AugmentConfig(pad=1)),
        optimizer=OptimizerConfig(warmup_epochs=0.5),
    ),
    "cifar10": _CIFAR,
    "cifar100": dataclasses.replace(
        _CIFAR,
        run_dir=Path("runs/cifar100"),
        data=dataclasses.replace(_CIFAR.data, name="cifar100"),
    ),
}
"""``demo`` is what `make demo` runs; ``cifar10`` and ``cifar100`` follow ResNet (arXiv 1512.03385),
section 4.2: 64,000 steps of 128 images, which is 164 epochs, the rate divided by 10 at 82 and
123."""


def preset(name: str) -> TrainConfig:
    """Returns a preset.

    Raises:
        UsageError: An unknown name.
    """
    return PRESETS[choose("preset", name, PRESETS)]
