"""The published tables, as data in %, so that a report can put them beside its own numbers.

Those of semantic segmentation are in :mod:`senet_jax.analysis.study.segmentation_papers`, those of
detection in :mod:`senet_jax.analysis.study.detection_papers`.
"""

import dataclasses
from collections.abc import Iterable

from senet_jax.config import AttentionOverrides, ModelConfig

SENET = "SENet, arXiv 1709.01507"
RESNEST = "ResNeSt, arXiv 2004.08955"
RESNET = "ResNet, arXiv 1512.03385"
RESNEXT = "ResNeXt, arXiv 1611.05431"
DENSENET = "DenseNet, arXiv 1608.06993"


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of a published table."""

    what: str
    """The network and the data."""
    value: float
    """The headline of the task as a report shows it: the top-1 error, the mean IoU or the AP of
    boxes, %."""
    paper: str
    """The paper; its figures can be compared with each other."""
    table: str
    """The place in the paper."""

    @property
    def source(self) -> str:
        """Paper and table."""
        return f"{self.paper}, {self.table}"

    @property
    def summary(self) -> str:
        """The network, and the figures of the table besides the headline."""
        return self.what


@dataclasses.dataclass(frozen=True)
class PublishedErrors(Published):
    """A row of a table of classification."""

    top5: float | None
    """Top-5 error, %; None where the table has none."""


@dataclasses.dataclass(frozen=True)
class PublishedIoU(Published):
    """A row of a table of semantic segmentation."""

    pixel_accuracy: float | None
    """Pixel accuracy, %; None where the table has none."""

    @property
    def summary(self) -> str:
        if self.pixel_accuracy is None:
            return self.what
        return f"{self.what}, pixAcc {self.pixel_accuracy:.2f} %"


@dataclasses.dataclass(frozen=True)
class PublishedAP(Published):
    """A row of a table of detection."""

    masks: float | None = None
    """AP of masks, %; None where there are none."""
    half: float | None = None
    """AP of boxes at an IoU of 0.5, %; None where the table has none."""

    @property
    def summary(self) -> str:
        figures = {"mask AP": self.masks, "AP50": self.half}
        own = [f"{name} {value:.2f} %" for name, value in figures.items() if value is not None]
        return ", ".join([self.what, *own])


def _ablation(what: str, top1: float, top5: float, table: int) -> Published:
    return PublishedErrors(f"{what} on ImageNet", top1, SENET, f"Table {table}", top5)


ABLATIONS: dict[tuple[str, str | float], Published] = {
    ("none", ""): _ablation("ResNet-50", 23.30, 6.55, 10),
    ("standard", ""): _ablation("SE-ResNet-50", 22.28, 6.03, 10),
    ("reduction", 2.0): _ablation("SE-ResNet-50", 22.29, 6.00, 10),
    ("reduction", 4.0): _ablation("SE-ResNet-50", 22.25, 6.09, 10),
    ("reduction", 8.0): _ablation("SE-ResNet-50", 22.26, 5.99, 10),
    ("reduction", 32.0): _ablation("SE-ResNet-50", 22.72, 6.20, 10),
    ("squeeze", "max"): _ablation("SE-ResNet-50", 22.57, 6.09, 11),
    ("gate", "relu"): _ablation("SE-ResNet-50", 23.47, 6.98, 12),
    ("gate", "tanh"): _ablation("SE-ResNet-50", 23.00, 6.38, 12),
    ("stage", 2): _ablation("SE-ResNet-50", 23.03, 6.48, 13),
    ("stage", 3): _ablation("SE-ResNet-50", 23.04, 6.32, 13),
    ("stage", 4): _ablation("SE-ResNet-50", 22.68, 6.22, 13),
    ("placement", "pre"): _ablation("SE-ResNet-50", 22.23, 6.00, 14),
    ("placement", "post"): _ablation("SE-ResNet-50", 22.78, 6.35, 14),
    ("placement", "identity"): _ablation("SE-ResNet-50", 22.20, 6.15, 14),
    ("placement", "conv3x3"): _ablation("SE-ResNet-50", 22.48, 6.02, 15),
    ("squeeze", "none"): _ablation("SE-ResNet-50, NoSqueeze", 22.93, 6.39, 16),
}
"""SENet, section 6, all of one network; by the field that is ablated and its value. The standard SE
stands in each of Tables 10 to 16."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The part of the training that a table changes."""

    label_smoothing: float
    mixup: float
    policy: str | None


@dataclasses.dataclass(frozen=True)
class Trained:
    """A row of a table of networks."""

    data: str
    """Name of the data set."""
    model: ModelConfig
    """The network; another config of the same network has the same row."""
    published: Published
    recipe: Recipe | None = None
    """The recipe, if the table has the same network with several ones."""


TITLES = {"imagenet2012": "ImageNet", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def _trained(
    paper: str, table: str, data: str, rows: Iterable[tuple[ModelConfig, str, float, float | None]]
) -> tuple[Trained, ...]:
    """Rows of a table: the network, its name in the paper, top-1 and top-5 error."""
    return tuple(
        Trained(data, model, PublishedErrors(f"{what} on {TITLES[data]}", top1, paper, table, top5))
        for model, what, top1, top5 in rows
    )


Errors = tuple[float, float | None]


def _pairs(
    table: str, data: str, rows: Iterable[tuple[str, str, str, Errors, Errors]]
) -> tuple[Trained, ...]:
    """Rows of SENet: networks without and with SE, by name, and the errors of both."""
    none = AttentionOverrides(kind="none")
    return tuple(
        row
        for plain, attentive, what, errors, improved in rows
        for row in _trained(
            SENET,
            table,
            data,
            [
                (ModelConfig(name=plain), what, *errors),
                # The released SE networks differ from the plain ones of the zoo by more than SE.
                (ModelConfig(name=attentive, attention=none), what, *errors),
                (ModelConfig(name=attentive), f"SE-{what}", *improved),
            ],
        )
    )


def _resnext(name: str, cardinality: int, base_width: int) -> ModelConfig:
    return ModelConfig(name=name, cardinality=cardinality, base_width=base_width)


def _resnest(table: str, rows: Iterable[tuple[str, str, float, Recipe]]) -> tuple[Trained, ...]:
    """Rows of ResNeSt: the name in the zoo and in the paper, the top-1 accuracy and the recipe."""
    return tuple(
        dataclasses.replace(row, recipe=recipe)
        for name, what, accuracy, recipe in rows
        for row in _trained(
            RESNEST,
            table,
            "imagenet2012",
            [(ModelConfig(name=name), what, round(100 - accuracy, 2), None)],
        )
    )


_SMOOTHED = Recipe(label_smoothing=0.1, mixup=0.0, policy=None)
_MIXED = Recipe(label_smoothing=0.1, mixup=0.2, policy=None)
_FULL = Recipe(label_smoothing=0.1, mixup=0.2, policy="autoaugment")

_DENSENETS: tuple[tuple[ModelConfig, str, float, float], ...] = (
    (ModelConfig(name="cifar_densenet_40_12"), "DenseNet (L=40, k=12)", 5.24, 24.42),
    (ModelConfig(name="cifar_densenet_100_12"), "DenseNet (L=100, k=12)", 4.10, 20.20),
    (
        ModelConfig(name="cifar_densenet_100_12", growth_rate=24),
        "DenseNet (L=100, k=24)",
        3.74,
        19.25,
    ),
    (ModelConfig(name="cifar_densenet_bc_100_12"), "DenseNet-BC (L=100, k=12)", 4.51, 22.27),
    (ModelConfig(name="cifar_densenet_bc_250_24"), "DenseNet-BC (L=250, k=24)", 3.62, 17.60),
    (ModelConfig(name="cifar_densenet_bc_190_40"), "DenseNet-BC (L=190, k=40)", 3.46, 17.18),
)
"""DenseNet, Table 2, with augmentation: error on CIFAR-10 and on CIFAR-100."""

NETWORKS: tuple[Trained, ...] = (
    *_pairs(
        "Table 2, re-implementation",
        "imagenet2012",
        (
            ("resnet50", "legacy_seresnet50", "ResNet-50", (24.80, 7.48), (23.29, 6.62)),
            ("resnet101", "legacy_seresnet101", "ResNet-101", (23.17, 6.52), (22.38, 6.07)),
            ("resnet152", "legacy_seresnet152", "ResNet-152", (22.42, 6.34), (21.57, 5.73)),
            (
                "resnext50_32x4d",
                "legacy_seresnext50_32x4d",
                "ResNeXt-50 32x4d",
                (22.11, 5.90),
                (21.10, 5.49),
            ),
            (
                "resnext101_32x4d",
                "legacy_seresnext101_32x4d",
                "ResNeXt-101 32x4d",
                (21.18, 5.57),
                (20.70, 5.01),
            ),
            ("vgg16_bn", "se_vgg16_bn", "VGG-16 (BN)", (27.02, 8.81), (25.22, 7.70)),
            ("bninception", "se_bninception", "BN-Inception", (25.38, 7.89), (24.23, 7.14)),
            (
                "inception_resnet_v2",
                "se_inception_resnet_v2",
                "Inception-ResNet-v2",
                (20.37, 5.21),
                (19.80, 4.79),
            ),
        ),
    ),
    *_pairs(
        "Table 3",
        "imagenet2012",
        (
            ("mobilenet_v1", "se_mobilenet_v1", "MobileNet", (28.4, 9.4), (25.3, 7.7)),
            ("shufflenet_v1", "se_shufflenet_v1", "ShuffleNet", (32.6, 12.5), (31.0, 11.1)),
        ),
    ),
    *_trained(
        SENET,
        "Table 8",
        "imagenet2012",
        [(ModelConfig(name="legacy_senet154"), "SENet-154", 18.68, 4.47)],
    ),
    *(
        row
        for data, table, rows in (
            (
                "cifar10",
                "Table 4",
                (
                    ("resnet110", "seresnet110", "ResNet-110", 6.37, 5.21),
                    ("preact_resnet164", "se_preact_resnet164", "ResNet-164", 5.46, 4.39),
                    ("wrn16_8", "se_wrn16_8", "WRN-16-8", 4.27, 3.88),
                    (
                        "shake_shake26_2x96d",
                        "se_shake_shake26_2x96d",
                        "Shake-Shake 26 2x96d + Cutout",
                        2.56,
                        2.12,
                    ),
                ),
            ),
            (
                "cifar100",
                "Table 5",
                (
                    ("resnet110", "seresnet110", "ResNet-110", 26.88, 23.85),
                    ("preact_resnet164", "se_preact_resnet164", "ResNet-164", 24.33, 21.31),
                    ("wrn16_8", "se_wrn16_8", "WRN-16-8", 20.43, 19.14),
                    (
                        "shake_even29_2x4x64d",
                        "se_shake_even29_2x4x64d",
                        "Shake-Even 29 2x4x64d + Cutout",
                        15.85,
                        15.41,
                    ),
                ),
            ),
        )
        for row in _pairs(
            table,
            data,
            (
                (f"cifar_{plain}", f"cifar_{attentive}", what, (top1, None), (better, None))
                for plain, attentive, what, top1, better in rows
            ),
        )
    ),
    *_resnest(
        "ablation of the recipe",
        (
            ("resnet50d", "ResNet-D-50", 78.31, _SMOOTHED),
            ("resnet50d", "ResNet-D-50 + mixup", 79.15, _MIXED),
            ("resnet50d", "ResNet-D-50 + mixup + AutoAugment (0s1x64d)", 79.41, _FULL),
            ("resnest50d", "ResNeSt-50", 81.13, _FULL),
        ),
    ),
    *_resnest(
        "ablation of radix, cardinality and width",
        (
            ("resnest50_fast_1s1x64d", "ResNeSt-50-fast 1s1x64d", 80.35, _FULL),
            ("resnest50_fast_2s1x64d", "ResNeSt-50-fast 2s1x64d", 80.64, _FULL),
            ("resnest50_fast_4s1x64d", "ResNeSt-50-fast 4s1x64d", 80.90, _FULL),
            ("resnest50_fast_2s2x40d", "ResNeSt-50-fast 2s2x40d", 81.00, _FULL),
        ),
    ),
    *_resnest(
        "released networks",
        (
            ("resnest50_fast_1s2x40d", "ResNeSt-50-fast 1s2x40d", 80.59, _FULL),
            ("resnest50_fast_4s2x40d", "ResNeSt-50-fast 4s2x40d", 81.14, _FULL),
            ("resnest50_fast_1s4x24d", "ResNeSt-50-fast 1s4x24d", 80.99, _FULL),
        ),
    ),
    *_trained(
        RESNET,
        "Table 2, ten crops",
        "imagenet2012",
        (
            (ModelConfig(name="resnet18", residual=False), "plain-18", 27.94, None),
            (ModelConfig(name="resnet34", residual=False), "plain-34", 28.54, None),
            (ModelConfig(name="resnet18", shortcut="A"), "ResNet-18", 27.88, None),
            (ModelConfig(name="resnet34", shortcut="A"), "ResNet-34", 25.03, None),
        ),
    ),
    *_trained(
        RESNET,
        "Table 6",
        "cifar10",
        (
            (ModelConfig(name=f"cifar_resnet{depth}"), f"ResNet-{depth}", top1, None)
            for depth, top1 in ((20, 8.75), (32, 7.51), (44, 7.17), (56, 6.97), (110, 6.43))
        ),
    ),
    *_trained(
        RESNEXT,
        "Table 3",
        "imagenet2012",
        (
            (
                _resnext(f"resnet{depth}", cardinality, width),
                f"{'ResNet' if cardinality == 1 else 'ResNeXt'}-{depth} {cardinality}x{width}d",
                top1,
                None,
            )
            for depth, errors in (
                (50, (23.9, 23.0, 22.6, 22.3, 22.2)),
                (101, (22.0, 21.7, 21.4, 21.3, 21.2)),
            )
            for (cardinality, width), top1 in zip(
                ((1, 64), (2, 40), (4, 24), (8, 14), (32, 4)), errors, strict=True
            )
        ),
    ),
    *_trained(
        RESNEXT,
        "Table 4",
        "imagenet2012",
        (
            (_resnext("resnet101", 1, 100), "ResNet-101 1x100d", 21.3, 5.7),
            (_resnext("resnet101", 2, 64), "ResNeXt-101 2x64d", 20.7, 5.5),
            (_resnext("resnet101", 64, 4), "ResNeXt-101 64x4d", 20.4, 5.3),
        ),
    ),
    *_trained(
        RESNEXT,
        "section 5.1, without shortcuts",
        "imagenet2012",
        (
            (ModelConfig(name="resnet50", residual=False), "ResNet-50", 31.2, None),
            (ModelConfig(name="resnext50_32x4d", residual=False), "ResNeXt-50", 26.1, None),
        ),
    ),
    *(
        row
        for data, errors in (("cifar10", (3.65, 3.58)), ("cifar100", (17.77, 17.31)))
        for row in _trained(
            RESNEXT,
            "Table 7",
            data,
            (
                (ModelConfig(name=f"cifar_resnext29_{C}x64d"), f"ResNeXt-29 {C}x64d", top1, None)
                for C, top1 in zip((8, 16), errors, strict=True)
            ),
        )
    ),
    *_trained(
        DENSENET,
        "Table 2",
        "cifar10",
        ((model, what, error, None) for model, what, error, _ in _DENSENETS),
    ),
    *_trained(
        DENSENET,
        "Table 2",
        "cifar100",
        ((model, what, error, None) for model, what, _, error in _DENSENETS),
    ),
    *_trained(
        DENSENET,
        "README of github.com/liuzhuang13/DenseNet",
        "imagenet2012",
        (
            (ModelConfig(name=f"densenet{depth}"), f"DenseNet-{depth}", top1, None)
            for depth, top1 in ((121, 25.0), (169, 23.6), (201, 22.5), (161, 22.2))
        ),
    ),
)
"""Networks as the papers trained them."""
