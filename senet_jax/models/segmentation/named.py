"""The names of networks of semantic segmentation: ``HEAD_BACKBONE``, such as ``fcn_resnet50``."""

from senet_jax.models.segmentation.segmenter import FCN, DeepLabV3, DeepLabV3Plus, PSPNet, Segmenter

HEADS: dict[str, type[Segmenter]] = {
    "fcn": FCN,
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "pspnet": PSPNet,
}

PUBLISHED = tuple((head, f"resnet{depth}") for head in ("fcn", "deeplabv3") for depth in (50, 101))
"""Heads and backbones of torchvision's networks, which equal those of the same names here."""

SIDE = 480
"""Side of the crops that torchvision and ResNeSt's authors train on, pixels."""


def split(name: str) -> tuple[str, str] | None:
    """Head and backbone of the name of a network; None if it begins with no head."""
    head, _, backbone = name.partition("_")
    return (head, backbone) if head in HEADS and backbone else None
