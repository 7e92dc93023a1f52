"""The CIFAR networks of SENet with and without SE (arXiv 1709.01507, Tables 4 and 5).

    python -m experiments.cifar --data cifar10 --seeds 5
    python -m experiments.cifar --data cifar100 --seeds 5
    python -m experiments.cifar                          # digits, shallow members, minutes

The recipe is that of ResNet (arXiv 1512.03385, section 4.2): 164 epochs on batches of 128, the rate
0.1 divided by 10 at 82 and 123, padded random crops and flips; Shake-Shake with Cutout besides. The
papers of the wide and the Shake-Shake networks train longer, which --epochs does. Expected, top-1
error without and with SE:

    CIFAR-10   ResNet-110 6.37 -> 5.21, ResNet-164 (pre-activation) 5.46 -> 4.39,
               WRN-16-8 4.27 -> 3.88, Shake-Shake 26 2x96d 2.56 -> 2.12
    CIFAR-100  ResNet-110 26.88 -> 23.85, ResNet-164 24.33 -> 21.31,
               WRN-16-8 20.43 -> 19.14, Shake-Even 29 2x4x64d 15.85 -> 15.41

Cost: 8 cells x seeds x epochs; an epoch of all pairs is 1.7e15 multiply-accumulates of training on
CIFAR-10, of which Shake-Shake takes two thirds, 2.2e15 on CIFAR-100 and 5e10 on digits.
"""

import dataclasses
import sys
from typing import Any

from senet_jax.command_line.study import main
from senet_jax.config import TrainConfig
from senet_jax.errors import UsageError
from senet_jax.studies.grid import with_attention, with_model, without_attention
from senet_jax.studies.small_images import CUTOUT

NETWORKS: dict[str, dict[str, dict[str, Any]]] = {
    "cifar10": {
        "ResNet-110": {"name": "cifar_seresnet110"},
        "ResNet-164": {"name": "cifar_se_preact_resnet164"},
        "WRN-16-8": {"name": "cifar_se_wrn16_8"},
        "Shake-Shake-26": {"name": "cifar_se_shake_shake26_2x96d"},
    },
    "cifar100": {
        "ResNet-110": {"name": "cifar_seresnet110"},
        "ResNet-164": {"name": "cifar_se_preact_resnet164"},
        "WRN-16-8": {"name": "cifar_se_wrn16_8"},
        "Shake-Even-29": {"name": "cifar_se_shake_even29_2x4x64d"},
    },
    "digits": {
        "ResNet-8": {"name": "cifar_seresnet8"},
        "ResNet-11": {"name": "cifar_se_preact_resnet164", "blocks": (1, 1, 1)},
        "WRN-10-2": {
            "name": "cifar_se_wrn16_8",
            "blocks": (1, 1, 1),
            "widths": (32, 64, 128),
        },
        "Shake-Shake-8": {
            "name": "cifar_se_shake_shake26_2x96d",
            "blocks": (1, 1, 1),
            "widths": (16, 32, 64),
        },
    },
}


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    data = base.data
    if data.name not in NETWORKS:
        raise UsageError(
            f"the networks of Tables 4 and 5 are not for {data.name}: choose --data cifar10, "
            "cifar100 or digits; experiments.architectures has those for ImageNet."
        )
    found = {}
    for name, fields in NETWORKS[data.name].items():
        attentive = with_model(base, **fields)
        if data.name == "digits":
            # The paper's 16 would leave one hidden unit.
            attentive = with_attention(attentive, reduction=4)
        if name.startswith("Shake"):
            augment = dataclasses.replace(data.augment, cutout=CUTOUT[data.name])
            data_cut = dataclasses.replace(data, augment=augment)
            attentive = dataclasses.replace(attentive, data=data_cut)
        found[f"{name}/plain"] = without_attention(attentive)
        found[f"{name}/se"] = attentive
    return found


if __name__ == "__main__":
    sys.exit(main("cifar", __doc__, cells, baseline="plain", own_networks=True))
