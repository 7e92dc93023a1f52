"""How many objects an anchor fits, so that a detector can learn them at all."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from senet_jax.models.detection.rcnn import STAGES, FasterRCNN


def anchor_overlap(
    network: FasterRCNN, boxes: Float[np.ndarray, "k 4"], shape: tuple[int, int]
) -> Float[np.ndarray, " k"]:
    """The IoU of each object with the anchor that fits it best.

    Of the anchors of one size and level that one fits best which is nearest, along each axis.

    Args:
        network: The detector.
        boxes: The objects, x1, y1, x2, y2 in pixels of the padded image.
        shape: Height and width of the padded image, pixels.
    """
    best = np.zeros(len(boxes))
    boxes = np.asarray(boxes, np.float64)
    grids = _grids(network, shape)
    for grid, anchors in zip(grids, network.anchors(shape, grids), strict=True):
        placed = anchors.astype(np.float64).reshape(*grid, -1, 4)
        # Pixels from an anchor to the next one; of one row or column none is the next.
        down = placed[1, 0, 0, 1] - placed[0, 0, 0, 1] if grid[0] > 1 else 1.0
        across = placed[0, 1, 0, 0] - placed[0, 0, 0, 0] if grid[1] > 1 else 1.0
        steps = np.array([across, down])
        for cell in placed[0, 0]:
            away = (boxes[:, :2] + boxes[:, 2:] - cell[:2] - cell[2:]) / 2
            place = np.clip(np.rint(away / steps), 0, [grid[1] - 1, grid[0] - 1])
            shift = place * steps
            best = np.maximum(best, _iou(boxes, cell + np.concatenate([shift, shift], axis=1)))
    return best


def _grids(network: FasterRCNN, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of each level of the pyramid."""
    images = jax.ShapeDtypeStruct((1, *shape, 3), jnp.float32)
    backbone = network.backbone.clone(parent=None)

    def maps(images: jax.Array) -> dict[int, jax.Array]:
        found, _ = backbone.init_with_output(jax.random.key(0), images, train=False)
        return {stage: found[stage] for stage in STAGES}

    shapes = jax.eval_shape(maps, images)
    grids = [shapes[stage].shape[1:3] for stage in STAGES]
    # The last level takes every second pixel of the one before.
    return [*grids, (-(-grids[-1][0] // 2), -(-grids[-1][1] // 2))]


def _iou(
    boxes: Float[np.ndarray, "k 4"], others: Float[np.ndarray, "k 4"]
) -> Float[np.ndarray, " k"]:
    """The IoU of each box with the other at its place."""
    low, high = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    both = np.maximum(high - low, 0).prod(1)
    areas = [(each[:, 2:] - each[:, :2]).prod(1) for each in (boxes, others)]
    return both / np.maximum(areas[0] + areas[1] - both, 1e-9)
