"""Does the squeeze matter, or only the layers (SENet, arXiv 1709.01507, section 6.5, Table 16)?

    python -m experiments.ablate_squeeze_free            # digits, minutes
    python -m experiments.ablate_squeeze_free --data cifar10 --epochs 60 --seeds 5
    python -m experiments.ablate_squeeze_free --data imagenet2012 --data-dir DIR

NoSqueeze has the parameters of SE, as 1x1 convolutions of every pixel instead of layers of the mean
over all. The paper finds that the squeeze matters (SE-ResNet-50 on ImageNet, without biases in the
SE, as here): 22.28 % with it, 22.93 % without, 23.30 % without either. Cost: three cells, each as
many runs as seeds, of the network that --model names; NoSqueeze has a tenth more multiplications
(4.27 against 3.87 billion), and keeps two more maps of each block for the backward pass.
"""

import sys

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.studies.ablation import ablation
from senet_jax.studies.grid import with_attention


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    return ablation(base, {"se": base, "nosqueeze": with_attention(base, squeeze="none")})


if __name__ == "__main__":
    sys.exit(main("ablate_squeeze_free", __doc__, cells, baseline="se"))
