"""Boxes (x1, y1, x2, y2) in pixels: areas, overlaps, clipping, and the targets of regression.

A box spans x2 - x1 columns and y2 - y1 rows, without the pixel that older code adds. All is
computed in float32, or in float64 where the boxes are float64.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LARGEST_LOG_RATIO = math.log(1000 / 16)
"""Upper limit of the decoded logarithms of widths and heights, as in Detectron."""

RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Factors of the regression targets (dx, dy, dw, dh), of proposals and of boxes."""

Weights = tuple[float, float, float, float]


def in_full_precision(x: Float[Array, "*dims"]) -> Float[Array, "*dims"]:
    """The array as float32, or as it is in float64."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def areas(boxes: Float[Array, "*dims 4"]) -> Float[Array, "*dims"]:
    """Areas in square pixels; negative where one side is negative, as in torchvision."""
    boxes = in_full_precision(boxes)
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Float[Array, "*dims n 4"], b: Float[Array, "*dims m 4"]) -> Float[Array, "*dims n m"]:
    """Intersection over union of all pairs, in [0, 1].

    Two boxes without area overlap by 0, where torchvision has NaN.

    Args:
        a: Boxes.
        b: Other boxes.

    Example:
        >>> iou(jnp.array([[0, 0, 4, 4]]), jnp.array([[0, 0, 4, 2], [4, 4, 8, 8]]))
        Array([[0.5, 0. ]], dtype=float32)
    """
    a, b = in_full_precision(a), in_full_precision(b)
    inner = _intersections(a, b)
    return _share(inner, areas(a)[..., :, None] + areas(b)[..., None, :] - inner)


def covered(
    regions: Float[Array, "*dims n 4"], boxes: Float[Array, "*dims m 4"]
) -> Float[Array, "*dims n m"]:
    """The share of each box that lies in each region, in [0, 1]; 0 of a box without area.

    Args:
        regions: Regions, such as crowds.
        boxes: Boxes.
    """
    regions, boxes = in_full_precision(regions), in_full_precision(boxes)
    return _share(_intersections(regions, boxes), areas(boxes)[..., None, :])


def _intersections(a: Float[Array, "*dims n 4"], b: Float[Array, "*dims m 4"]) -> Array:
    first, second = a[..., :, None, :], b[..., None, :, :]
    low = jnp.maximum(first[..., :2], second[..., :2])
    high = jnp.minimum(first[..., 2:], second[..., 2:])
    sides = jnp.maximum(high - low, 0)
    return sides[..., 0] * sides[..., 1]


def _share(part: Array, whole: Array) -> Array:
    empty = whole == 0
    return jnp.where(empty, 0, part / jnp.where(empty, 1, whole))


def clip(
    boxes: Float[Array, "*dims 4"],
    height: float | Float[Array, "*#dims"],
    width: float | Float[Array, "*#dims"],
) -> Float[Array, "*dims 4"]:
    """Moves the corners that lie outside an image to its border.

    Args:
        boxes: Boxes.
        height: Rows of the image; an array may have one number for each box.
        width: Columns of the image.
    """
    x = jnp.minimum(jnp.maximum(boxes[..., 0::2], 0), jnp.asarray(width)[..., None])
    y = jnp.minimum(jnp.maximum(boxes[..., 1::2], 0), jnp.asarray(height)[..., None])
    return jnp.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1).astype(boxes.dtype)


def reaches(boxes: Float[Array, "*dims 4"], side: float) -> Bool[Array, "*dims"]:
    """True where width and height are at least ``side`` pixels; false for NaN."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= side).all(-1)


def degenerate(boxes: Float[Array, "*dims 4"]) -> Bool[Array, "*dims"]:
    """True where width or height is not positive, or NaN."""
    return ~(boxes[..., 2:] > boxes[..., :2]).all(-1)


def _centres(boxes: Float[Array, "*dims 4"]) -> tuple[Array, Array]:
    """Centres and sides, each (x, y)."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def encode(
    boxes: Float[Array, "*dims 4"], anchors: Float[Array, "*dims 4"], weights: Weights = RPN_WEIGHTS
) -> Float[Array, "*dims 4"]:
    """The targets (dx, dy, dw, dh) that :func:`decode` maps to ``boxes``.

    dx and dy are distances of centres in sides of the anchor, dw and dh logarithms of ratios of
    sides. Where a box or an anchor is degenerate, such as padding, all four and their gradients
    are 0, where torchvision has infinity or NaN.

    Args:
        boxes: Boxes.
        anchors: Anchors or proposals, of a shape that broadcasts with that of ``boxes``.
        weights: Factors of the four targets.
    """
    boxes, anchors = in_full_precision(boxes), in_full_precision(anchors)
    wrong = (degenerate(boxes) | degenerate(anchors))[..., None]
    unit = jnp.array([0, 0, 1, 1], boxes.dtype)
    centre, sides = _centres(jnp.where(wrong, unit, boxes))
    from_centre, from_sides = _centres(jnp.where(wrong, unit, anchors))
    shift, growth = (centre - from_centre) / from_sides, jnp.log(sides / from_sides)
    return jnp.concatenate([shift, growth], -1) * jnp.array(weights, boxes.dtype)


def decode(
    deltas: Float[Array, "*dims 4"],
    anchors: Float[Array, "*#dims 4"],
    weights: Weights = RPN_WEIGHTS,
    largest: float = LARGEST_LOG_RATIO,
) -> Float[Array, "*dims 4"]:
    """The boxes that (dx, dy, dw, dh) describe: the inverse of :func:`encode`.

    Args:
        deltas: Output of a regression.
        anchors: Anchors or proposals, of a shape that broadcasts with that of ``deltas``.
        weights: By which the deltas are divided.
        largest: Upper limit of dw and dh after the division. Their gradient above it is 0.
    """
    deltas, anchors = in_full_precision(deltas), in_full_precision(anchors)
    deltas = deltas / jnp.array(weights, deltas.dtype)
    from_centre, from_sides = _centres(anchors)
    centre = deltas[..., :2] * from_sides + from_centre
    logs = jnp.where(deltas[..., 2:] > largest, jnp.array(largest, deltas.dtype), deltas[..., 2:])
    half = 0.5 * (jnp.exp(logs) * from_sides)
    return jnp.concatenate([centre - half, centre + half], -1)
