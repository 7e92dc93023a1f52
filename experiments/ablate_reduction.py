"""How narrow may the hidden layer be: which ratio r (SENet, arXiv 1709.01507, Table 10)?

    python -m experiments.ablate_reduction               # digits, minutes
    python -m experiments.ablate_reduction --data cifar10 --epochs 60 --seeds 5
    python -m experiments.ablate_reduction --data imagenet2012 --data-dir DIR

The paper finds little difference (SE-ResNet-50 on ImageNet, without biases in the SE, as here):

    r                     2      4      8      16     32     no SE
    top-1 error, %        22.29  22.25  22.26  22.28  22.72  23.30
    parameters, millions  45.7   35.7   30.7   28.1   26.9   25.6

The CIFAR ResNets, whose narrowest stage has 16 channels, have no r = 32, and at r = 16 a single
hidden channel there. Cost: a cell for each ratio and one without SE, each as many runs as seeds, of
the network that --model names; r = 2 has 1.8 times the parameters of no SE, and hardly more
multiplications.
"""

import sys

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.studies.ablation import ablation
from senet_jax.studies.grid import with_attention


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    # The networks for ImageNet are wide enough for 32.
    ratios = (2, 4, 8, 16, 32) if base.data.name == "imagenet2012" else (2, 4, 8, 16)
    return ablation(base, {f"r{r}": with_attention(base, reduction=float(r)) for r in ratios})


if __name__ == "__main__":
    sys.exit(main("ablate_reduction", __doc__, cells, baseline="r16"))
