"""The objects of images in training: what anchors and proposals are matched with."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

from senet_jax.errors import UsageError
from senet_jax.ops import boxes as box_ops
from senet_jax.ops.masks import crop_masks
from senet_jax.ops.matching import IGNORED, NEGATIVE, POSITIVE, match, sample

CROWD = 0.7
"""Share of an anchor or proposal that lies in a crowd from which it is no background."""


class Objects(NamedTuple):
    """Objects of an image, or of each image of a batch."""

    boxes: Float[Array, "*n g 4"]
    """In pixels of the padded image."""
    labels: Int[Array, "*n g"]
    """Classes, from 1."""
    valid: Bool[Array, "*n g"]
    """False for padding and for crowds."""
    crowd: Bool[Array, "*n g"] | None
    """Regions that have several objects. If None, there are none."""
    masks: Num[Array, "*n g h w"] | Bool[Array, "*n g h w"] | None
    """0 and 1. If None, there are no masks."""
    regions: Float[Array, "*n g 4"] | None
    """The part of the image that each mask covers. If None, each covers the padded image."""


ARRAYS = ("boxes", "labels", "valid")
OPTIONAL = ("crowd", "masks", "mask_boxes")


def read_objects(targets: Mapping[str, Array], images: int, with_masks: bool) -> Objects:
    """The objects of a batch from what a detector is given.

    Args:
        targets: Arrays by name, see ``FasterRCNN``.
        images: Number of images.
        with_masks: Read masks, too.

    Raises:
        UsageError: An array that is missing, unknown or of another shape.
    """
    needed = {*ARRAYS, *(("masks",) if with_masks else ())}
    for name in sorted(needed - targets.keys()):
        raise UsageError(f"the targets of a detector lack {name!r}.")
    for name in sorted(targets.keys() - {*ARRAYS, *OPTIONAL}):
        raise UsageError(
            f"the targets of a detector have no {name!r}: they are {', '.join(ARRAYS + OPTIONAL)}."
        )
    boxes = jnp.asarray(targets["boxes"])
    if boxes.ndim != 3 or boxes.shape[0] != images or boxes.shape[2] != 4:
        raise UsageError(
            f"the boxes of {images} images must be ({images}, g, 4), not {boxes.shape}."
        )
    tails = {"boxes": (4,), "mask_boxes": (4,)}
    for name, array in targets.items():
        own = (*boxes.shape[:2], *(array.shape[2:] if name == "masks" else tails.get(name, ())))
        if array.shape != own or (name == "masks" and array.ndim != 4):
            raise UsageError(
                f"{name} must have a row for each box of boxes {boxes.shape}, not the shape "
                f"{array.shape}."
            )
    valid = jnp.asarray(targets["valid"]).astype(bool)
    crowd = targets.get("crowd")
    if crowd is not None:
        crowd = valid & crowd.astype(bool)
        valid &= ~crowd
    return Objects(
        box_ops.in_full_precision(boxes),
        jnp.asarray(targets["labels"]).astype(jnp.int32),
        valid,
        crowd,
        targets["masks"] if with_masks else None,
        targets.get("mask_boxes") if with_masks else None,
    )


@dataclasses.dataclass(frozen=True)
class Matching:
    """The matching and drawing of anchors or proposals, see the fields of the detector."""

    high: float
    low: float
    low_quality: bool
    samples: int
    positive_share: float
    weights: box_ops.Weights


class Samples(NamedTuple):
    """Anchors or proposals of an image that train: the positive ones, then the negative ones."""

    drawn: Int[Array, " k"]
    """Index of the anchor or proposal."""
    positive: Bool[Array, " k"]
    valid: Bool[Array, " k"]
    """False where there were too few."""
    object: Int[Array, " k"]
    """Index of the object; arbitrary where not positive."""
    labels: Int[Array, " k"]
    """Class from 1; 0 where not positive."""
    deltas: Float[Array, "k 4"]
    """Targets of the regression; arbitrary where not positive."""


def draw(
    key: PRNGKeyArray,
    objects: Objects,
    boxes: Float[Array, "m 4"] | Float[np.ndarray, "m 4"],
    valid: Bool[Array, " m"] | None,
    how: Matching,
) -> Samples:
    """Draws anchors or proposals of one image that train.

    Those that would be negative and of which ``CROWD`` or more lies in a crowd are ignored.

    Args:
        key: A random key.
        objects: Those of the image.
        boxes: Anchors or proposals.
        valid: False for those that are never drawn. If None, all may be.
        how: The matching and the drawing.
    """
    boxes = jnp.asarray(boxes)
    found, kind = _kinds(objects, boxes, valid, how)
    slots = min(how.samples, len(boxes))
    drawn = sample(key, kind, how.samples, how.positive_share, slots=slots)
    own = found[drawn.anchor]
    return Samples(
        drawn.anchor,
        drawn.positive,
        drawn.valid,
        own,
        jnp.where(drawn.positive, objects.labels[own], 0),
        box_ops.encode(objects.boxes[own], boxes[drawn.anchor], how.weights),
    )


def all_matched(
    objects: Objects,
    boxes: Float[Array, "m 4"],
    valid: Bool[Array, " m"],
    how: Matching,
) -> Samples:
    """All proposals of one image, in their order, without drawing: those of a cascade's stage.

    Args:
        objects: Those of the image.
        boxes: Proposals.
        valid: False for those that do not train.
        how: The matching.
    """
    own, kind = _kinds(objects, boxes, valid, how)
    positive = kind == POSITIVE
    return Samples(
        jnp.arange(len(boxes)),
        positive,
        kind != IGNORED,
        own,
        jnp.where(positive, objects.labels[own], 0),
        box_ops.encode(objects.boxes[own], boxes, how.weights),
    )


def _kinds(
    objects: Objects, boxes: Float[Array, "m 4"], valid: Bool[Array, " m"] | None, how: Matching
) -> tuple[Int[Array, " m"], Int[Array, " m"]]:
    """The object of each anchor or proposal, and its kind."""
    found = match(
        box_ops.iou(objects.boxes, boxes),
        objects.valid,
        high=how.high,
        low=how.low,
        low_quality=how.low_quality,
    )
    kind = found.kind
    if objects.crowd is not None:
        share = jnp.where(objects.crowd[:, None], box_ops.covered(objects.boxes, boxes), 0)
        kind = jnp.where((kind == NEGATIVE) & (share.max(0) >= CROWD), IGNORED, kind)
    if valid is not None:
        kind = jnp.where(valid, kind, IGNORED)
    return found.box, kind


def mask_targets(
    objects: Objects,
    boxes: Float[Array, "k 4"],
    own: Int[Array, " k"],
    side: int,
    image: tuple[int, int],
    binary: bool,
) -> Float[Array, "k side side"]:
    """The targets of the masks of RoIs of one image.

    Args:
        objects: Those of the image.
        boxes: RoIs in pixels of the padded image.
        own: Index of the object of each.
        side: Rows and columns of a target.
        image: Rows and columns of the padded image.
        binary: See ``MaskRCNNFields.mask_targets``.
    """
    assert objects.masks is not None
    height, width = objects.masks.shape[1:]
    regions = jnp.array([[0, 0, image[1], image[0]]], boxes.dtype)
    if objects.regions is not None:
        regions = objects.regions[own].astype(boxes.dtype)
    corner = jnp.tile(regions[:, :2], 2)
    sides = jnp.maximum(jnp.tile(regions[:, 2:] - regions[:, :2], 2), 1e-6)
    scale = jnp.array([width, height, width, height], boxes.dtype) / sides
    found = crop_masks(objects.masks, (boxes - corner) * scale, own, side, aligned=binary)
    return (found >= 0.5).astype(found.dtype) if binary else found
