"""The region proposal network (Faster R-CNN, arXiv 1506.01497): boxes that may have an object."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from senet_jax.models.detection.fpn import Level
from senet_jax.ops import boxes as box_ops
from senet_jax.ops.compute import Compute
from senet_jax.ops.nms import best, group_step, nms
from senet_jax.ops.precision import accurate

SMALL = nn.initializers.normal(0.01)
LEAST_SIDE = 1e-3
"""Least side of a proposal, pixels."""


class RPNHead(nn.Module):
    """Convolutions that all levels share, a logit and four numbers of a box for each anchor."""

    compute: Compute
    """Precision of its layers; the outputs are at least in float32."""
    width: int
    """See ``DetectorFields.pyramid_width``."""
    convs: int
    """See ``DetectorFields.rpn_convs``."""
    anchors: int
    """Anchors of a pixel."""

    @nn.compact
    def __call__(
        self, levels: Sequence[Level]
    ) -> tuple[list[Float[Array, "n _"]], list[Float[Array, "n _ 4"]]]:
        """Applies the head.

        Returns:
            For each level, logits (n, h * w * anchors) and deltas (n, h * w * anchors, 4).
        """

        def conv(width: int, kernel_size: int, name: str, compute: Compute) -> nn.Module:
            return compute.conv(width, kernel_size, use_bias=True, kernel_init=SMALL, name=name)

        convs = [
            conv(self.width, 3, f"conv{index}", self.compute) for index in range(1, self.convs + 1)
        ]
        outputs = self.compute.within(accurate(levels[0].dtype))
        cls_logits = conv(self.anchors, 1, "cls_logits", outputs)
        bbox_pred = conv(4 * self.anchors, 1, "bbox_pred", outputs)
        logits, deltas = [], []
        for x in levels:
            for each in convs:
                x = nn.relu(each(x))
            x = x.astype(accurate(x.dtype))
            logits.append(cls_logits(x).reshape(len(x), -1))
            deltas.append(bbox_pred(x).reshape(len(x), -1, 4))
        return logits, deltas


class Proposals(NamedTuple):
    """Boxes of an image that may have an object, best first."""

    boxes: Float[Array, "k 4"]
    scores: Float[Array, " k"]
    valid: Bool[Array, " k"]


@dataclasses.dataclass(frozen=True)
class Selection:
    """The choice of proposals, see the fields of the detector."""

    per_level: int
    count: int
    overlap: float
    least_score: float


def propose(
    logits: Sequence[Float[Array, " _"]],
    deltas: Sequence[Float[Array, "_ 4"]],
    size: Int[Array, " 2"],
    anchors: Sequence[Float[np.ndarray, "_ 4"]],
    selection: Selection,
) -> Proposals:
    """The proposals of one image, without a gradient.

    Args:
        logits: Logits of the anchors of each level.
        deltas: Deltas of the anchors of each level.
        size: Rows and columns of the image without its padding.
        anchors: Anchors of each level.
        selection: The choice of proposals.
    """
    height, width = size[0].astype(jnp.float32), size[1].astype(jnp.float32)
    found = []
    for own, of_level, around in zip(logits, deltas, anchors, strict=True):
        own, of_level = lax.stop_gradient((own, of_level))
        top, index = lax.top_k(own, min(selection.per_level, len(around)))
        boxes = box_ops.decode(of_level[index], jnp.asarray(around)[index])
        boxes = box_ops.clip(boxes, height, width)
        scores = jax.nn.sigmoid(top)
        valid = box_ops.reaches(boxes, LEAST_SIDE) & (scores >= selection.least_score)
        found.append((boxes, scores, valid))
    boxes, scores, valid = (jnp.concatenate(each) for each in zip(*found, strict=True))
    step = group_step(boxes, valid)
    shift, kept = jnp.zeros_like(step), []
    for own_boxes, own_scores, own_valid in found:
        moved = own_boxes + shift
        kept.append(nms(moved, own_scores, selection.overlap, valid=own_valid))
        # A sum, as a fused multiplication would round only once.
        shift += step
    index, valid = best(scores, jnp.concatenate(kept), selection.count)
    return Proposals(boxes[index], scores[index], valid)
