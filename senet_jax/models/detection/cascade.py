"""Cascade R-CNN (arXiv 1712.00726): box heads in a row, each trained on the boxes of the last.

The details are those of detectron2: one stage alone samples proposals, the later ones match all
boxes of the stage before, and each stage passes an equal share of its gradient to the features.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from senet_jax.errors import UsageError
from senet_jax.fields.detectors import CascadeMaskRCNNFields, CascadeRCNNFields
from senet_jax.models.detection.fpn import Level
from senet_jax.models.detection.mask_rcnn import MaskRCNN
from senet_jax.models.detection.objects import Matching, Objects, Samples, all_matched
from senet_jax.models.detection.rcnn import FasterRCNN, Losses, clip_to
from senet_jax.models.detection.rpn import Proposals
from senet_jax.ops import boxes as box_ops
from senet_jax.ops.compute import Compute
from senet_jax.ops.per_image import per_image


class CascadeRCNN(CascadeRCNNFields, FasterRCNN):
    """A Faster R-CNN whose boxes pass through several box heads, its stages.

    Each stage has a head of its own (``box_head``, ``box_head2``, ...), classifies the boxes of the
    stage before it and moves them. In training, boxes of stage s are objects from an IoU of
    ``box_high`` in stage 1 and of ``later_overlaps`` afterwards; targets of boxes are multiplied by
    s times (10, 10, 5, 5). Boxes pass no gradient to the stage before. Losses of stage 2 are
    ``loss_classifier_2`` and ``loss_box_reg_2``, and so on; all are summed without weights.
    Detections have the boxes of the last stage and the mean of the scores of all stages.

    With ``mutable="intermediates"``, evaluation keeps the boxes of each stage beside the
    ``proposals``, in the tuples ``boxes``, ``boxes2`` and so on: (n, p, 4), in pixels of the padded
    image. Row k is the k-th proposal as the stages up to this one moved it.

    Raises:
        UsageError: As ``FasterRCNN``, and ``box_outputs`` other than "agnostic".
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.box_outputs != "agnostic":
            raise UsageError(
                "a cascade has one box for all classes: box_outputs must be agnostic, not "
                f"{self.box_outputs}."
            )

    @property
    def stages(self) -> range:
        """The numbers of the stages, from 1."""
        return range(1, len(self.later_overlaps) + 2)

    @property
    def classifiers(self) -> Sequence[str]:
        later = [f"box_predictor{suffix_of(stage)}" for stage in self.stages[1:]]
        outputs = (f"{name}/{output}" for name in later for output in ("cls_score", "bbox_pred"))
        return (*super().classifiers, *outputs)

    def _outputs_of(
        self,
        stage: int,
        levels: Sequence[Level],
        boxes: Float[Array, "n k 4"],
        valid: Bool[Array, "n k"],
        compute: Compute,
        height: int,
    ) -> tuple[Float[Array, "n k classes"], Float[Array, "n k boxes 4"]]:
        """Logits of the classes and deltas of a stage; called in the compact method."""
        pooled = self._pool(levels, boxes, self.box_bins, height)
        pooled = scale_gradient(pooled, 1 / len(self.stages))
        return self._box_outputs(pooled, valid, compute, suffix_of(stage))

    def _moved(
        self,
        stage: int,
        deltas: Float[Array, "n k 1 4"],
        boxes: Float[Array, "n k 4"],
        sizes: Int[Array, "n 2"],
    ) -> Float[Array, "n k 4"]:
        """The boxes of a stage, within the images."""
        moved = box_ops.decode(deltas[..., 0, :], boxes, stage_weights(stage))
        return per_image(clip_to)(moved, sizes)

    def _detect(
        self,
        levels: Sequence[Level],
        proposals: Proposals,
        sizes: Int[Array, "n 2"],
        compute: Compute,
        height: int,
    ) -> dict[str, Array]:
        boxes, valid = proposals.boxes, proposals.valid
        scores = []
        for stage in self.stages:
            logits, deltas = self._outputs_of(stage, levels, boxes, valid, compute, height)
            scores.append(jax.nn.softmax(logits))
            boxes = self._moved(stage, deltas, boxes, sizes)
            self.sow("intermediates", f"boxes{suffix_of(stage)}", boxes)
        mean = jnp.stack(scores).mean(0)
        return self._best(mean, boxes[..., None, :], valid)

    def _box_losses(
        self,
        levels: Sequence[Level],
        boxes: Float[Array, "n k 4"],
        samples: Samples,
        objects: Objects,
        sizes: Int[Array, "n 2"],
        compute: Compute,
        height: int,
    ) -> Losses:
        objects = objects._replace(masks=None, regions=None)
        logits, deltas = self._outputs_of(1, levels, boxes, samples.valid, compute, height)
        losses = self._losses_of(logits, deltas, samples)
        for stage, overlap in zip(self.stages[1:], self.later_overlaps, strict=True):
            boxes = jax.lax.stop_gradient(self._moved(stage - 1, deltas, boxes, sizes))
            how = Matching(overlap, overlap, False, 0, 0, stage_weights(stage))
            boxes, samples = per_image(functools.partial(_matched, how))(
                boxes, samples.valid, objects
            )
            self.sow("intermediates", f"box_samples{suffix_of(stage)}", samples)
            logits, deltas = self._outputs_of(stage, levels, boxes, samples.valid, compute, height)
            losses |= self._losses_of(logits, deltas, samples, f"_{stage}")
        return losses


def _matched(
    how: Matching,
    boxes: Float[Array, "k 4"],
    valid: Bool[Array, " k"],
    objects: Objects,
) -> tuple[Float[Array, "k 4"], Samples]:
    """The boxes of the last stage and their targets in the next; empty boxes do not train."""
    samples = all_matched(objects, boxes, valid & ~box_ops.degenerate(boxes), how)
    # A box that does not train may be of any size, infinite too.
    return jnp.where(samples.valid[:, None], boxes, 0), samples


class CascadeMaskRCNN(CascadeMaskRCNNFields, MaskRCNN, CascadeRCNN):
    """A Cascade R-CNN with a mask of each detection.

    There is one mask head, as in :class:`MaskRCNN`. It is trained on the proposals of stage 1 and
    applied to the boxes of the last stage.
    """


def suffix_of(stage: int) -> str:
    """The end of the names of the modules of a stage; stage 1 has the names of a Faster R-CNN."""
    return str(stage) if stage > 1 else ""


def stage_weights(stage: int) -> box_ops.Weights:
    """The factors of the targets of boxes in a stage, counted from 1."""
    x, y, width, height = (stage * weight for weight in box_ops.BOX_WEIGHTS)
    return x, y, width, height


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def scale_gradient(x: Float[Array, "*dims"], factor: float) -> Float[Array, "*dims"]:
    """The array itself, whose gradient is multiplied by a factor."""
    return x


def _same(x: Array, factor: float) -> tuple[Array, None]:
    return x, None


def _scaled(factor: float, _: None, cotangent: Array) -> tuple[Array]:
    return (factor * cotangent,)


scale_gradient.defvjp(_same, _scaled)
