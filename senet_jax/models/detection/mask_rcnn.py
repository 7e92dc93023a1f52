"""Mask R-CNN (arXiv 1703.06870): a Faster R-CNN with a head for masks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from senet_jax.fields.detectors import MaskRCNNFields
from senet_jax.models.detection.fpn import Level
from senet_jax.models.detection.heads import MaskHead
from senet_jax.models.detection.losses import Part, binary_cross_entropy, number, total
from senet_jax.models.detection.objects import Objects, Samples, mask_targets
from senet_jax.models.detection.rcnn import FasterRCNN, Losses
from senet_jax.models.detection.rpn import Proposals
from senet_jax.ops.compute import Compute
from senet_jax.ops.per_image import per_image


class MaskRCNN(MaskRCNNFields, FasterRCNN):
    """A Faster R-CNN with a mask of each detection.

    Its detections have ``masks`` (n, k, 28, 28) too, probabilities in a grid over each box, and its
    losses ``loss_mask``. ``targets`` must have ``masks`` (n, g, height, width), 0 and 1, and may
    have ``mask_boxes`` (n, g, 4), the region of the padded image that each mask covers, such as its
    object's box; without them each mask covers the padded image.
    """

    @property
    def has_masks(self) -> bool:
        return True

    @property
    def classifiers(self) -> Sequence[str]:
        return (*super().classifiers, "mask_head/logits")

    def _masks_of(
        self,
        levels: Sequence[Level],
        boxes: Float[Array, "n k 4"],
        labels: Int[Array, "n k"],
        valid: Bool[Array, "n k"],
        compute: Compute,
        height: int,
    ) -> Float[Array, "n k side side"]:
        """Logits of the masks of RoIs of these classes; called in the compact method."""
        n, rois = valid.shape
        with_background = self.box_outputs == "all"
        head = MaskHead(
            compute=self._of_rois(compute, rois),
            convs=self.mask_convs,
            width=self.mask_width,
            norm=self.mask_norm,
            outputs=self.num_classes if with_background else self.num_classes - 1,
            start=self.head_init,
            name="mask_head",
        )
        logits = head(self._pool(levels, boxes, self.mask_bins, height), valid.reshape(-1))
        own = self._classes(labels) if with_background else jnp.maximum(labels - 1, 0)
        picked = jnp.take_along_axis(logits, own.reshape(-1, 1, 1, 1), -1)[..., 0]
        return picked.reshape(n, rois, *picked.shape[1:])

    def _detect(
        self,
        levels: Sequence[Level],
        proposals: Proposals,
        sizes: Int[Array, "n 2"],
        compute: Compute,
        height: int,
    ) -> dict[str, Array]:
        found = super()._detect(levels, proposals, sizes, compute, height)
        valid = found["valid"]
        logits = self._masks_of(levels, found["boxes"], found["labels"], valid, compute, height)
        masks = jnp.where(valid[..., None, None], jax.nn.sigmoid(logits), 0)
        return {**found, "masks": masks}

    def _mask_losses(
        self,
        levels: Sequence[Level],
        boxes: Float[Array, "n k 4"],
        samples: Samples,
        objects: Objects,
        compute: Compute,
        image: tuple[int, int],
    ) -> Losses:
        # The positive ones stand before the others.
        most = min(int(self.box_samples * self.box_positive), boxes.shape[1])
        boxes, own = boxes[:, : max(most, 1)], jax.tree.map(lambda x: x[:, : max(most, 1)], samples)
        logits = self._masks_of(levels, boxes, own.labels, own.positive, compute, image[0])
        binary = self.mask_targets == "binary"
        targets = per_image(
            lambda objects, boxes, index: mask_targets(
                objects, boxes, index, 2 * self.mask_bins, image, binary
            )
        )(objects, boxes, own.object)
        counts = jnp.broadcast_to(own.positive[..., None, None], logits.shape)
        losses = binary_cross_entropy(logits, targets)
        return {"loss_mask": Part(total(losses, counts), number(counts))}
