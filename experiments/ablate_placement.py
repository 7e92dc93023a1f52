"""Where in the residual block does SE stand (SENet, arXiv 1709.01507, Figure 5, Tables 14 and 15)?

    python -m experiments.ablate_placement               # digits, minutes
    python -m experiments.ablate_placement --data cifar10 --epochs 60 --seeds 5
    python -m experiments.ablate_placement --data imagenet2012 --data-dir DIR

The paper finds the places before the addition alike and the one after it worse, and SE after the
3x3 convolution nearly as good with a sixteenth of SE's parameters (SE-ResNet-50 on ImageNet,
without biases in the SE, as here): standard 22.28 %, before the block 22.23 %, on the shortcut
22.20 %, after the 3x3 22.48 %, after the addition 22.78 %, none 23.30 %. Cost: six cells,
each as many runs as seeds, of the network that --model names, which has to be a ResNet.
"""

import sys
from typing import get_args

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.fields.models import Placement
from senet_jax.studies.ablation import ablation
from senet_jax.studies.grid import with_model


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    places = get_args(Placement)
    return ablation(base, {place: with_model(base, placement=place) for place in places})


if __name__ == "__main__":
    sys.exit(main("ablate_placement", __doc__, cells, baseline="standard"))
