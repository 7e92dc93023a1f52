"""Faster R-CNN (arXiv 1506.01497) with a feature pyramid.

The names are in :mod:`senet_jax.models.detection.named`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from senet_jax.attention import Mechanism
from senet_jax.errors import UsageError
from senet_jax.fields.detectors import DetectorFields
from senet_jax.models.backbone import Backbone, check_images
from senet_jax.models.detection.fpn import FeaturePyramid, Level
from senet_jax.models.detection.heads import BoxHead, BoxPredictor
from senet_jax.models.detection.losses import (
    Part,
    binary_cross_entropy,
    cross_entropy,
    number,
    smooth_l1,
    total,
)
from senet_jax.models.detection.objects import (
    Matching,
    Objects,
    Samples,
    draw,
    read_objects,
)
from senet_jax.models.detection.rpn import Proposals, RPNHead, Selection, propose
from senet_jax.models.frozen import check_stages, frozen_norms, frozen_stages
from senet_jax.ops import boxes as box_ops
from senet_jax.ops.anchors import pyramid_anchors
from senet_jax.ops.compute import Compute
from senet_jax.ops.nms import group_step, nms_best
from senet_jax.ops.per_image import per_image
from senet_jax.ops.roi_align import assign_levels, nearest_scale, roi_align
from senet_jax.ranges import CLASSES, check_fields

STAGES = (2, 3, 4, 5)
"""The stages whose maps the pyramid is made of."""
LEVELS = len(STAGES) + 1
LEAST_SIDE = 1e-2
"""Least side of a detection, pixels."""

Losses = dict[str, Part]


def clip_to(boxes: Float[Array, "*dims 4"], size: Int[Array, " 2"]) -> Float[Array, "*dims 4"]:
    """Boxes within the image without its padding."""
    return box_ops.clip(boxes, size[0].astype(jnp.float32), size[1].astype(jnp.float32))


class FasterRCNN(DetectorFields, nn.Module, kw_only=True):
    """A network that finds objects: their boxes and classes.

    In evaluation, ``model.apply(variables, images, sizes, train=False)`` gives ``{"boxes": (n, k,
    4), "labels": (n, k), "scores": (n, k), "valid": (n, k)}``, best first: boxes (x1, y1, x2, y2)
    in pixels of the padded image, labels from 1, and False where an image has fewer detections,
    whose other numbers then are 0. In training, ``model.apply(variables, images, sizes, targets,
    train=True, rngs={"dropout": ..., "sampling": ...}, mutable=["batch_stats"])`` gives the losses
    ``loss_objectness``, ``loss_rpn_box_reg``, ``loss_classifier`` and ``loss_box_reg``, numbers
    whose sum is minimised. Each is a sum over the whole batch over a count of the whole batch that
    the sampling decides; the method ``loss_parts`` gives the two apart.

    With ``mutable="intermediates"``, evaluation returns a second value, in whose "intermediates"
    the tuple ``proposals`` has the :class:`Proposals` of the batch: boxes (n, p, 4) in pixels of
    the padded image, scores (n, p) from 0 to 1 and valid (n, p), best first.

    Variables are ``params`` and ``batch_stats``. Precision and ``norm_group``, a number of images,
    are fields of the backbone and hold for the heads too.

    ``targets`` are arrays by name: ``boxes`` (n, g, 4) in pixels of the padded image, ``labels``
    (n, g) from 1, ``valid`` (n, g), and if there are crowds ``crowd`` (n, g). Crowds are no
    objects: an anchor or proposal of which most lies in one is not background either. Arrays of
    masks may be there and are not read.

    torchvision infers the scales of RoIAlign from the sizes before padding, and here they follow
    from the padded images. The two differ where all images of a batch have less than 68 rows.

    Raises:
        UsageError: A field that does not fit, or a backbone that lacks a stage; when it is called,
            what the backbone does not take, or targets that are missing or of another shape.
    """

    backbone: Backbone
    """The network that makes the feature maps. Its head is left out."""
    num_classes: Annotated[int, CLASSES] = 91
    """Number of classes with the background; a run has the classes of its data set and one more."""

    def __post_init__(self) -> None:
        check_fields(self)
        numbers = tuple(self.backbone.stage_numbers)
        if not set(STAGES) <= set(numbers):
            raise UsageError(
                f"a feature pyramid needs a backbone with the stages 2 to 5, and "
                f"{type(self.backbone).__name__} has the stages {', '.join(map(str, numbers))} "
                "here: choose a network of ImageNet such as resnet50."
            )
        if self.num_classes < 2:
            raise UsageError("num_classes counts the background, so it must be at least 2.")
        for first, second in (("rpn_low", "rpn_high"), ("box_low", "box_high")):
            if getattr(self, first) > getattr(self, second):
                raise UsageError(f"{first} must be at most {second}.")
        if len(self.anchor_sizes) % LEVELS:
            raise UsageError(
                f"anchor_sizes must be as many for each of the {LEVELS} levels, and there are "
                f"{len(self.anchor_sizes)}."
            )
        check_stages(self.backbone, self.frozen_norms)
        if self.frozen_stages > numbers[-1]:
            raise UsageError(
                f"frozen_stages: stage {self.frozen_stages} does not exist: the last one is "
                f"{numbers[-1]}."
            )
        self.backbone = self.backbone.clone(features_only=True, features_by="stage")
        super().__post_init__()

    @property
    def attention(self) -> Mechanism | None:
        """The attention of the backbone."""
        return self.backbone.attention

    @property
    def stage_numbers(self) -> Sequence[int]:
        """Numbers of the stages of the backbone that can carry attention."""
        return self.backbone.stage_numbers

    @property
    def drop_block(self) -> float:
        """Rate of DropBlock of the backbone."""
        return getattr(self.backbone, "drop_block", 0.0)

    @property
    def classifiers(self) -> Sequence[str]:
        """Modules whose shapes depend on the number of classes, first that of the logits."""
        return ("box_predictor/cls_score", "box_predictor/bbox_pred")

    def is_frozen(self, path: Sequence[str]) -> bool:
        """Says if the parameter at a path gets no gradient, so that it must not decay either."""
        if path[0] != "backbone":
            return False
        stage = self.backbone.stage_of(path[1])
        of_norm = path[-1] == "scale" or "bn" in path[-2]
        return stage <= self.frozen_stages or (stage in self.frozen_norms and of_norm)

    def __call__(
        self,
        images: Float[Array, "n h w c"],
        sizes: Int[Array, "n 2"] | None = None,
        targets: Mapping[str, Any] | None = None,
        train: bool = False,
        **arguments: Any,
    ) -> dict[str, Array]:
        """Applies the network.

        Args:
            images: Normalized images, padded at the bottom and the right. What the padding holds
                does not matter: it counts as 0.
            sizes: Rows and columns of each without padding. If None, none is padded.
            targets: The objects, which training alone reads.
            train: Normalize with the batch's statistics, and return the losses.
            **arguments: Others of the backbone, such as ``drop_block_scale``.
        """
        if not train:
            return self._apply(images, sizes, None, arguments)
        parts = self.loss_parts(images, sizes, targets, **arguments)
        return {name: part.mean for name, part in parts.items()}

    def loss_parts(
        self,
        images: Float[Array, "n h w c"],
        sizes: Int[Array, "n 2"] | None,
        targets: Mapping[str, Any] | None,
        **arguments: Any,
    ) -> Losses:
        """The losses of training as sums and the counts that they are divided by.

        Args:
            images: See ``__call__``.
            sizes: Likewise.
            targets: The objects.
            **arguments: See ``__call__``.
        """
        if targets is None:
            raise UsageError("a detector needs targets in training.")
        objects = read_objects(targets, len(images), self.has_masks)
        found: Losses = self._apply(images, sizes, objects, arguments)
        return found

    @property
    def has_masks(self) -> bool:
        """Tells whether there is a mask head."""
        return False

    @nn.compact
    def _apply(
        self,
        images: Float[Array, "n h w c"],
        sizes: Int[Array, "n 2"] | None,
        objects: Objects | None,
        arguments: Mapping[str, Any],
    ) -> Any:
        """The detections, or if there are objects the losses."""
        train = objects is not None
        check_images(images)
        n, height, width = images.shape[:3]
        if sizes is None:
            sizes = jnp.tile(jnp.array([height, width], jnp.int32), (n, 1))
        inside = (jnp.arange(height) < sizes[:, :1])[:, :, None]
        inside &= (jnp.arange(width) < sizes[:, 1:])[:, None]
        images = jnp.where(inside[..., None], images, 0)
        compute = self.backbone.compute(train)
        levels = self._pyramid(images, compute, arguments)
        anchors = self.anchors((height, width), [level.shape[1:3] for level in levels])
        head = RPNHead(
            compute,
            self.pyramid_width,
            self.rpn_convs,
            len(self.anchor_ratios) * len(self.sizes_by_level[0]),
            name="rpn",
        )
        logits, deltas = head(levels)
        selection = Selection(
            self.pre_nms_train if train else self.pre_nms_test,
            self.post_nms_train if train else self.post_nms_test,
            self.rpn_nms,
            self.rpn_score,
        )
        proposals = per_image(
            lambda logits, deltas, size: propose(logits, deltas, size, anchors, selection)
        )(logits, deltas, sizes)
        if objects is None:
            self.sow("intermediates", "proposals", proposals)
            return self._detect(levels, proposals, sizes, compute, height)

        key = self.make_rng("sampling")
        keys = jax.vmap(lambda image: jax.random.split(jax.random.fold_in(key, image)))(
            jnp.arange(n)
        )
        losses = self._rpn_losses(logits, deltas, anchors, keys[:, 0], objects)
        boxes, samples = per_image(self._draw_proposals)(keys[:, 1], objects, proposals)
        self.sow("intermediates", "box_samples", samples)
        losses |= self._box_losses(levels, boxes, samples, objects, sizes, compute, height)
        return losses | self._mask_losses(levels, boxes, samples, objects, compute, (height, width))

    def anchors(
        self, image: tuple[int, int], grids: Sequence[tuple[int, ...]]
    ) -> list[Float[np.ndarray, "_ 4"]]:
        """The anchors of each level.

        Args:
            image: Rows and columns of the padded image.
            grids: Rows and columns of the levels.
        """
        pairs = [(grid[0], grid[1]) for grid in grids]
        return pyramid_anchors(
            image, pairs, self.sizes_by_level, self.anchor_ratios, self.anchor_style
        )

    @property
    def sizes_by_level(self) -> list[tuple[float, ...]]:
        """The sizes of the anchors of each level."""
        of_level = len(self.anchor_sizes) // LEVELS
        starts = range(0, len(self.anchor_sizes), of_level)
        return [self.anchor_sizes[start : start + of_level] for start in starts]

    def _pyramid(
        self, images: Float[Array, "n h w colors"], compute: Compute, arguments: Mapping[str, Any]
    ) -> list[Level]:
        """The levels of the pyramid; called in the compact method."""
        until = range(1, self.frozen_stages + 1)
        with (
            frozen_norms(self.backbone, [s for s in until if s not in self.frozen_norms]),
            frozen_norms(
                self.backbone, self.frozen_norms, constant=True, epsilon=self.frozen_epsilon
            ),
            frozen_stages(self.backbone, self.frozen_stages),
        ):
            maps = self.backbone(images, compute.train, **arguments)
        pyramid = FeaturePyramid(compute, self.pyramid_width, self.pyramid_norm, name="pyramid")
        return pyramid({stage: maps[stage] for stage in STAGES})

    def _pool(
        self, levels: Sequence[Level], boxes: Float[Array, "n k 4"], bins: int, height: int
    ) -> Float[Array, "nk p q c"]:
        """The features of the RoIs of all images, (n * k, bins, bins, channels)."""
        own = list(levels[:-1])
        scales = [nearest_scale(level.shape[1], height) for level in own]
        lowest, highest = (round(-np.log2(scales[at])) for at in (0, -1))

        def pool(levels: Sequence[Array], boxes: Float[Array, "k 4"]) -> Array:
            return roi_align(
                levels,
                boxes,
                assign_levels(boxes, lowest, highest, style=self.level_style),
                scales,
                bins,
                sampling=self.roi_samples or None,
                aligned=self.roi_aligned,
            )

        pooled = per_image(pool)(own, boxes)
        return pooled.reshape(-1, *pooled.shape[2:])

    @staticmethod
    def _of_rois(compute: Compute, rois: int) -> Compute:
        """The precision and norms of layers whose batch has so many RoIs for each image."""
        group = compute.norm_group
        return dataclasses.replace(compute, norm_group=group and group * rois)

    def _boxes_of(
        self,
        levels: Sequence[Level],
        boxes: Float[Array, "n k 4"],
        valid: Bool[Array, "n k"],
        compute: Compute,
        height: int,
    ) -> tuple[Float[Array, "n k classes"], Float[Array, "n k boxes 4"]]:
        """Logits of the classes of RoIs, and deltas; called in the compact method."""
        return self._box_outputs(self._pool(levels, boxes, self.box_bins, height), valid, compute)

    def _box_outputs(
        self,
        pooled: Float[Array, "nk p q c"],
        valid: Bool[Array, "n k"],
        compute: Compute,
        suffix: str = "",
    ) -> tuple[Float[Array, "n k classes"], Float[Array, "n k boxes 4"]]:
        """Logits of the classes of RoIs, and deltas, from the features of the RoIs.

        Called in the compact method.

        Args:
            pooled: The features.
            valid: False for RoIs that are padding.
            compute: Precision and norms of the layers.
            suffix: The end of the names of the modules.
        """
        n, rois = valid.shape
        head = BoxHead(
            compute=self._of_rois(compute, rois),
            convs=self.box_convs,
            conv_width=self.pyramid_width,
            norm=self.box_norm,
            denses=self.box_denses,
            width=self.box_width,
            start=self.head_init,
            name=f"box_head{suffix}",
        )
        x = head(pooled, valid.reshape(-1))
        outputs = {"all": self.num_classes, "foreground": self.num_classes - 1, "agnostic": 1}
        predictor = BoxPredictor(
            num_classes=self.num_classes,
            boxes=outputs[self.box_outputs],
            start=self.head_init,
            name=f"box_predictor{suffix}",
        )
        logits, deltas = predictor(x)
        return (
            logits.reshape(n, rois, -1),
            deltas.reshape(n, rois, *deltas.shape[1:]),
        )

    def _foreground(self, x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
        """The outputs of all classes but the background."""
        start = 1 if self.background == "first" else 0
        return jax.lax.slice_in_dim(x, start, start + self.num_classes - 1, axis=axis)

    def _classes(self, labels: Int[Array, "*dims"]) -> Int[Array, "*dims"]:
        """The numbers of classes among the outputs, of labels from 1 and 0 for the background."""
        if self.background == "first":
            return labels
        return jnp.where(labels > 0, labels - 1, self.num_classes - 1)

    def _foreground_boxes(self, deltas: Float[Array, "*dims b 4"]) -> Float[Array, "*dims b2 4"]:
        """The deltas of all classes but the background, or the one of all classes."""
        if self.box_outputs == "all":
            return self._foreground(deltas, deltas.ndim - 2)
        return deltas

    def _detect(
        self,
        levels: Sequence[Level],
        proposals: Proposals,
        sizes: Int[Array, "n 2"],
        compute: Compute,
        height: int,
    ) -> dict[str, Array]:
        """The detections; called in the compact method."""
        logits, deltas = self._boxes_of(levels, proposals.boxes, proposals.valid, compute, height)

        def decode(deltas: Array, boxes: Array, size: Array) -> Array:
            found = box_ops.decode(
                self._foreground_boxes(deltas), boxes[:, None], box_ops.BOX_WEIGHTS
            )
            return clip_to(found, size)

        boxes = per_image(decode)(deltas, proposals.boxes, sizes)
        return self._best(jax.nn.softmax(logits), boxes, proposals.valid)

    def _best(
        self,
        scores: Float[Array, "n k classes"],
        boxes: Float[Array, "n k boxes 4"],
        valid: Bool[Array, "n k"],
    ) -> dict[str, Array]:
        """The detections among the boxes of RoIs.

        Args:
            scores: Probabilities of the classes.
            boxes: A box of each class but the background, or one of all classes.
            valid: False for RoIs that are padding.
        """

        def best(scores: Array, boxes: Array, valid: Array) -> dict[str, Array]:
            rois, classes = len(scores), self.num_classes - 1
            boxes = jnp.broadcast_to(boxes, (rois, classes, 4)).reshape(-1, 4)
            scores = self._foreground(scores, 1)
            valid = valid[:, None] & (scores > self.score_threshold)
            valid = valid.reshape(-1) & box_ops.reaches(boxes, LEAST_SIDE)
            labels = jnp.tile(jnp.arange(1, classes + 1, dtype=jnp.int32), rois)
            scores = scores.reshape(-1)
            index, kept = nms_best(
                boxes,
                scores,
                self.nms_threshold,
                self.detections,
                valid=valid,
                groups=labels,
                shift=labels * group_step(boxes, valid),
            )
            return {
                "boxes": jnp.where(kept[:, None], boxes[index], 0),
                "labels": jnp.where(kept, labels[index], 0),
                "scores": jnp.where(kept, scores[index], 0),
                "valid": kept,
            }

        return per_image(best)(scores, boxes, valid)

    def _rpn_losses(
        self,
        logits: Sequence[Float[Array, "n _"]],
        deltas: Sequence[Float[Array, "n _ 4"]],
        anchors: Sequence[Float[np.ndarray, "_ 4"]],
        keys: Array,
        objects: Objects,
    ) -> Losses:
        how = Matching(
            self.rpn_high,
            self.rpn_low,
            True,
            self.rpn_samples,
            self.rpn_positive,
            box_ops.RPN_WEIGHTS,
        )
        all_anchors = np.concatenate(anchors)
        samples: Samples = per_image(
            lambda key, objects: draw(key, objects, all_anchors, None, how)
        )(keys, objects._replace(masks=None, regions=None))
        self.sow("intermediates", "rpn_samples", samples)
        chosen = per_image(lambda outputs, index: jax.tree.map(lambda x: x[index], outputs))
        of_anchors = jnp.concatenate(logits, 1), jnp.concatenate(deltas, 1)
        own_logits, own_deltas = chosen(of_anchors, samples.drawn)
        count = number(samples.valid)
        if self.rpn_normalizer == "fixed":
            count = jnp.float32(self.rpn_samples * len(keys))
        positive = samples.positive.astype(own_logits.dtype)
        objectness = total(binary_cross_entropy(own_logits, positive), samples.valid)
        distances = smooth_l1(own_deltas - samples.deltas, self.box_beta).sum(-1)
        return {
            "loss_objectness": Part(objectness, count),
            "loss_rpn_box_reg": Part(total(distances, samples.positive), count),
        }

    def _draw_proposals(
        self, key: Array, objects: Objects, proposals: Proposals
    ) -> tuple[Float[Array, "k 4"], Samples]:
        """Proposals of an image that train; the objects themselves are among them."""
        how = Matching(
            self.box_high,
            self.box_low,
            False,
            self.box_samples,
            self.box_positive,
            box_ops.BOX_WEIGHTS,
        )
        boxes = jnp.concatenate([proposals.boxes, objects.boxes])
        valid = jnp.concatenate([proposals.valid, objects.valid])
        samples = draw(key, objects, boxes, valid, how)
        # A RoI that is not drawn may be of any size, infinite too.
        chosen = jnp.where(samples.valid[:, None], boxes[samples.drawn], 0)
        return chosen, samples

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
        """The losses of the box head; called in the compact method."""
        logits, deltas = self._boxes_of(levels, boxes, samples.valid, compute, height)
        return self._losses_of(logits, deltas, samples)

    def _losses_of(
        self,
        logits: Float[Array, "n k classes"],
        deltas: Float[Array, "n k boxes 4"],
        samples: Samples,
        suffix: str = "",
    ) -> Losses:
        """The losses of RoIs.

        Args:
            logits: Logits of the classes.
            deltas: Outputs for boxes.
            samples: The targets.
            suffix: The end of the names of the losses.
        """
        deltas = self._foreground_boxes(deltas)
        if self.box_outputs == "agnostic":
            deltas = deltas[..., 0, :]
        else:
            own = jnp.maximum(samples.labels - 1, 0)
            deltas = jnp.take_along_axis(deltas, own[..., None, None], 2)[..., 0, :]
        count = number(samples.valid)
        entropies = cross_entropy(logits, self._classes(samples.labels))
        distances = smooth_l1(deltas - samples.deltas, self.box_beta).sum(-1)
        return {
            f"loss_classifier{suffix}": Part(total(entropies, samples.valid), count),
            f"loss_box_reg{suffix}": Part(total(distances, samples.positive), count),
        }

    def _mask_losses(
        self,
        levels: Sequence[Level],
        boxes: Float[Array, "n k 4"],
        samples: Samples,
        objects: Objects,
        compute: Compute,
        image: tuple[int, int],
    ) -> Losses:
        """The losses of the mask head, which a detector of boxes lacks."""
        return {}
