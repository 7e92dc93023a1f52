"""The recipe of ResNeSt, ingredient by ingredient (arXiv 2004.08955, its ablation).

    python -m experiments.resnest_recipe                   # digits, minutes
    python -m experiments.resnest_recipe --data cifar10
    python -m experiments.resnest_recipe --data imagenet2012 --data-dir DIR

Each cell adds one thing to the cell before it. On ImageNet the baseline is a ResNet-D-50 with all
of the recipe but what follows: label smoothing, mixup, AutoAugment, split attention
(ResNeSt-50-fast 2s1x64d), strides after the 3x3 convolutions (ResNeSt-50), and crops of 256 pixels
in training and evaluation. Expected, top-1 error: label smoothing 21.69, mixup 20.85, AutoAugment
20.59, split attention 19.36, ResNeSt-50 18.87. The first row of the paper's table, 21.69, is taken
to have label smoothing, which is part of its recipe.

AutoAugment, colour jitter and crops are for photographs: where images are small Cutout stands for
AutoAugment, and the last two cells are left out. Cost: 7 (5) cells x seeds x epochs. An epoch of
all cells is 1.3e17 multiply-accumulates of training on ImageNet (of 270 epochs), 1.5e14 on CIFAR
and 7e10 on digits.
"""

import dataclasses
import sys
from typing import Any

from senet_jax.command_line.study import main
from senet_jax.config import AttentionOverrides, TrainConfig
from senet_jax.studies.grid import with_model
from senet_jax.studies.small_images import CUTOUT, RESNEST_BODIES
from senet_jax.training.presets import RESNEST


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    body = RESNEST_BODIES.get(base.data.name)
    policy: dict[str, Any] = {"policy": "autoaugment"}
    plain: dict[str, Any] = {"name": "resnet50d"}
    split: dict[str, Any] = {"name": "resnest50_fast_2s1x64d"}
    if body is not None:
        policy = {"cutout": CUTOUT[base.data.name]}
        plain = body | {"cardinality": 1, "base_width": 64}
        radix = AttentionOverrides(kind="split", radix=2)
        split = plain | {"attention": radix, "stride_by": "pool_before"}
    config = dataclasses.replace(with_model(base, **plain), label_smoothing=0.0)
    found = {"baseline": _augmented(config, mixup=0.0, policy=None)}

    def add(name: str, config: TrainConfig) -> TrainConfig:
        found[f"{len(found)}_{name}"] = config
        return config

    config = dataclasses.replace(found["baseline"], label_smoothing=0.1)
    config = add("label_smoothing", config)
    config = add("mixup", _augmented(config, mixup=0.2))
    config = add("cutout" if body else "autoaugment", _augmented(config, **policy))
    config = add("split_attention", with_model(config, **split))
    if body is None:
        config = add("resnest50", with_model(config, name="resnest50d"))
        data = dataclasses.replace(config.data, image_size=256)
        add("larger_crop", dataclasses.replace(config, data=data))
    return found


def _augmented(config: TrainConfig, **fields: Any) -> TrainConfig:
    """A config in which fields of the augmentation differ."""
    augment = dataclasses.replace(config.data.augment, **fields)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, augment=augment))


if __name__ == "__main__":
    sys.exit(
        main(
            "resnest_recipe",
            __doc__,
            cells,
            baseline="baseline",
            own_networks=True,
            imagenet=RESNEST,
        )
    )
