"""Radix, cardinality and width of split attention (ResNeSt, arXiv 2004.08955, its ablation).

    python -m experiments.resnest_radix                    # digits, minutes
    python -m experiments.resnest_radix --data cifar10
    python -m experiments.resnest_radix --data imagenet2012 --data-dir DIR

4s2x40d has radix 4, cardinality 2 and 40 channels of a group where the stage has 64; 0s1x64d is
the baseline without split attention. Expected on ImageNet, top-1 error of ResNeSt-50-fast with the
paper's recipe: 0s1x64d (ResNet-D-50) 20.59, 1s1x64d 19.65, 2s1x64d 19.36, 4s1x64d 19.10,
2s2x40d 19.00; the released 1s2x40d 19.41, 4s2x40d 18.86 and 1s4x24d 19.01. More splits help, and
cardinality does on top of them.

Where images are small the blocks stand in the stages of the ResNeXt-29 for CIFAR, narrower than
there, and average pools stride, as in the fast networks. Cost: 8 cells x seeds x epochs. An epoch
of all cells is 1.3e17 multiply-accumulates of training on ImageNet (of 270 epochs), 2.3e14 on CIFAR
and 1.2e11 on digits.
"""

import sys
from typing import Any

from senet_jax.command_line.study import main
from senet_jax.config import AttentionOverrides, TrainConfig
from senet_jax.studies.grid import with_model
from senet_jax.studies.small_images import RESNEST_BODIES
from senet_jax.training.presets import RESNEST

SETTINGS = ((1, 1, 64), (2, 1, 64), (4, 1, 64), (1, 2, 40), (2, 2, 40), (4, 2, 40), (1, 4, 24))
"""Radix, cardinality and width of a group."""


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    body = RESNEST_BODIES.get(base.data.name)
    if body is None:
        plain: dict[str, Any] = {"name": "resnet50d"}
    else:
        plain = body | {"cardinality": 1, "base_width": 64}
    found = {"0s1x64d": with_model(base, **plain)}
    for radix, cardinality, width in SETTINGS:
        name = f"{radix}s{cardinality}x{width}d"
        if body is None:
            found[name] = with_model(base, name=f"resnest50_fast_{name}")
            continue
        found[name] = with_model(
            base,
            **body,
            cardinality=cardinality,
            base_width=width,
            stride_by="pool_before",
            attention=AttentionOverrides(kind="split", radix=radix),
        )
    return found


if __name__ == "__main__":
    sys.exit(
        main(
            "resnest_radix",
            __doc__,
            cells,
            baseline="0s1x64d",
            own_networks=True,
            imagenet=RESNEST,
        )
    )
