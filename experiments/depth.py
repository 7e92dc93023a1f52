"""Does SE still help when the network is deeper (SENet, arXiv 1709.01507, Tables 2, 4 and 5)?

    python -m experiments.depth                          # digits, minutes
    python -m experiments.depth --data cifar10 --seeds 5
    python -m experiments.depth --data imagenet2012 --data-dir DIR

ResNets of three depths, each with and without SE: 50, 101 and 152 on ImageNet, 20, 56 and 110 on
CIFAR, 8, 20 and 32 on digits. The paper finds that it does, and that SE-ResNet-50 comes close to
the twice as deep ResNet-101 (top-1 error, %, plain -> SE):

    ImageNet   ResNet-50 24.80 -> 23.29, ResNet-101 23.17 -> 22.38, ResNet-152 22.42 -> 21.57
    CIFAR-10   ResNet-110 6.37 -> 5.21
    CIFAR-100  ResNet-110 26.88 -> 23.85

The pairs differ in the SE alone. Cost: six cells, each as many runs as seeds; a run of ResNet-110
has 6 times the multiplications of one of ResNet-20, one of ResNet-152 about 3 times those of
ResNet-50.
"""

import sys

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.studies.grid import with_model, without_attention

DEPTHS = {
    "digits": (8, 20, 32),
    "cifar10": (20, 56, 110),
    "cifar100": (20, 56, 110),
    "imagenet2012": (50, 101, 152),
}


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    data = base.data.name
    found: dict[str, TrainConfig] = {}
    for depth in DEPTHS[data]:
        if data == "imagenet2012":
            se = with_model(base, name=f"legacy_seresnet{depth}")
            plain = without_attention(se)
        else:
            se = with_model(base, name=f"cifar_seresnet{depth}")
            plain = with_model(base, name=f"cifar_resnet{depth}")
        found |= {f"{depth}/plain": plain, f"{depth}/se": se}
    return found


if __name__ == "__main__":
    sys.exit(main("depth", __doc__, cells, baseline="plain", own_networks=True))
