"""The ablations of SE in the SENet paper (arXiv 1709.01507, section 6), one field each.

    python -m experiments.ablate gate                    # digits, minutes
    python -m experiments.ablate gate --data cifar10 --epochs 60 --seeds 5
    python -m experiments.ablate gate --data imagenet2012 --data-dir DIR
    python -m experiments.ablate gate --data scenes      # the class of each pixel
    python -m experiments.ablate gate --help             # the paper's figures, the cost, the flags

The names are gate, squeeze, squeeze_free, reduction, stage and placement. Each study has a cell
"plain" without SE, and its baseline is the paper's SE: mean, sigmoid, r = 16, in all stages, before
the addition. The paper's figures are top-1 errors of SE-ResNet-50 on ImageNet, without biases in
the SE, as here; without SE it is 23.30 %.
"""

import sys
from typing import get_args

from senet_jax.command_line.study import Study, main_of
from senet_jax.config import TrainConfig
from senet_jax.fields.models import Placement
from senet_jax.models.configured import build_model
from senet_jax.studies.ablation import ablation
from senet_jax.studies.grid import with_attention, with_model


def gate(base: TrainConfig) -> dict[str, TrainConfig]:
    """Which gate: sigmoid, tanh or ReLU (Table 12)?

    The paper finds the sigmoid best, tanh worse and ReLU worse than no SE at all: 22.28, 23.00 and
    23.47 %. Cost: four cells, each as many runs as seeds; an epoch of all cells is 1.5e16
    multiply-accumulates of training on ImageNet, 6.1e12 on CIFAR-10.
    """
    gates = ("sigmoid", "tanh", "relu")
    return ablation(base, {gate: with_attention(base, gate=gate) for gate in gates})


def squeeze(base: TrainConfig) -> dict[str, TrainConfig]:
    """Which squeeze: mean, maximum, both, or standard deviation (Table 11)?

    The paper finds the mean a little better than the maximum: 22.28 against 22.57 %. It has neither
    half the sum of the two nor the standard deviation (SRM, arXiv 1903.10829). Cost: five cells,
    each as many runs as seeds, of the network that --model names; the squeezes cost next to
    nothing.
    """
    squeezes = ("avg", "max", "avgmax", "std")
    return ablation(base, {squeeze: with_attention(base, squeeze=squeeze) for squeeze in squeezes})


def squeeze_free(base: TrainConfig) -> dict[str, TrainConfig]:
    """Does the squeeze matter, or only the layers (Table 16)?

    NoSqueeze has the parameters of SE, as 1x1 convolutions of every pixel instead of layers of the
    mean over all. The paper finds that the squeeze matters: 22.28 % with it, 22.93 % without. Cost:
    three cells, each as many runs as seeds, of the network that --model names; NoSqueeze has a
    tenth more multiplications (4.27 against 3.87 billion), and keeps two more maps of each block
    for the backward pass.
    """
    return ablation(base, {"se": base, "nosqueeze": with_attention(base, squeeze="none")})


def reduction(base: TrainConfig) -> dict[str, TrainConfig]:
    """Ablates the ratio r: how narrow may the hidden layer be (Table 10)?

    The paper finds little difference:

        r                     2      4      8      16     32     no SE
        top-1 error, %        22.29  22.25  22.26  22.28  22.72  23.30
        parameters, millions  45.7   35.7   30.7   28.1   26.9   25.6

    The CIFAR ResNets, whose narrowest stage has 16 channels, have no r = 32, and at r = 16 a single
    hidden channel there. Cost: a cell for each ratio and one without SE, each as many runs as
    seeds, of the network that --model names; r = 2 has 1.8 times the parameters of no SE, and
    hardly more multiplications.
    """
    # The networks for ImageNet are wide enough for 32.
    ratios = (2, 4, 8, 16, 32) if base.data.name == "imagenet2012" else (2, 4, 8, 16)
    return ablation(base, {f"r{r}": with_attention(base, reduction=float(r)) for r in ratios})


def stage(base: TrainConfig) -> dict[str, TrainConfig]:
    """Which stage gains by SE: each alone, all, none (Table 13)?

    The paper finds that each stage gains by SE alone, conv4_x most, and all together more: 23.03,
    23.04 and 22.68 % with SE in conv2_x, conv3_x and conv4_x, 22.28 % in all. It does not give
    conv5_x alone. Cost: a cell for each stage of the network that --model names, one for all and
    one for none, each as many runs as seeds.
    """
    stages = build_model(base.model, num_classes=2).stage_numbers
    return ablation(
        base, {"all": base} | {f"stage{each}": with_model(base, stages=(each,)) for each in stages}
    )


def placement(base: TrainConfig) -> dict[str, TrainConfig]:
    """Ablates the place of SE in the residual block (Figure 5, Tables 14 and 15).

    The paper finds the places before the addition alike and the one after it worse, and SE after
    the 3x3 convolution nearly as good with a sixteenth of SE's parameters: standard 22.28 %, before
    the block 22.23 %, on the shortcut 22.20 %, after the 3x3 22.48 %, after the addition 22.78 %.
    Cost: six cells, each as many runs as seeds, of the network that --model names, which has to be
    a ResNet.
    """
    places = get_args(Placement)
    return ablation(base, {place: with_model(base, placement=place) for place in places})


ABLATIONS = {
    cells.__name__: Study(f"ablate_{cells.__name__}", cells.__doc__ or "", cells, baseline)
    for cells, baseline in (
        (gate, "sigmoid"),
        (squeeze, "avg"),
        (squeeze_free, "se"),
        (reduction, "r16"),
        (stage, "all"),
        (placement, "standard"),
    )
}

if __name__ == "__main__":
    sys.exit(main_of("ablate", __doc__, ABLATIONS))
