"""Gate and squeeze, by a short schedule that ends at zero (SENet, arXiv 1709.01507, section 6).

    python -m experiments.gates_and_squeezes             # digits, minutes
    python -m experiments.gates_and_squeezes --data cifar10 --model cifar_seresnet8 --epochs 10
    python -m experiments.gates_and_squeezes --data imagenet2012 --data-dir DIR

The second line trains the runs of experiments/results/cifar10_gates, whose table is in
experiments/results/README.md: no gate and no squeeze gains over the plain network there, and tanh
loses. The paper, with SE-ResNet-50 on ImageNet: mean and sigmoid 22.28 % top-1 error, maximum
22.57, ReLU 23.47, tanh 23.00, no SE 23.30. Cost: 5 cells x seeds x epochs, on ResNet-8 an epoch of
CIFAR-10 is 1.8e12 multiply-accumulates of training, two to four minutes on a core.
"""

import dataclasses
import sys

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.studies.ablation import ablation
from senet_jax.studies.grid import with_attention

CELLS = (("avg", "sigmoid"), ("max", "sigmoid"), ("avg", "relu"), ("avg", "tanh"))


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study: the rate rises for an epoch at most, then falls to zero."""
    optimizer = dataclasses.replace(
        base.optimizer, schedule="cosine", milestones=(), warmup_epochs=min(1.0, base.epochs / 10)
    )
    base = dataclasses.replace(base, optimizer=optimizer)
    variants = {
        f"{squeeze}-{gate}": with_attention(base, squeeze=squeeze, gate=gate)
        for squeeze, gate in CELLS
    }
    return ablation(base, variants)


if __name__ == "__main__":
    sys.exit(main("gates_and_squeezes", __doc__, cells, baseline="plain"))
