"""Masks of objects: training targets on the device, and pasting into images on the host."""

import math
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from senet_jax.errors import choose
from senet_jax.ops.boxes import in_full_precision
from senet_jax.ops.roi_samples import Sampling, axes_of, matrix

PasteStyle = Literal["torchvision", "detectron2"]


def crop_masks(
    masks: Num[Array, "g h w"] | Bool[Array, "g h w"],
    boxes: Float[Array, "k 4"],
    of_mask: Int[Array, " k"],
    side: int = 28,
    *,
    aligned: bool = False,
) -> Float[Array, "k side side"]:
    """The share of the object in each cell of a grid over each RoI, in [0, 1].

    RoIAlign of the mask of each RoI's object, with as many samples as a cell has pixels. As it is,
    it is the target of torchvision's mask loss; with ``aligned`` and compared with 0.5 it is
    detectron2's for bitmaps. One RoI at a time: memory is that of a mask in float32, or in float64
    for boxes of float64, which the result is, too.

    Args:
        masks: Masks of the objects of an image, 0 and 1.
        boxes: RoIs in pixels of the masks. One that is larger than the masks has fewer samples
            than a cell has pixels.
        of_mask: Index of the object of each RoI.
        side: Rows and columns of the grid.
        aligned: A pixel's index is that of its centre, see ``roi_align``.
    """
    size = masks.shape[1:]
    sampling = Sampling(None, math.ceil(max(size) / side), aligned)

    def crop(roi: tuple[Array, Array]) -> Array:
        box, mask = roi
        one = jnp.ones(1, box.dtype)
        rows, columns = axes_of(box[None], one, jnp.array([size]), (side, side), sampling)
        mine = jnp.ones(1, bool)
        down, across = (
            matrix(axis, mine, pixels, sampling.limit)[0]
            for axis, pixels in zip((rows, columns), size, strict=True)
        )
        product = jnp.matmul(down, masks[mask].astype(box.dtype), precision=lax.Precision.HIGHEST)
        return jnp.matmul(product, across.T, precision=lax.Precision.HIGHEST)

    return lax.map(crop, (in_full_precision(boxes), of_mask))


def paste_mask(
    mask: Float[np.ndarray, "m m"],
    box: Float[np.ndarray, " 4"],
    height: int,
    width: int,
    style: PasteStyle = "torchvision",
) -> Float[np.ndarray, "h w"]:
    """The mask of one detection as probabilities of the pixels of an image, float32.

    Runs on the host. Both styles interpolate linearly, and are 0 away from the box:

    * "torchvision" adds a border of zeros to the mask, grows the box alike, cuts its corners to
      whole numbers and resizes the mask to the pixels from the first corner to the second one,
      which is included. Its users compare with > 0.5.
    * "detectron2" reads the mask at the centre of each pixel, with zeros around the mask. It then
      compares with >= 0.5.

    Args:
        mask: Probabilities in a grid over the box.
        box: In pixels of the image.
        height: Rows of the image.
        width: Columns of the image.
        style: Whose rule.

    Raises:
        UsageError: An unknown style.
    """
    choose("style of pasting", style, get_args(PasteStyle))
    image = np.zeros((height, width), np.float32)
    if not np.isfinite(box).all():
        return image
    weights = _resized if style == "torchvision" else _at_centres
    x1, y1, x2, y2 = np.asarray(box, np.float32)
    first_row, down = weights(mask.shape[0], y1, y2, height)
    first_column, across = weights(mask.shape[1], x1, x2, width)
    part = down @ np.asarray(mask, np.float32) @ across.T
    rows = slice(first_row, first_row + len(down))
    image[rows, first_column : first_column + len(across)] = part
    return image


def paste_masks(
    masks: Float[np.ndarray, "n m m"],
    boxes: Float[np.ndarray, "n 4"],
    height: int,
    width: int,
    style: PasteStyle = "torchvision",
) -> Bool[np.ndarray, "n h w"]:
    """The pixels of each detection, by :func:`paste_mask` and the style's comparison with 0.5.

    Args:
        masks: Probabilities in a grid over each box.
        boxes: In pixels of the image.
        height: Rows of the image.
        width: Columns of the image.
        style: Whose rule.

    Raises:
        UsageError: An unknown style.
    """
    result = np.zeros((len(masks), height, width), bool)
    compare = np.greater if style == "torchvision" else np.greater_equal
    for pixels, mask, box in zip(result, masks, boxes, strict=True):
        compare(paste_mask(mask, box, height, width, style), 0.5, out=pixels)
    return result


def _linear(positions: np.ndarray, cells: int) -> Float[np.ndarray, "pixels cells"]:
    """Weights of the cells of an axis at each position, counted from the centre of the first."""
    distance = np.abs(positions[:, None] - np.arange(cells, dtype=np.float32))
    return np.maximum(1 - distance, 0).astype(np.float32)


def _resized(cells: int, low: np.float32, high: np.float32, size: int) -> tuple[int, np.ndarray]:
    """The first pixel that a resized mask covers along an axis, and weights of its cells."""
    middle, half = (high + low) * np.float32(0.5), (high - low) * np.float32(0.5)
    half *= np.float32((cells + 2) / cells)
    first, last = int(middle - half), int(middle + half)
    length = max(last - first + 1, 1)
    start, stop = max(first, 0), min(last + 1, size)
    pixel = np.arange(start - first, max(stop, start) - first, dtype=np.float32)
    position = (pixel + np.float32(0.5)) * np.float32((cells + 2) / length) - np.float32(0.5)
    # Beyond the centre of the first or last cell, which is of the border of zeros.
    weights = _linear(np.clip(position, 0, cells + 1), cells + 2)
    return min(start, size), weights[:, 1:-1]


def _at_centres(cells: int, low: np.float32, high: np.float32, size: int) -> tuple[int, np.ndarray]:
    """The first pixel that a mask reaches along an axis, and weights of its cells."""
    if high <= low:
        return 0, np.zeros((0, cells), np.float32)
    reach = (high - low) / cells / 2
    start = min(max(math.floor(low - reach), 0), size)
    stop = min(max(math.ceil(high + reach), start), size)
    centre = np.arange(start, stop, dtype=np.float32) + np.float32(0.5)
    return start, _linear((centre - low) / (high - low) * cells - np.float32(0.5), cells)
