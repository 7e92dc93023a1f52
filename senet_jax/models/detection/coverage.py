"""The objects that anchors can match: what a user checks before a training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from senet_jax.models.backbone import Backbone
from senet_jax.models.detection.rcnn import STAGES, FasterRCNN
from senet_jax.ops.anchors import best_overlaps, cell_anchors, stride_of


def covered_share(
    model: FasterRCNN,
    boxes: Float[np.ndarray, "m 4"],
    image: tuple[int, int],
    overlap: float = 0.5,
) -> float:
    """The share of boxes that some anchor of a detector overlaps by an IoU of at least this.

    Args:
        model: The detector.
        boxes: Boxes in pixels of the padded images, as training shows them.
        image: Rows and columns of the padded images.
        overlap: The least IoU.

    Returns:
        A number from 0 to 1; NaN if there are no boxes.
    """
    if not len(boxes):
        return float("nan")
    best = np.zeros(len(boxes))
    for sizes, grid in zip(model.sizes_by_level, grids_of(model, image), strict=True):
        cell = cell_anchors(sizes, model.anchor_ratios, model.anchor_style)
        stride = stride_of(image, grid, model.anchor_style)
        best = np.maximum(best, best_overlaps(boxes, cell, grid, stride))
    return float((best >= overlap).mean())


def grids_of(model: FasterRCNN, image: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of the levels of a detector's pyramid.

    Args:
        model: The detector.
        image: Rows and columns of the padded images.
    """
    grids = list(_grids(model.backbone, image))
    height, width = grids[-1]
    return [*grids, (-(-height // 2), -(-width // 2))]


@functools.lru_cache(maxsize=64)
def _grids(backbone: Backbone, image: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Rows and columns of the maps of a backbone."""
    maps, _ = jax.eval_shape(
        functools.partial(backbone.clone(parent=None).init_with_output, train=False),
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, *image, 3), jnp.float32),
    )
    return tuple(maps[stage].shape[1:3] for stage in STAGES)
