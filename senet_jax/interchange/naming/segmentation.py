"""Names of networks of semantic segmentation: torchvision's and those of ResNeSt's authors.

Both have a backbone by the names that it has alone, behind a prefix. DeepLabV3+ is in neither: it
keeps its own names behind torchvision's backbone.
"""

import functools

from flax import linen as nn

from senet_jax.interchange.naming.rules import BACKBONE, Naming, Rules, apply
from senet_jax.models.segmentation.segmenter import FCN, DeepLabV3, DeepLabV3Plus, PSPNet

_TORCHVISION_AUX: Rules = (
    ("aux_head/layer/conv", "aux_classifier.0"),
    ("aux_head/layer/bn", "aux_classifier.1"),
    ("aux_head/classifier", "aux_classifier.4"),
)
_AUTHORS_AUX: Rules = (
    ("aux_head/layer/conv", "auxlayer.conv5.0"),
    ("aux_head/layer/bn", "auxlayer.conv5.1"),
    ("aux_head/classifier", "auxlayer.conv5.4"),
)

TORCHVISION: dict[type[nn.Module], Rules] = {
    FCN: (
        ("head/layer/conv", "classifier.0"),
        ("head/layer/bn", "classifier.1"),
        ("head/classifier", "classifier.4"),
        *_TORCHVISION_AUX,
    ),
    DeepLabV3: (
        ("head/point/conv", "classifier.0.convs.0.0"),
        ("head/point/bn", "classifier.0.convs.0.1"),
        (r"head/rate(\d+)/conv", r"classifier.0.convs.\1.0"),
        (r"head/rate(\d+)/bn", r"classifier.0.convs.\1.1"),
        ("head/pool/conv", "classifier.0.convs.{pool}.1"),
        ("head/pool/bn", "classifier.0.convs.{pool}.2"),
        ("head/project/conv", "classifier.0.project.0"),
        ("head/project/bn", "classifier.0.project.1"),
        ("head/layer/conv", "classifier.1"),
        ("head/layer/bn", "classifier.2"),
        ("head/classifier", "classifier.4"),
        *_TORCHVISION_AUX,
    ),
    DeepLabV3Plus: _TORCHVISION_AUX,
}

AUTHORS: dict[type[nn.Module], Rules] = {
    FCN: (
        ("head/layer/conv", "head.conv5.0"),
        ("head/layer/bn", "head.conv5.1"),
        ("head/classifier", "head.conv5.4"),
        *_AUTHORS_AUX,
    ),
    PSPNet: (
        (r"head/pool(\d+)/conv", r"head.conv5.0.conv\1.0"),
        (r"head/pool(\d+)/bn", r"head.conv5.0.conv\1.1"),
        ("head/layer/conv", "head.conv5.1"),
        ("head/layer/bn", "head.conv5.2"),
        ("head/classifier", "head.conv5.5"),
        *_AUTHORS_AUX,
    ),
    DeepLabV3: (
        ("head/point/conv", "head.aspp.b0.0"),
        ("head/point/bn", "head.aspp.b0.1"),
        (r"head/rate(\d+)/conv", r"head.aspp.b\1.0"),
        (r"head/rate(\d+)/bn", r"head.aspp.b\1.1"),
        ("head/pool/conv", "head.aspp.b{pool}.gap.1"),
        ("head/pool/bn", "head.aspp.b{pool}.gap.2"),
        ("head/project/conv", "head.aspp.project.0"),
        ("head/project/bn", "head.aspp.project.1"),
        ("head/layer/conv", "head.block.0"),
        ("head/layer/bn", "head.block.1"),
        ("head/classifier", "head.block.4"),
        *_AUTHORS_AUX,
    ),
}
"""PyTorch-Encoding's."""

DIALECTS = ((TORCHVISION, "backbone"), (AUTHORS, "pretrained"))
"""Rules by the class of the network, and the prefix of the backbone."""

AUXILIARY = ("aux_classifier", "auxlayer", "aux_head")
"""The auxiliary head, which only training uses."""


def namings(model: nn.Module, of_backbone: tuple[Naming, ...]) -> tuple[Naming, ...]:
    """The namings of a network, first that in which it is published.

    Args:
        model: The network.
        of_backbone: The namings of its backbone alone.
    """
    return tuple(
        functools.partial(_name, dialect[type(model)], prefix, model, naming)
        for dialect, prefix in DIALECTS
        if type(model) in dialect
        for naming in of_backbone
    )


def _name(rules: Rules, prefix: str, model: nn.Module, naming: Naming, path: str) -> str:
    if path.startswith(BACKBONE):
        return f"{prefix}.{naming(path.removeprefix(BACKBONE))}"
    # The branch of the mean comes after those of the rates.
    pool = len(getattr(model, "rates", ())) + 1
    return apply(rules, path).replace("{pool}", str(pool))
