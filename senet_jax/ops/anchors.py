"""Anchors: boxes of fixed sizes and shapes around every pixel of every feature map.

They depend on shapes alone, so they are NumPy arrays, constants of the compiled program. Two
conventions are there, which differ in rounding and order:

* "torchvision" rounds the corners of the anchors to whole pixels (a half to the even number), and
  counts the sizes of one ratio before the next ratio.
* "detectron2" does not round, and counts the ratios of one size before the next size.

An anchor of a pixel lies around the pixel's index times the stride, in both.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from senet_jax.errors import UsageError, choose

Style = Literal["torchvision", "detectron2"]

SIZES = ((32,), (64,), (128,), (256,), (512,))
"""Sizes on the levels 2 to 6, in pixels: the side of a square of the same area."""
RATIOS = (0.5, 1.0, 2.0)
"""Height over width."""


def cell_anchors(
    sizes: Sequence[float], ratios: Sequence[float], style: Style = "torchvision"
) -> Float[np.ndarray, "a 4"]:
    """The anchors around the point (0, 0), float32, as many as sizes times ratios.

    Args:
        sizes: Sides of the square anchor, in pixels.
        ratios: Height over width.
        style: Whose rounding and order.

    Raises:
        UsageError: An unknown style; no size or ratio, or one that is not positive.
    """
    choose("anchor style", style, get_args(Style))
    if not (len(sizes) and len(ratios) and min(*sizes, *ratios) > 0):
        raise UsageError(
            f"anchors need one or more positive sizes and ratios, not {sizes} and {ratios}."
        )
    if style == "torchvision":
        root = np.sqrt(np.asarray(ratios, np.float32))[:, None]
        side = np.asarray(sizes, np.float32)[None]
        return np.round(_around_zero(1 / root * side, root * side))
    area, ratio = np.asarray(sizes, np.float64)[:, None] ** 2, np.asarray(ratios, np.float64)[None]
    widths = np.sqrt(area / ratio)
    return _around_zero(widths, ratio * widths).astype(np.float32)


def _around_zero(widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Boxes of these sides with their centres in (0, 0)."""
    width, height = widths.ravel(), heights.ravel()
    return np.stack([-width, -height, width, height], 1) / 2


def grid_anchors(
    cell: Float[np.ndarray, "a 4"], grid: tuple[int, int], stride: tuple[int, int]
) -> Float[np.ndarray, "n 4"]:
    """The anchors of one feature map, h * w * a of them, in the order (row, column, anchor).

    Args:
        cell: Anchors of one pixel, from :func:`cell_anchors`.
        grid: Rows and columns of the map.
        stride: Pixels of the image from one row, and from one column, to the next.
    """
    rows, columns = (np.arange(count) * step for count, step in zip(grid, stride, strict=True))
    y, x = np.meshgrid(rows, columns, indexing="ij")
    shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4).astype(np.float32)
    return (shifts + cell).reshape(-1, 4)


def pyramid_anchors(
    image: tuple[int, int],
    grids: Sequence[tuple[int, int]],
    sizes: Sequence[Sequence[float]] = SIZES,
    ratios: Sequence[float] = RATIOS,
    style: Style = "torchvision",
) -> list[Float[np.ndarray, "n 4"]]:
    """The anchors of each feature map of an image, a level each.

    Args:
        image: Rows and columns of the padded image.
        grids: Rows and columns of the feature maps.
        sizes: The sizes of the anchors, a sequence for each level, in pixels.
        ratios: Height over width, the same for all levels.
        style: Whose rounding, order and strides. torchvision's stride is the whole part of the
            image's side over the map's; detectron2's strides are powers of two, here the nearest.

    Raises:
        UsageError: As many sequences of sizes as maps are not given; see :func:`cell_anchors`.
    """
    if len(sizes) != len(grids):
        raise UsageError(
            f"there are anchor sizes for {len(sizes)} levels, but {len(grids)} feature maps: "
            f"give one sequence of sizes for each map."
        )
    return [
        grid_anchors(cell_anchors(of_level, ratios, style), grid, stride_of(image, grid, style))
        for of_level, grid in zip(sizes, grids, strict=True)
    ]


def stride_of(
    image: tuple[int, int], grid: tuple[int, int], style: Style = "torchvision"
) -> tuple[int, int]:
    """Pixels of the image from one row, and from one column, of a map to the next.

    Args:
        image: Rows and columns of the padded image.
        grid: Rows and columns of the map.
        style: See :func:`pyramid_anchors`.
    """
    ratio = [side / cells for side, cells in zip(image, grid, strict=True)]
    if style == "torchvision":
        return int(ratio[0]), int(ratio[1])
    rows, columns = (2 ** max(0, round(float(np.log2(each)))) for each in ratio)
    return rows, columns


def best_overlaps(
    boxes: Float[np.ndarray, "m 4"],
    cell: Float[np.ndarray, "a 4"],
    grid: tuple[int, int],
    stride: tuple[int, int],
) -> Float[np.ndarray, " m"]:
    """The greatest IoU of each box with any anchor of one feature map, without a list of them.

    Along each axis the anchor whose centre is next to the box's covers most of it.

    Args:
        boxes: Boxes.
        cell: As of :func:`grid_anchors`.
        grid: Likewise.
        stride: Likewise.
    """
    boxes = np.asarray(boxes, np.float64)[:, None]
    inner = np.ones((len(boxes), len(cell)))
    for axis in (0, 1):
        low, high = boxes[..., axis], boxes[..., axis + 2]
        first, last = cell[:, axis].astype(np.float64), cell[:, axis + 2].astype(np.float64)
        # Rows are the second coordinate.
        step, count = stride[1 - axis], grid[1 - axis]
        place = np.rint(((low + high) - (first + last)) / 2 / step).clip(0, count - 1) * step
        overlap = np.minimum(high, last + place) - np.maximum(low, first + place)
        inner *= overlap.clip(0)
    own = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    union = own + (cell[:, 2:] - cell[:, :2]).prod(-1) - inner
    return np.divide(inner, union, out=np.zeros_like(inner), where=union > 0).max(1)
