"""The fields of the networks of semantic segmentation, see ``fields.models``."""

import dataclasses
from typing import Annotated

from senet_jax.fields.models import Rate, Width
from senet_jax.ranges import (
    MOST_SIDE,
    MOST_STAGES,
    MOST_WIDTH,
    whole,
)


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class SegmenterFields:
    """Fields of every network of semantic segmentation; it has the fields of its backbone, too."""

    aux: bool = True
    """Have an auxiliary head, an FCN whose loss is added in training (PSPNet, section 3.3)."""
    align_corners: bool = False
    """Enlarge maps, logits too, so that the centres of the corner pixels stay; if False, the edges
    of the map stay. Weights are for one of the two: torchvision's for False, those of
    ResNeSt's authors for True."""
    dropout: Rate = 0.1
    """Rate of dropout before the classifier of the head."""
    aux_dropout: Rate = 0.1
    """Rate of dropout before the classifier of the auxiliary head."""
    # The module says which stages there are.
    frozen_norms: Annotated[tuple[int, ...], whole(1, MOST_STAGES + 1, count=(0, MOST_STAGES))] = ()
    """Stages of the backbone whose batch norms keep their running statistics in training; 1 is the
    stem. Their scales and biases are trained."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class PSPNetFields(SegmenterFields):
    """Fields of PSPNet."""

    grids: Annotated[tuple[int, ...], whole(1, 64, count=(1, 16))] = (1, 2, 3, 6)
    """Sides of the grids of regions that the map is averaged over."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class DeepLabV3Fields(SegmenterFields):
    """Fields of DeepLabV3."""

    dropout: Rate = 0.0
    """Rate of dropout before the classifier of the head. torchvision has none, ResNeSt's authors
    have 0.1."""
    head_width: Width = 256
    """Channels of the head."""
    rates: Annotated[tuple[int, ...], whole(1, MOST_SIDE, count=(1, 16))] = (12, 24, 36)
    """Dilations of its 3x3 convolutions: those of the paper for an output stride of 8. For 16 the
    paper has half of them."""
    aspp_dropout: Rate = 0.5
    """Rate of dropout after the pyramid."""
    drop_channels: bool = False
    """Let that dropout take away whole channels of an image, as ResNeSt's authors do, rather than
    single values."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class DeepLabV3PlusFields(DeepLabV3Fields):
    """Fields of DeepLabV3+."""

    low_width: Width = 48
    """Channels that the map of stage 2 is reduced to, and that of the stem."""
    decoder_layers: Annotated[int, whole(1, 8)] = 2
    """3x3 layers of the decoder (Table 2 of the paper: two are best)."""
    refine_width: Annotated[int | None, whole(1, MOST_WIDTH, none="no refinement")] = None
    """Channels of a 3x3 layer that reads the decoder's map, reduced to as many channels and
    enlarged, beside the map of the stem before its pool. A classifier on it, which starts at zero,
    gives each pixel of the image a correction of its logits: for outlines finer than the stride of
    stage 2. None leaves it out, as the paper does."""


SEGMENTERS: dict[str, type[SegmenterFields]] = {
    "FCN": SegmenterFields,
    "PSPNet": PSPNetFields,
    "DeepLabV3": DeepLabV3Fields,
    "DeepLabV3Plus": DeepLabV3PlusFields,
}
"""The networks of semantic segmentation whose fields are flags, by the names of their modules."""
