"""The fields of the detectors, see ``fields.models``."""

import dataclasses
from typing import Annotated, Literal

from senet_jax.fields.models import Width
from senet_jax.ranges import (
    LARGE,
    MOST_SIDE,
    MOST_STAGES,
    Range,
    whole,
)

Project = Literal["torchvision", "detectron2"]
Share = Annotated[float, Range(0, 1)]
Count = Annotated[int, whole(1, 2**20)]
Layers = Annotated[int, whole(0, 64)]


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class DetectorFields:
    """Fields of every detector; it has the fields of its backbone, too.

    The defaults are torchvision's. Where detectron2 differs, there is a field for it.
    """

    pyramid_width: Width = 256
    """Channels of the feature pyramid, and of the convolutions of the heads but for masks."""
    pyramid_norm: bool = False
    """Batch norm after each convolution of the pyramid, which then has no bias."""
    anchor_sizes: Annotated[
        tuple[float, ...], Range(0, MOST_SIDE, open_below=True, count=(5, 80))
    ] = (32, 64, 128, 256, 512)
    """Sides of the square anchors in pixels: as many for each of the five levels, from the finest,
    so that ten numbers are two for each level."""
    anchor_ratios: Annotated[tuple[float, ...], Range(0, 1000, open_below=True, count=(1, 16))] = (
        0.5,
        1.0,
        2.0,
    )
    """Height over width of the anchors."""
    anchor_style: Project = "torchvision"
    """Anchors are rounded to whole pixels ("torchvision") or not ("detectron2"); each has its
    own order."""
    rpn_convs: Annotated[int, whole(1, 64)] = 1
    """3x3 convolutions of the region proposal network."""
    rpn_high: Share = 0.7
    """Least IoU of an anchor with an object that makes it positive."""
    rpn_low: Share = 0.3
    """IoU below which an anchor is negative; between the two it is ignored."""
    rpn_samples: Count = 256
    """Anchors of an image whose losses count."""
    rpn_positive: Share = 0.5
    """Most of them that are positive, as a share."""
    rpn_score: Share = 0.0
    """Least score of a proposal."""
    rpn_nms: Share = 0.7
    """IoU above which the better of two proposals of a level suppresses the other."""
    pre_nms_train: Count = 2000
    """Anchors of a level with the best scores that go into that suppression in training."""
    pre_nms_test: Count = 1000
    """The same in evaluation."""
    post_nms_train: Count = 2000
    """Proposals of an image in training. detectron2's have 1000."""
    post_nms_test: Count = 1000
    """The same in evaluation."""
    rpn_normalizer: Literal["sampled", "fixed"] = "sampled"
    """The divisor of the losses of anchors: the anchors that were sampled, or the most that
    could be, ``rpn_samples`` of each image (detectron2)."""
    box_convs: Layers = 0
    """3x3 convolutions of the box head."""
    box_norm: bool = False
    """Batch norm after each of them, which then has no bias."""
    box_denses: Annotated[int, whole(1, 64)] = 2
    """Fully connected layers of the box head."""
    box_width: Width = 1024
    """Their width."""
    box_bins: Annotated[int, whole(1, 64)] = 7
    """Side of the grid that a proposal is pooled to."""
    box_high: Share = 0.5
    """Least IoU of a proposal with an object that makes it positive."""
    box_low: Share = 0.5
    """IoU below which a proposal is background; between the two it is ignored."""
    box_samples: Count = 512
    """Proposals of an image whose losses count."""
    box_positive: Share = 0.25
    """Most of them that are positive, as a share."""
    box_beta: Annotated[float, Range(0, LARGE)] = 1 / 9
    """Errors of regression count linearly above this, and squared below it (the smooth L1 loss);
    0 makes it the L1 loss, detectron2's."""
    box_outputs: Literal["all", "foreground", "agnostic"] = "all"
    """The classes that have outputs for boxes: all classes, the background too; all but the
    background (detectron2); or none, so that all classes share one, as those of a cascade always
    do. Masks have outputs for all classes, or for all but the background in the other two."""
    background: Literal["first", "last"] = "first"
    """The place of the background among the classes: torchvision's or detectron2's."""
    score_threshold: Share = 0.05
    """Scores up to this are no detections."""
    nms_threshold: Share = 0.5
    """IoU above which the better of two detections of a class suppresses the other."""
    detections: Count = 100
    """The most detections of an image."""
    roi_aligned: bool = False
    """Move RoIs by half a pixel before they are pooled, as detectron2 does."""
    roi_samples: Annotated[int, whole(0, 16)] = 2
    """Samples along each axis of a bin that a RoI is pooled to; 0 means as many as a bin has pixels
    (detectron2), but at most 8."""
    level_style: Project = "torchvision"
    """The number that keeps the level of a RoI finite: 1e-6 is added to the logarithm
    ("torchvision"), or 1e-8 to its argument ("detectron2")."""
    head_init: Project = "torchvision"
    """The initialization of the heads: detectron2 starts the outputs smaller."""
    # The module says which stages there are.
    frozen_stages: Annotated[int, whole(0, MOST_STAGES + 1)] = 0
    """Number of the last stage of the backbone that is not trained, with all before it: 1 is the
    stem. Neither their parameters nor the statistics of their norms change. torchvision and
    detectron2 have 2 with trained backbones."""
    frozen_norms: Annotated[tuple[int, ...], whole(1, MOST_STAGES + 1, count=(0, MOST_STAGES))] = ()
    """Stages of the backbone whose batch norms keep their running statistics, scales and biases in
    training; 1 is the stem. torchvision's first version has all with trained backbones."""
    frozen_epsilon: Annotated[float | None, Range(0, 1, none="their own")] = None
    """Added to the variance by the norms of those stages; None means their own. torchvision's
    released weights of the first version need frozen_norms=(1, 2, 3, 4, 5) and 0 here."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class MaskRCNNFields(DetectorFields):
    """Fields of Mask R-CNN."""

    mask_convs: Layers = 4
    """3x3 convolutions of the mask head."""
    mask_norm: bool = False
    """Batch norm after each of them, which then has no bias."""
    mask_width: Width = 256
    """Channels of the mask head."""
    mask_bins: Annotated[int, whole(1, 64)] = 14
    """Side of the grid that a box is pooled to; masks have twice that side."""
    mask_targets: Literal["soft", "binary"] = "soft"
    """Targets of the pixels of a mask: the share of the object in each, by unaligned RoIAlign
    (torchvision), or whether it is at least a half, by the aligned one (detectron2)."""
    mask_paste: Project = "torchvision"
    """The rule by which evaluation and prediction enlarge a mask to its box: cut to whole pixels
    ("torchvision"), or read at the centre of each pixel ("detectron2")."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class CascadeRCNNFields(DetectorFields):
    """Those of Cascade R-CNN."""

    later_overlaps: Annotated[tuple[float, ...], Range(0, 1, count=(1, 8))] = (0.6, 0.7)
    """A box head for each, after the first one: the least IoU of a box with an object that makes it
    positive there, below which it is background. The first one has box_high and box_low."""


@dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)
class CascadeMaskRCNNFields(MaskRCNNFields, CascadeRCNNFields):
    """Those of Cascade Mask R-CNN."""


DETECTORS: dict[str, type[DetectorFields]] = {
    "FasterRCNN": DetectorFields,
    "MaskRCNN": MaskRCNNFields,
    "CascadeRCNN": CascadeRCNNFields,
    "CascadeMaskRCNN": CascadeMaskRCNNFields,
}
"""The detectors whose fields are flags, by the names of their modules."""
