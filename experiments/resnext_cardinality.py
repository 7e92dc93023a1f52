"""Cardinality against width and depth (ResNeXt, arXiv 1611.05431, Tables 3, 4 and 7).

    python -m experiments.resnext_cardinality              # digits, minutes
    python -m experiments.resnext_cardinality --data cifar10
    python -m experiments.resnext_cardinality --data imagenet2012 --data-dir DIR

32x4d has 32 groups of 4 channels where the stage has 64. From 1x64d, a ResNet, to 32x4d the cost
is the same; the others have about twice that of the ResNet, spent on depth, width or cardinality
(8x64d, the published one for CIFAR, has seven times).
Expected on ImageNet, top-1 error: 50 layers 1x64d 23.9, 2x40d 23.0, 4x24d 22.6, 8x14d 22.3, 32x4d
22.2; 101 layers 22.0, 21.7, 21.4, 21.3, 21.2 (Table 3); 101 layers 1x100d 21.3, 2x64d 20.7, 64x4d
20.4 (Table 4, whose deeper network, 21.7, is a pre-activation ResNet-200; that here is not). On
CIFAR-10 and CIFAR-100 ResNeXt-29 8x64d 3.65 and 17.77, in the mean of ten runs (Table 7).

Cost: cells x seeds x epochs. An epoch of all cells is 4.7e17 multiply-accumulates of training
on ImageNet, 2.2e15 on CIFAR and 1.8e11 on digits.
"""

import sys
from typing import Any

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.studies.grid import with_model

EQUAL = ((1, 64), (2, 40), (4, 24), (8, 14), (32, 4))
"""Cardinality and width of a group at the cost of the ResNet."""
DOUBLE = ((1, 100), (2, 64), (64, 4))
"""The same at twice the cost."""

SMALL: dict[str, Any] = {"name": "cifar_resnext29_8x64d"}
THIN: dict[str, Any] = SMALL | {"blocks": (1, 1), "widths": (32, 64)}


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    if base.data.name == "digits":
        deeper = {**THIN, "blocks": (2, 2)}
        return _settings(base, "", THIN, (*EQUAL, *DOUBLE)) | _deeper(base, "", deeper)
    if base.data.name != "imagenet2012":
        deeper = {**SMALL, "blocks": (6, 6, 6)}
        settings = (*EQUAL, *DOUBLE, (8, 64))
        return _settings(base, "", SMALL, settings) | _deeper(base, "", deeper)
    return (
        _settings(base, "50/", {"name": "resnet50"}, EQUAL)
        | _settings(base, "101/", {"name": "resnet101"}, (*EQUAL, *DOUBLE))
        | _deeper(base, "101/", {"name": "resnet200"})
    )


def _settings(
    base: TrainConfig, group: str, body: dict[str, Any], settings: tuple[tuple[int, int], ...]
) -> dict[str, TrainConfig]:
    return {
        f"{group}{cardinality}x{width}d": with_model(
            base, **body, cardinality=cardinality, base_width=width
        )
        for cardinality, width in settings
    }


def _deeper(base: TrainConfig, group: str, body: dict[str, Any]) -> dict[str, TrainConfig]:
    return {f"{group}deeper_1x64d": with_model(base, **body, cardinality=1, base_width=64)}


if __name__ == "__main__":
    sys.exit(main("resnext_cardinality", __doc__, cells, baseline="1x64d", own_networks=True))
