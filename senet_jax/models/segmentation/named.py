"""The names of networks of semantic segmentation: ``HEAD_BACKBONE``, such as ``fcn_resnet50``."""

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from senet_jax.models.backbone import Backbone
from senet_jax.models.resnet import ResNet
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

OUTPUT_STRIDE = 8
"""Output stride of the ResNets under a head: that of torchvision and of ResNeSt's authors."""

_OF_LINEN = ("parent", "name")
_SET_HERE = ("backbone", "features_only", "features_by")


def split(name: str) -> tuple[str, str] | None:
    """Head and backbone of the name of a network; None if it begins with no head."""
    head, _, backbone = name.partition("_")
    return (head, backbone) if head in HEADS and backbone else None


def classifier(name: str) -> str:
    """The name of the backbone of a network."""
    parts = split(name)
    assert parts, name
    return parts[1]


def segmenter(head: str, backbone: Callable[..., nn.Module], **fields: Any) -> Segmenter:
    """Builds a network.

    Args:
        head: A name of ``HEADS``.
        backbone: Constructor of the backbone. A ResNet gets the output stride 8 and the dilated
            form of ResNeSt's authors.
        **fields: Fields of the head and of ``Segmenter``; all others are the backbone's.

    Raises:
        UsageError: A field that does not fit, or a backbone that lacks a stage.
    """
    kind = HEADS[head]
    own = {field.name for field in dataclasses.fields(kind)}
    of_backbone = {name: value for name, value in fields.items() if name not in own}
    if isinstance(backbone(), ResNet):
        of_backbone = {"output_stride": OUTPUT_STRIDE, "dilated": "authors", **of_backbone}
    rest = {name: value for name, value in fields.items() if name in own}
    network = backbone(**of_backbone)
    assert isinstance(network, Backbone)
    return kind(backbone=network, **rest)


def field_names(model: Segmenter) -> list[str]:
    """The fields of a network that ``create_model`` takes, those of its backbone included."""
    both = [*dataclasses.fields(model), *dataclasses.fields(model.backbone)]
    names = dict.fromkeys(field.name for field in both)
    return [name for name in names if name not in (*_OF_LINEN, *_SET_HERE)]
