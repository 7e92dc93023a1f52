"""Names of detectors: torchvision's of now, and those of its first released files.

The backbone has the names that it has alone, behind a prefix. torchvision has no cascades: the box
heads of one have torchvision's names behind the number of their stage, counted from 0.
"""

import functools
import re

from senet_jax.interchange.naming.rules import BACKBONE, Naming, Rules, apply
from senet_jax.models.detection.cascade import CascadeRCNN
from senet_jax.models.detection.rcnn import STAGES, FasterRCNN

NOW: Rules = (
    (r"pyramid/inner(\d+)/conv", r"backbone.fpn.inner_blocks.\1.0"),
    (r"pyramid/inner(\d+)/bn", r"backbone.fpn.inner_blocks.\1.1"),
    (r"pyramid/layer(\d+)/conv", r"backbone.fpn.layer_blocks.\1.0"),
    (r"pyramid/layer(\d+)/bn", r"backbone.fpn.layer_blocks.\1.1"),
    (r"rpn/conv(\d+)", r"rpn.head.conv.\1.0"),
    (r"rpn/(.+)", r"rpn.head.\1"),
    (r"box_head/conv(\d+)/conv", r"roi_heads.box_head.\1.0"),
    (r"box_head/conv(\d+)/bn", r"roi_heads.box_head.\1.1"),
    (r"box_predictor/(.+)", r"roi_heads.box_predictor.\1"),
    (r"mask_head/conv(\d+)/conv", r"roi_heads.mask_head.\1.0"),
    (r"mask_head/conv(\d+)/bn", r"roi_heads.mask_head.\1.1"),
    ("mask_head/deconv", "roi_heads.mask_predictor.conv5_mask"),
    ("mask_head/logits", "roi_heads.mask_predictor.mask_fcn_logits"),
)
"""Numbers count from 0, as ``_name`` has them."""

FIRST: Rules = (
    (r"pyramid/inner(\d+)/conv", r"backbone.fpn.inner_blocks.\1"),
    (r"pyramid/layer(\d+)/conv", r"backbone.fpn.layer_blocks.\1"),
    ("rpn/conv0", "rpn.head.conv"),
    *(
        (rf"mask_head/conv{index}/conv", f"roi_heads.mask_head.mask_fcn{index + 1}")
        for index in range(8)
    ),
    *NOW,
)
"""The mask head counts from 1."""

FLAT = re.compile(r"params/box_head\d*/dense\d+/kernel")
"""Paths of dense layers whose weights have two axes in PyTorch, the first over a map too."""

TRANSPOSED = re.compile(r"params/mask_head/deconv/kernel")
"""Paths of transposed convolutions, whose weights have their inputs first in PyTorch."""

_OF_STAGE = re.compile(r"(box_head|box_predictor)(\d*)(/.+)")

_COUNTED = re.compile(r"(inner|layer|conv)(\d+)")


def namings(model: FasterRCNN, of_backbone: tuple[Naming, ...]) -> tuple[Naming, ...]:
    """The namings of a detector, first torchvision's of now.

    Args:
        model: The network.
        of_backbone: The namings of its backbone alone.
    """
    return tuple(
        functools.partial(_name, rules, model, naming)
        for rules in (NOW, FIRST)
        for naming in of_backbone
    )


def _name(rules: Rules, model: FasterRCNN, naming: Naming, path: str) -> str:
    if path.startswith(BACKBONE):
        return f"backbone.body.{naming(path.removeprefix(BACKBONE))}"
    if isinstance(model, CascadeRCNN) and (box := _OF_STAGE.fullmatch(path)):
        alone = _of_box(rules, model, f"{box[1]}{box[3]}")
        stage = int(box[2] or 1) - 1
        return alone.replace(f"roi_heads.{box[1]}.", f"roi_heads.{box[1]}.{stage}.")
    return _of_box(rules, model, path)


def _of_box(rules: Rules, model: FasterRCNN, path: str) -> str:
    """The name of a module outside of the backbone, in a detector that is no cascade."""
    if dense := re.fullmatch(r"box_head/dense(\d+)", path):
        number = int(dense[1])
        if (model.box_convs, model.box_denses) == (0, 2):
            return f"roi_heads.box_head.fc{5 + number}"
        # The convolutions and a flattening stand before; a ReLU is after each dense layer.
        return f"roi_heads.box_head.{model.box_convs + 2 * number - 1}"
    first = STAGES[0] if path.startswith("pyramid/") else 1
    return apply(rules, _COUNTED.sub(lambda count: f"{count[1]}{int(count[2]) - first}", path))
