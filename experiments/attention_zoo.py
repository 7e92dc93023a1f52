"""Which attention: SE, ECA, CBAM, gather-excite, selective kernels or split attention?

    python -m experiments.attention_zoo                  # digits, minutes
    python -m experiments.attention_zoo --data cifar10 --epochs 60 --seeds 5
    python -m experiments.attention_zoo --data imagenet2012 --data-dir DIR

Each attention, with its paper's defaults, in the same network. SE, ECA, CBAM and gather-excite
rescale what a block adds; selective kernels and split attention stand in place of its 3x3
convolution, or the first of two, which costs more parameters and multiplications; the report lists
them. Gather-excite is over the whole map: without parameters (theta-minus), with a convolution
(theta), and with the layers of SE after that (theta-plus).

We know of no paper that compares all of them in one recipe. The ResNet-50s that the authors
released have top-1 errors on ImageNet of 22.58 % with ECA (README of github.com/BangguWu/ECANet)
and 22.38 % with CBAM (README of github.com/Jongchan/attention-module), each trained in its own way;
SE-ResNet-50 has 23.29 %, or 22.28 % in the paper's ablations, which train longer (SENet, arXiv
1709.01507, Tables 2 and 10). Cost: nine cells, each as many runs as seeds, of the network that
--model names, which has to be a ResNet.
"""

import sys

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.studies.grid import with_attention, without_attention


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    return {
        "plain": without_attention(base),
        "se": with_attention(base, kind="se"),
        "eca": with_attention(base, kind="eca"),
        "cbam": with_attention(base, kind="cbam"),
        "ge_theta_minus": with_attention(base, kind="ge"),
        "ge_theta": with_attention(base, kind="ge", gather="conv"),
        "ge_theta_plus": with_attention(base, kind="ge", gather="conv", mlp=True),
        "sk": with_attention(base, kind="sk"),
        "split": with_attention(base, kind="split"),
    }


if __name__ == "__main__":
    sys.exit(main("attention_zoo", __doc__, cells, baseline="plain"))
