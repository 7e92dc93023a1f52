"""The published results of detection on COCO, as data: AP of boxes and of masks in %."""

import dataclasses
from collections.abc import Iterable

from senet_jax.analysis.study.papers import RESNEST, SENET, PublishedAP, Trained
from senet_jax.config import AttentionOverrides, ModelConfig
from senet_jax.training.detection_presets import (
    COCO,
    COCO_CASCADE,
    COCO_CASCADE_MASK,
    COCO_FASTER,
    COCO_SENET,
    COCO_THREE_TIMES,
    COCO_TORCHVISION,
)

TORCHVISION = "torchvision, references/detection of github.com/pytorch/vision"

_README = "d2/README.md of github.com/zhanghang1989/ResNeSt"
_BACKBONES = {
    "ResNet-50": "resnet50",
    "ResNet-101": "resnet101",
    "ResNeSt-50": "resnest50d",
    "ResNeSt-101": "resnest101e",
    "ResNeSt-200": "resnest200e",
}


def _on(model: ModelConfig, backbone: str, **fields: object) -> ModelConfig:
    """A detector on another backbone."""
    head, *_, pyramid = model.name.split("_")
    name = f"{head}_{backbone}_{pyramid}"
    return dataclasses.replace(model, name=name, **fields)  # type: ignore[arg-type]


def _resnest(
    model: ModelConfig, head: str, table: str, rows: Iterable[tuple[str, float, float | None]]
) -> tuple[Trained, ...]:
    """Rows of ResNeSt: the backbone, AP of boxes and of masks."""
    return tuple(
        Trained(
            "coco",
            _on(model, _BACKBONES[backbone]),
            PublishedAP(f"{head} {backbone} on COCO", boxes, RESNEST, table, masks=masks),
        )
        for backbone, boxes, masks in rows
    )


def _senet(depth: int, plain: tuple[float, float], improved: tuple[float, float]) -> list[Trained]:
    """Rows of SENet: AP and AP50 of boxes without SE and with it."""
    model, none = COCO_SENET.model, AttentionOverrides(kind="none")
    attentive = f"legacy_seresnet{depth}"
    networks = (
        (_on(model, f"resnet{depth}"), "", plain),
        # The released SE networks differ from the plain ones of the zoo by more than SE.
        (_on(model, attentive, attention=none), "", plain),
        (_on(model, attentive), "SE-", improved),
    )
    return [
        Trained(
            "coco",
            network,
            PublishedAP(
                f"Faster R-CNN {start}ResNet-{depth} on COCO", ap, SENET, "Table 7", half=half
            ),
        )
        for network, start, (ap, half) in networks
    ]


DETECTORS: tuple[Trained, ...] = (
    *_senet(50, (38.0, 57.9), (40.4, 61.0)),
    *_senet(101, (39.9, 60.1), (41.9, 62.7)),
    *_resnest(
        COCO_FASTER.model,
        "Faster R-CNN",
        f"Table 5, {_README}",
        (
            ("ResNet-50", 39.25, None),
            ("ResNet-101", 41.37, None),
            ("ResNeSt-50", 42.33, None),
            ("ResNeSt-101", 44.72, None),
        ),
    ),
    *_resnest(
        COCO_CASCADE.model,
        "Cascade R-CNN",
        f"Table 5, {_README}",
        (
            ("ResNet-50", 42.52, None),
            ("ResNet-101", 44.03, None),
            ("ResNeSt-50", 45.41, None),
            ("ResNeSt-101", 47.50, None),
            ("ResNeSt-200", 49.03, None),
        ),
    ),
    *_resnest(
        COCO.model,
        "Mask R-CNN",
        f"Table 6, {_README}",
        (
            ("ResNet-50", 39.97, 36.05),
            ("ResNet-101", 41.78, 37.51),
            ("ResNeSt-50", 42.81, 38.14),
            ("ResNeSt-101", 45.75, 40.65),
        ),
    ),
    *_resnest(
        COCO_CASCADE_MASK.model,
        "Cascade Mask R-CNN",
        f"Table 6, {_README}",
        (
            ("ResNet-50", 43.06, 37.19),
            ("ResNet-101", 44.79, 38.52),
            ("ResNeSt-50", 46.19, 39.55),
            ("ResNeSt-101", 48.30, 41.56),
        ),
    ),
    *_resnest(
        COCO_THREE_TIMES.model,
        "Cascade Mask R-CNN",
        f"three times as many steps, {_README}",
        [("ResNeSt-200", 50.54, 44.21)],
    ),
    *(
        Trained(
            "coco",
            dataclasses.replace(COCO_TORCHVISION.model, name=f"{name}_resnet50_fpn"),
            PublishedAP(f"{head} ResNet-50 on COCO", boxes, TORCHVISION, "README", masks=masks),
        )
        for name, head, boxes, masks in (
            ("fasterrcnn", "Faster R-CNN", 37.0, None),
            ("maskrcnn", "Mask R-CNN", 37.9, 34.6),
        )
    ),
)
"""Detectors as others trained them on COCO's 118,000 images, or on SENet's 115,000 of 2014."""
