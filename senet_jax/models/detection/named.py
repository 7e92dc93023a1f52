"""The names of detectors: ``HEAD_BACKBONE_fpn`` and ``HEAD_BACKBONE_fpn_v2``."""

import re
from typing import Any

from senet_jax.models.detection.cascade import CascadeMaskRCNN, CascadeRCNN
from senet_jax.models.detection.mask_rcnn import MaskRCNN
from senet_jax.models.detection.rcnn import FasterRCNN

HEADS: dict[str, type[FasterRCNN]] = {
    "fasterrcnn": FasterRCNN,
    "maskrcnn": MaskRCNN,
    "cascadercnn": CascadeRCNN,
    "cascademaskrcnn": CascadeMaskRCNN,
}

SECOND: dict[str, Any] = {
    "pyramid_norm": True,
    "rpn_convs": 2,
    "box_convs": 4,
    "box_denses": 1,
    "box_norm": True,
}
"""The fields of the second version, which has the heads of ResNeSt's detectors (arXiv 2004.08955,
section 6.1), too."""

PUBLISHED = tuple(
    (head, "resnet50", second) for head in ("fasterrcnn", "maskrcnn") for second in (False, True)
)
"""Heads, backbones and versions of torchvision's detectors, which equal those of the same names
here."""

SIDE = 800
"""Shorter side of the images that the detectors were published for, pixels."""

_NAME = re.compile(rf"({'|'.join(HEADS)})_(.+)_fpn(_v2)?")


def split(name: str) -> tuple[str, str, bool] | None:
    """Head and backbone of the name of a detector, and whether it is of the second version.

    None if it is no such name.
    """
    match = _NAME.fullmatch(name)
    return (match[1], match[2], bool(match[3])) if match else None


def fields(head: str, second: bool) -> dict[str, Any]:
    """The fields in which a named detector differs from the defaults of its module."""
    own: dict[str, Any] = (
        {"box_outputs": "agnostic"} if issubclass(HEADS[head], CascadeRCNN) else {}
    )
    if second:
        own |= SECOND | ({"mask_norm": True} if has_masks(head) else {})
    return own


def has_masks(name: str) -> bool:
    """Says if a head, or a detector of a name that begins with one, has masks."""
    return name.partition("_")[0].endswith("maskrcnn")


def name_of(head: str, backbone: str, second: bool) -> str:
    """The name that ``split`` takes apart."""
    return f"{head}_{backbone}_fpn{'_v2' if second else ''}"
