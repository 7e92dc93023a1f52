"""The published tables, as data: errors in %, so that a report can put them beside its own."""

import dataclasses
import math
from typing import Any

from senet_jax.attention import SqueezeExciteConfig
from senet_jax.training.config import ModelConfig, TrainConfig
from senet_jax.training.network import build_model

SENET = "SENet, arXiv 1709.01507"


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of a published table."""

    what: str
    """What was trained, on what."""
    top1: float
    """Top-1 error, %."""
    top5: float | None
    """Top-5 error, %; None where the table has none."""
    source: str
    """Paper and table."""


def _ablation(what: str, top1: float, top5: float, table: int) -> Published:
    return Published(f"{what}, ImageNet", top1, top5, f"{SENET}, Table {table}")


ABLATIONS: dict[tuple[str, str | float], Published] = {
    ("none", ""): _ablation("ResNet-50", 23.30, 6.55, 10),
    ("reduction", 2.0): _ablation("SE-ResNet-50", 22.29, 6.00, 10),
    ("reduction", 4.0): _ablation("SE-ResNet-50", 22.25, 6.09, 10),
    ("reduction", 8.0): _ablation("SE-ResNet-50", 22.26, 5.99, 10),
    ("reduction", 16.0): _ablation("SE-ResNet-50", 22.28, 6.03, 10),
    ("reduction", 32.0): _ablation("SE-ResNet-50", 22.72, 6.20, 10),
    ("squeeze", "max"): _ablation("SE-ResNet-50", 22.57, 6.09, 11),
    ("squeeze", "avg"): _ablation("SE-ResNet-50", 22.28, 6.03, 11),
    ("gate", "relu"): _ablation("SE-ResNet-50", 23.47, 6.98, 12),
    ("gate", "tanh"): _ablation("SE-ResNet-50", 23.00, 6.38, 12),
    ("gate", "sigmoid"): _ablation("SE-ResNet-50", 22.28, 6.03, 12),
    ("stage", 2): _ablation("SE-ResNet-50", 23.03, 6.48, 13),
    ("stage", 3): _ablation("SE-ResNet-50", 23.04, 6.32, 13),
    ("stage", 4): _ablation("SE-ResNet-50", 22.68, 6.22, 13),
    ("placement", "standard"): _ablation("SE-ResNet-50", 22.28, 6.03, 14),
    ("placement", "pre"): _ablation("SE-ResNet-50", 22.23, 6.00, 14),
    ("placement", "post"): _ablation("SE-ResNet-50", 22.78, 6.35, 14),
    ("placement", "identity"): _ablation("SE-ResNet-50", 22.20, 6.15, 14),
    ("placement", "conv3x3"): _ablation("SE-ResNet-50", 22.48, 6.02, 15),
    ("squeeze", "none"): _ablation("SE-ResNet-50, NoSqueeze", 22.93, 6.39, 16),
}
"""Section 6, all of one network; by the field that is ablated and its value."""


def _network(what: str, data: str, top1: float, top5: float | None, source: str) -> Published:
    return Published(f"{what}, {data}", top1, top5, source)


_TABLE_2 = f"{SENET}, Table 2, re-implementation"
_TABLE_3 = f"{SENET}, Table 3"

NETWORKS: dict[tuple[str, str], Published] = {
    ("imagenet2012", name): _network(what, "ImageNet", top1, top5, source)
    for name, what, top1, top5, source in (
        ("resnet50", "ResNet-50", 24.80, 7.48, _TABLE_2),
        ("legacy_seresnet50", "SE-ResNet-50", 23.29, 6.62, _TABLE_2),
        ("resnet101", "ResNet-101", 23.17, 6.52, _TABLE_2),
        ("legacy_seresnet101", "SE-ResNet-101", 22.38, 6.07, _TABLE_2),
        ("resnet152", "ResNet-152", 22.42, 6.34, _TABLE_2),
        ("legacy_seresnet152", "SE-ResNet-152", 21.57, 5.73, _TABLE_2),
        ("resnext50_32x4d", "ResNeXt-50 32x4d", 22.11, 5.90, _TABLE_2),
        ("legacy_seresnext50_32x4d", "SE-ResNeXt-50 32x4d", 21.10, 5.49, _TABLE_2),
        ("resnext101_32x4d", "ResNeXt-101 32x4d", 21.18, 5.57, _TABLE_2),
        ("legacy_seresnext101_32x4d", "SE-ResNeXt-101 32x4d", 20.70, 5.01, _TABLE_2),
        ("vgg16_bn", "VGG-16 (BN)", 27.02, 8.81, _TABLE_2),
        ("se_vgg16_bn", "SE-VGG-16 (BN)", 25.22, 7.70, _TABLE_2),
        ("bninception", "BN-Inception", 25.38, 7.89, _TABLE_2),
        ("se_bninception", "SE-BN-Inception", 24.23, 7.14, _TABLE_2),
        ("inception_resnet_v2", "Inception-ResNet-v2", 20.37, 5.21, _TABLE_2),
        ("se_inception_resnet_v2", "SE-Inception-ResNet-v2", 19.80, 4.79, _TABLE_2),
        ("mobilenet_v1", "MobileNet", 28.4, 9.4, _TABLE_3),
        ("se_mobilenet_v1", "SE-MobileNet", 25.3, 7.7, _TABLE_3),
        ("shufflenet_v1", "ShuffleNet", 32.6, 12.5, _TABLE_3),
        ("se_shufflenet_v1", "SE-ShuffleNet", 31.0, 11.1, _TABLE_3),
        ("legacy_senet154", "SENet-154", 18.68, 4.47, f"{SENET}, Table 8"),
    )
} | {
    (data, name): _network(what, title, top1, None, f"{SENET}, Table {table}")
    for data, title, table, rows in (
        (
            "cifar10",
            "CIFAR-10",
            4,
            (
                ("cifar_resnet110", "ResNet-110", 6.37),
                ("cifar_seresnet110", "SE-ResNet-110", 5.21),
                ("cifar_preact_resnet164", "ResNet-164", 5.46),
                ("cifar_se_preact_resnet164", "SE-ResNet-164", 4.39),
                ("cifar_wrn16_8", "WRN-16-8", 4.27),
                ("cifar_se_wrn16_8", "SE-WRN-16-8", 3.88),
                ("cifar_shake_shake26_2x96d", "Shake-Shake 26 2x96d + Cutout", 2.56),
                ("cifar_se_shake_shake26_2x96d", "SE-Shake-Shake 26 2x96d + Cutout", 2.12),
            ),
        ),
        (
            "cifar100",
            "CIFAR-100",
            5,
            (
                ("cifar_resnet110", "ResNet-110", 26.88),
                ("cifar_seresnet110", "SE-ResNet-110", 23.85),
                ("cifar_preact_resnet164", "ResNet-164", 24.33),
                ("cifar_se_preact_resnet164", "SE-ResNet-164", 21.31),
                ("cifar_wrn16_8", "WRN-16-8", 20.43),
                ("cifar_se_wrn16_8", "SE-WRN-16-8", 19.14),
                ("cifar_shake_even29_2x4x64d", "Shake-Even 29 2x4x64d + Cutout", 15.85),
                ("cifar_se_shake_even29_2x4x64d", "SE-Shake-Even 29 2x4x64d + Cutout", 15.41),
            ),
        ),
    )
    for name, what, top1 in rows
}
"""Networks as they are named, by data set and name."""


def published(config: TrainConfig) -> Published | None:
    """What a paper says of a config, or of the same ablation of another network.

    A named network as it is, on the data set of the table, has the row of that table. Otherwise a
    network without attention, with the SE of the paper's section 3 or with one field of it changed
    has the row of section 6 for that change: of SE-ResNet-50 on ImageNet, whatever it is here.
    """
    model = config.model
    plain = ModelConfig(name=model.name, dtype=model.dtype, remat=model.remat)
    if model == plain and (config.data.name, model.name) in NETWORKS:
        return NETWORKS[config.data.name, model.name]
    module: Any = build_model(model, num_classes=1)
    attention = getattr(module, "attention", None)
    if attention is None:
        return ABLATIONS["none", ""]
    if not isinstance(attention, SqueezeExciteConfig):
        return None
    paper = SqueezeExciteConfig()
    changes: list[tuple[str, str | float]] = [
        (field, getattr(attention, field))
        for field in ("squeeze", "gate", "reduction")
        if getattr(attention, field) != getattr(paper, field)
    ]
    if model.stages is not None:
        changes.append(("stage", model.stages[0] if len(model.stages) == 1 else math.nan))
    if model.placement not in (None, "standard"):
        changes.append(("placement", model.placement))
    if not changes:
        return ABLATIONS["gate", "sigmoid"]
    return ABLATIONS.get(changes[0]) if len(changes) == 1 else None
