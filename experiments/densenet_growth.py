"""Growth rate, bottleneck and compression of DenseNets (arXiv 1608.06993, section 3 and Table 2).

    python -m experiments.densenet_growth                  # digits, minutes
    python -m experiments.densenet_growth --data cifar10 --epochs 300
    python -m experiments.densenet_growth --data imagenet2012 --data-dir DIR

BC has bottlenecks, compression 0.5 and a growth rate of 12, on ImageNet of 32; B and C have one of
the two, and without bottlenecks a block has twice the layers, so that the depth stays. Expected
with augmentation, top-1 error on CIFAR-10 and CIFAR-100: depth 100, neither, k = 12: 4.10 and
20.20, with k = 24 3.74 and 19.25; BC 4.51 and 22.27 with a ninth of the parameters; depth 40,
neither, k = 12 5.24 and 24.42. On ImageNet DenseNet-121, a BC, has 25.0 (README of the authors'
repository).

The paper trains 300 epochs on batches of 64, the rate divided by 10 after a half and three
quarters; the recipe here is that of the other studies, of 164 epochs on batches of 128. Cost: cells
x seeds x epochs. An epoch of all cells is 9.6e16 multiply-accumulates of training on ImageNet,
1.8e15 on CIFAR and 1.3e11 on digits.
"""

import sys
from typing import Any

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.studies.grid import with_model

BC: dict[str, Any] = {"name": "cifar_densenet_bc_100_12"}
PLAIN: dict[str, Any] = {"name": "cifar_densenet_100_12"}

CIFAR: dict[str, dict[str, Any]] = {
    "BC": BC,
    "BC_k24": BC | {"growth_rate": 24},
    "B": BC | {"compression": 1.0},
    "C": PLAIN | {"compression": 0.5},
    "neither": PLAIN,
    "neither_k24": PLAIN | {"growth_rate": 24},
    "neither_depth_40": {"name": "cifar_densenet_40_12"},
}

_HALF: dict[str, Any] = {"blocks": (4, 4, 4)}
_WHOLE: dict[str, Any] = {"blocks": (8, 8, 8)}

DIGITS: dict[str, dict[str, Any]] = {
    "BC": BC | _HALF,
    "BC_k6": BC | _HALF | {"growth_rate": 6},
    "BC_k24": BC | _HALF | {"growth_rate": 24},
    "B": BC | _HALF | {"compression": 1.0},
    "C": PLAIN | _WHOLE | {"compression": 0.5},
    "neither": PLAIN | _WHOLE,
}

_121: dict[str, Any] = {"name": "densenet121"}
_DOUBLED = (12, 24, 48, 32)

IMAGENET: dict[str, dict[str, Any]] = {
    "BC": _121,
    "BC_k16": _121 | {"growth_rate": 16},
    "BC_k48": _121 | {"growth_rate": 48},
    "B": _121 | {"compression": 1.0},
    "C": _121 | {"bottleneck": False, "blocks": _DOUBLED},
}

NETWORKS = {"digits": DIGITS, "cifar10": CIFAR, "cifar100": CIFAR, "imagenet2012": IMAGENET}


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study, the baseline first."""
    networks = NETWORKS[base.data.name]
    return {name: with_model(base, **fields) for name, fields in networks.items()}


if __name__ == "__main__":
    sys.exit(main("densenet_growth", __doc__, cells, baseline="BC", own_networks=True))
