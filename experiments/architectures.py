"""SE in every family of networks (SENet, arXiv 1709.01507, section 5.1 and Tables 2 to 5).

    python -m experiments.architectures                    # digits, small members
    python -m experiments.architectures --data cifar10 --seeds 5
    python -m experiments.architectures --data imagenet2012 --data-dir DIR

Cells are pairs, FAMILY/plain and FAMILY/se, which differ by SE alone. Expected on ImageNet, top-1
error without and with SE: ResNet-50 24.80 -> 23.29, ResNeXt-50 22.11 -> 21.10, VGG-16 27.02 ->
25.22, BN-Inception 25.38 -> 24.23, Inception-ResNet-v2 20.37 -> 19.80 (Table 2); MobileNet 28.4 ->
25.3, ShuffleNet 32.6 -> 31.0 (Table 3, by a recipe of its own). DenseNet, Inception-v3 and
wide ResNets have no published figure with SE there.

The small members keep what makes a family, in fewer and narrower stages. What takes larger images
is left out where they are small: the unpadded convolutions of Inception-v3 and Inception-ResNet-v2
need 75 pixels and the strides of BN-Inception leave a pixel of 32; the small Inception of arXiv
1611.03530 stands for them. Mobile networks have a stem of stride 1 there, and VGG is trained at a
tenth of the rate. SE has a reduction of 4 where the paper's 16 would leave next to no hidden unit:
on digits, and in the thin layers of a DenseNet.

Cost: 20 cells x seeds x epochs. An epoch of all pairs is 4.6e17 multiply-accumulates of training on
ImageNet, 2.6e15 on CIFAR, of which ResNeXt takes two thirds, and 2.4e11 on digits.
"""

import dataclasses
import sys
from typing import Any

from senet_jax.command_line.study import main
from senet_jax.config import AttentionOverrides, TrainConfig
from senet_jax.studies.grid import with_model, without_attention

SE = AttentionOverrides(kind="se")
SE_4 = AttentionOverrides(kind="se", reduction=4)

Fields = dict[str, Any]

IMAGENET: dict[str, Fields] = {
    "VGG-16": {"name": "se_vgg16_bn"},
    "ResNet-50": {"name": "legacy_seresnet50"},
    "WRN-50-2": {"name": "wide_resnet50_2", "attention": SE},
    "ResNeXt-50": {"name": "legacy_seresnext50_32x4d"},
    "DenseNet-121": {"name": "se_densenet121"},
    "BN-Inception": {"name": "se_bninception"},
    "Inception-v3": {"name": "se_inception_v3"},
    "Inception-ResNet-v2": {"name": "se_inception_resnet_v2"},
    "MobileNet": {"name": "se_mobilenet_v1"},
    "ShuffleNet": {"name": "se_shufflenet_v1"},
}

CIFAR: dict[str, Fields] = {
    "VGG-16": {"name": "se_vgg16_bn", "fc_width": 512},
    "ResNet-56": {"name": "cifar_seresnet56"},
    "pre-activation-110": {"name": "cifar_se_preact_resnet110"},
    "WRN-16-8": {"name": "cifar_se_wrn16_8"},
    "ResNeXt-29": {"name": "cifar_resnext29_8x64d", "attention": SE},
    "DenseNet-BC-100": {"name": "cifar_densenet_bc_100_12", "attention": SE_4},
    "Inception": {"name": "cifar_se_inception"},
    "Shake-Shake-26": {"name": "cifar_shake_shake26_2x32d", "attention": SE},
    "MobileNet": {"name": "se_mobilenet_v1", "stem": "cifar"},
    "ShuffleNet": {"name": "se_shufflenet_v1", "stem": "cifar"},
}

_THIN: Fields = {"attention": SE_4, "blocks": (1, 1, 1)}

DIGITS: dict[str, Fields] = {
    "VGG": {
        "name": "vgg11_bn",
        "attention": SE_4,
        "blocks": (1, 1, 2),
        "widths": (16, 32, 64),
        "fc_width": 64,
    },
    "ResNet": {"name": "cifar_resnet8", **_THIN},
    "pre-activation": {"name": "cifar_preact_resnet110", **_THIN},
    "WRN": {"name": "cifar_wrn16_8", **_THIN, "widths": (32, 64, 128)},
    "ResNeXt": {
        "name": "cifar_resnext29_8x64d",
        **_THIN,
        "widths": (16, 32, 64),
        "base_width": 16,
    },
    "DenseNet": {"name": "cifar_densenet_bc_100_12", **_THIN, "blocks": (4, 4, 4)},
    "Inception": {"name": "cifar_inception", "attention": SE_4},
    "Shake-Shake": {"name": "cifar_shake_shake26_2x32d", **_THIN, "widths": (16, 32, 64)},
    "MobileNet": {"name": "mobilenet_v1_050", **_THIN, "stem": "cifar"},
    "ShuffleNet": {"name": "shufflenet_v1_x0_5", **_THIN, "blocks": (2, 2), "stem": "cifar"},
}

SLOWER = ("VGG", "VGG-16")
"""Families whose rate is a tenth of the recipe's where images are small, 0.01 as in their paper
(arXiv 1409.1556, section 3.1): at 0.1 those for digits end 30 epochs at chance, with SE or without.
"""

FAMILIES = {"imagenet2012": IMAGENET, "cifar10": CIFAR, "cifar100": CIFAR, "digits": DIGITS}


def cells(base: TrainConfig) -> dict[str, TrainConfig]:
    """The configs of the study."""
    found = {}
    for family, fields in FAMILIES[base.data.name].items():
        attentive = with_model(base, **fields)
        if family in SLOWER and base.data.name != "imagenet2012":
            rate = base.optimizer.learning_rate / 10
            optimizer = dataclasses.replace(base.optimizer, learning_rate=rate)
            attentive = dataclasses.replace(attentive, optimizer=optimizer)
        found[f"{family}/plain"] = without_attention(attentive)
        found[f"{family}/se"] = attentive
    return found


if __name__ == "__main__":
    sys.exit(main("architectures", __doc__, cells, baseline="plain", own_networks=True))
