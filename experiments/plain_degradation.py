"""Plain networks against residual ones by depth (ResNet, arXiv 1512.03385, sections 4.1 and 4.2).

    python -m experiments.plain_degradation                # digits, minutes
    python -m experiments.plain_degradation --data cifar10 --seeds 5
    python -m experiments.plain_degradation --data imagenet2012 --data-dir DIR

Cells are pairs, DEPTH/plain and DEPTH/residual: the same layers, without and with shortcuts that
have no parameters (option A). Expected: plain networks get worse with depth, in training too, and
residual ones better. On ImageNet, top-1 error of ten crops: 18 layers 27.94 (plain) and 27.88, 34
layers 28.54 and 25.03 (Table 2); one crop, here with the projections of the networks as they are:
ResNet-50 31.2 and 23.9, ResNeXt-50 26.1 and 22.2 (ResNeXt, arXiv 1611.05431, section 5.1). On
CIFAR-10: ResNet-20 8.75, 32 7.51, 44 7.17, 56 6.97 (Table 6), and plain networks by Figure 6 alone.

Cost: 2 cells a depth x seeds x epochs. An epoch of all cells is 1.0e17 multiply-accumulates of
training on ImageNet, 1.0e14 on CIFAR and 7e10 on digits.
"""

import sys
from typing import Any

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.studies.grid import with_model

IMAGENET: dict[str, dict[str, Any]] = {
    "18": {"name": "resnet18", "shortcut": "A"},
    "34": {"name": "resnet34", "shortcut": "A"},
    "50": {"name": "resnet50"},
    "50_32x4d": {"name": "resnext50_32x4d"},
}

DEPTHS = {"digits": (8, 20, 32), "cifar10": (20, 32, 44, 56), "cifar100": (20, 32, 44, 56)}


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    depths = DEPTHS.get(base.data.name, ())
    networks = {str(depth): {"name": f"cifar_resnet{depth}"} for depth in depths} or IMAGENET
    found = {}
    for depth, fields in networks.items():
        found[f"{depth}/plain"] = with_model(base, **fields, residual=False)
        found[f"{depth}/residual"] = with_model(base, **fields)
    return found


if __name__ == "__main__":
    sys.exit(main("plain_degradation", __doc__, cells, baseline="plain", own_networks=True))
