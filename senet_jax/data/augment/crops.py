"""Rectangles at random: the crop of a photograph that a training image is."""

import math

import numpy as np

Box = tuple[int, int, int, int]
"""Left, top, width and height, pixels."""

TRIES = 10
"""The number of draws of a rectangle that does not fit into the image, before it is given up."""


def draw_crop(
    height: int,
    width: int,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """Draws the random resized crop of Inception (arXiv 1409.4842, section 6).

    A rectangle as :func:`draw_box` has it, or else the central crop as large as the image and the
    allowed shapes have it; this is torchvision's rule.

    Args:
        height: Height of the image, pixels, at least 1.
        width: Width of the image, pixels, at least 1.
        rng: Source of the random numbers.
        area: Least and greatest share of the image's area, in (0, 1].
        ratio: Least and greatest width over height.

    Returns:
        A box of at least one pixel inside the image.
    """
    box = draw_box(height, width, rng, area, ratio)
    if box is not None:
        return box
    least, greatest = ratio
    crop_width, crop_height = width, height
    if width < least * height:
        crop_height = min(height, max(1, round(width / least)))
    elif width > greatest * height:
        crop_width = min(width, max(1, round(height * greatest)))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height


def draw_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> Box | None:
    """Draws a rectangle inside an image; arguments as :func:`draw_crop`.

    Its share of the area is uniform, its shape uniform in the logarithm, its place uniform.

    Returns:
        The rectangle, or None where ``TRIES`` draws have not fitted into the image.
    """
    least, greatest = ratio
    for _ in range(TRIES):
        pixels = height * width * rng.uniform(*area)
        shape = math.exp(rng.uniform(math.log(least), math.log(greatest)))
        box_width = round(math.sqrt(pixels * shape))
        box_height = round(math.sqrt(pixels / shape))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(rng.integers(0, width - box_width + 1))
            top = int(rng.integers(0, height - box_height + 1))
            return left, top, box_width, box_height
    return None
