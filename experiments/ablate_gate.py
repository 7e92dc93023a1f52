"""Which gate: sigmoid, tanh or ReLU (SENet, arXiv 1709.01507, Table 12)?

    python -m experiments.ablate_gate                    # digits, minutes
    python -m experiments.ablate_gate --data cifar10 --epochs 60 --seeds 5
    python -m experiments.ablate_gate --data imagenet2012 --data-dir DIR

The paper finds the sigmoid best, tanh worse and ReLU worse than no SE at all (22.28, 23.00 and
23.47 % against 23.30 %, SE-ResNet-50 on ImageNet, without biases in the SE, as here). Cost:
4 cells x seeds x epochs; an epoch is 1.5e16 multiply-accumulates of training on ImageNet,
6.1e12 on CIFAR-10.
"""

import sys

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.studies.ablation import ablation
from senet_jax.studies.grid import with_attention


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    gates = ("sigmoid", "tanh", "relu")
    return ablation(base, {gate: with_attention(base, gate=gate) for gate in gates})


if __name__ == "__main__":
    sys.exit(main("ablate_gate", __doc__, cells, baseline="plain"))
