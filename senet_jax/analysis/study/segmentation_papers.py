"""The published results of semantic segmentation, as data: mean IoU and pixel accuracy in %."""

from collections.abc import Iterable

from senet_jax.analysis.study.papers import RESNEST, PublishedIoU, Trained
from senet_jax.config import ModelConfig

GLUON_CV = "GluonCV, docs/model_zoo/csv_tables/Segmentations of github.com/dmlc/gluon-cv"
MMSEGMENTATION = "mmsegmentation, configs/resnest/README.md of github.com/open-mmlab/mmsegmentation"

_RELEASED = "docs/source/model_zoo/segmentation.rst of github.com/zhanghang1989/PyTorch-Encoding"
_MULTI_SCALE = "several scales and flipped"

_SETS = {"ade20k": "ADE20K", "pascal_context": "PASCAL Context", "cityscapes": "Cityscapes"}
_HEADS = {
    "fcn": "FCN",
    "pspnet": "PSPNet",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3+",
}
_BACKBONES = {
    # GluonCV's ResNets may have the plain stem or a deep one: its tables do not say.
    "ResNet-50": ("resnet50", "resnet50s"),
    "ResNet-50s": ("resnet50s",),
    "ResNet-101": ("resnet101", "resnet101s"),
    "ResNeSt-50": ("resnest50d",),
    "ResNeSt-101": ("resnest101e",),
    "ResNeSt-200": ("resnest200e",),
    "ResNeSt-269": ("resnest269e",),
}

Figures = tuple[str, str, float | None, float]
"""Head and backbone, pixel accuracy and mean IoU."""


def _rows(paper: str, table: str, data: str, figures: Iterable[Figures]) -> tuple[Trained, ...]:
    return tuple(
        Trained(
            data,
            ModelConfig(name=f"{head}_{name}"),
            PublishedIoU(
                f"{_HEADS[head]} {backbone} on {_SETS[data]}", miou, paper, table, accuracy
            ),
        )
        for head, backbone, accuracy, miou in figures
        for name in _BACKBONES[backbone]
    )


SEGMENTERS: tuple[Trained, ...] = (
    *_rows(
        RESNEST,
        f"{_RELEASED}, {_MULTI_SCALE}",
        "ade20k",
        (
            ("fcn", "ResNet-50s", 78.7, 38.5),
            ("fcn", "ResNeSt-50", 80.18, 42.94),
            ("deeplabv3", "ResNeSt-50", 81.17, 45.12),
            ("deeplabv3", "ResNeSt-101", 82.07, 46.91),
            ("deeplabv3", "ResNeSt-200", 82.45, 48.36),
            ("deeplabv3", "ResNeSt-269", 82.62, 47.60),
        ),
    ),
    *_rows(RESNEST, "abstract", "ade20k", [("deeplabv3", "ResNet-50", None, 42.1)]),
    *_rows(
        RESNEST,
        f"{_RELEASED}, {_MULTI_SCALE}",
        "pascal_context",
        (
            ("fcn", "ResNeSt-50", 79.19, 51.98),
            ("deeplabv3", "ResNeSt-50", 80.41, 53.19),
            ("deeplabv3", "ResNeSt-101", 81.91, 56.49),
            ("deeplabv3", "ResNeSt-200", 82.50, 58.37),
            ("deeplabv3", "ResNeSt-269", 83.06, 58.92),
        ),
    ),
    *_rows(
        GLUON_CV,
        f"SS_ADE20K.csv, {_MULTI_SCALE}",
        "ade20k",
        (
            ("fcn", "ResNet-50", 79.0, 39.5),
            ("fcn", "ResNet-101", 80.6, 41.6),
            ("pspnet", "ResNet-50", 80.1, 41.5),
            ("pspnet", "ResNet-101", 80.8, 43.3),
            ("deeplabv3", "ResNet-50", 80.5, 42.5),
            ("deeplabv3", "ResNet-101", 81.1, 44.1),
            ("fcn", "ResNeSt-50", 80.2, 42.9),
            ("deeplabv3", "ResNeSt-50", 81.2, 45.1),
            ("deeplabv3", "ResNeSt-101", 82.1, 46.9),
            ("deeplabv3", "ResNeSt-200", 82.5, 48.4),
            ("deeplabv3", "ResNeSt-269", 82.6, 47.6),
        ),
    ),
    *_rows(
        GLUON_CV,
        f"SS_Cityscapes.csv, {_MULTI_SCALE}",
        "cityscapes",
        (
            ("deeplabv3", "ResNet-50", 96.3, 78.7),
            ("deeplabv3", "ResNet-101", 96.4, 79.4),
            ("pspnet", "ResNet-101", 96.4, 79.9),
        ),
    ),
    *_rows(
        MMSEGMENTATION,
        "160,000 steps, one scale",
        "ade20k",
        (
            ("fcn", "ResNeSt-101", None, 45.62),
            ("pspnet", "ResNeSt-101", None, 45.44),
            ("deeplabv3", "ResNeSt-101", None, 45.71),
            ("deeplabv3plus", "ResNeSt-101", None, 46.47),
        ),
    ),
    *_rows(
        MMSEGMENTATION,
        "80,000 steps, one scale",
        "cityscapes",
        (
            ("fcn", "ResNeSt-101", None, 77.56),
            ("pspnet", "ResNeSt-101", None, 78.57),
            ("deeplabv3", "ResNeSt-101", None, 79.67),
            ("deeplabv3plus", "ResNeSt-101", None, 79.62),
        ),
    ),
)
"""Networks of semantic segmentation as others trained them; the mean IoU is over all classes. The
figures of several scales and flips are above those that a run measures while it trains."""
