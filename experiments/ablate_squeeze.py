"""Which squeeze: mean, maximum, both, or standard deviation (SENet, arXiv 1709.01507, Table 11)?

    python -m experiments.ablate_squeeze                 # digits, minutes
    python -m experiments.ablate_squeeze --data cifar10 --epochs 60 --seeds 5
    python -m experiments.ablate_squeeze --data imagenet2012 --data-dir DIR

The paper finds the mean a little better than the maximum (22.28 % against 22.57 %, and 23.30 %
without SE, SE-ResNet-50 on ImageNet, without biases in the SE, as here). Half the sum of the two
and the standard deviation (SRM, arXiv 1903.10829) are ours to ask. Cost: five cells, each as many
runs as seeds, of the network that --model names; the squeezes cost next to nothing.
"""

import sys

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.studies.ablation import ablation
from senet_jax.studies.grid import with_attention


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    squeezes = ("avg", "max", "avgmax", "std")
    return ablation(base, {squeeze: with_attention(base, squeeze=squeeze) for squeeze in squeezes})


if __name__ == "__main__":
    sys.exit(main("ablate_squeeze", __doc__, cells, baseline="avg"))
