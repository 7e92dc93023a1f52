"""Which stage gains by SE: each alone, all, none (SENet, arXiv 1709.01507, Table 13)?

    python -m experiments.ablate_stage                   # digits, minutes
    python -m experiments.ablate_stage --data cifar10 --epochs 60 --seeds 5
    python -m experiments.ablate_stage --data imagenet2012 --data-dir DIR

The paper finds that each stage gains by SE alone, conv4_x most, and all together more (SE-ResNet-50
on ImageNet, without biases in the SE, as here): 23.03, 23.04 and 22.68 % with SE in conv2_x,
conv3_x and conv4_x, 22.28 % in all, 23.30 % in none. It does not give conv5_x alone. Cost: a cell
for each stage of the network that --model names, one for all and one for none, each as many runs as
seeds.
"""

import sys
from typing import Any

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.models import zoo
from senet_jax.studies.ablation import ablation
from senet_jax.studies.grid import with_model


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study; stages have the numbers of the network."""
    network: Any = zoo.create_model(base.model.name)
    each = {f"stage{stage}": with_model(base, stages=(stage,)) for stage in network.stage_numbers}
    return ablation(base, {"all": base} | each)


if __name__ == "__main__":
    sys.exit(main("ablate_stage", __doc__, cells, baseline="plain"))
