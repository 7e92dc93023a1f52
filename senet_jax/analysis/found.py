"""Objects over their image: boxes, names, scores and masks, each class in its colour."""

import colorsys
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from senet_jax.files import make_folder, write_whole
from senet_jax.text import printable

STRENGTH = 0.45
"""Share of the colour of a class in a pixel of a mask."""

LEAST_SIDE = 480
"""Smaller images are enlarged by a whole number, so that names can be read on them."""

LETTERS = 12
"""Height of the letters, pixels."""


@functools.cache
def class_color(label: int) -> tuple[int, int, int]:
    """A bright colour for a class; classes near each other differ most."""
    hue = label * 0.618034 % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_objects(
    image: UInt8[np.ndarray, "h w 3"],
    boxes: Float[np.ndarray, "k 4"],
    labels: Int[np.ndarray, " k"],
    texts: Sequence[str],
    masks: Sequence[np.ndarray] | Bool[np.ndarray, "k h w"] | None = None,
    scale: int = 1,
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Draws objects over an image.

    Args:
        image: An RGB image.
        boxes: x1, y1, x2, y2 in pixels.
        labels: Classes, from 0.
        texts: A text at each box; "" for none.
        masks: The pixels of each object, (h, w); None draws boxes alone.
        scale: Factor by which the image is enlarged.

    Returns:
        The enlarged image with the objects, the first ones over the others.
    """
    shown = image.astype(np.float32)
    order = range(len(boxes) - 1, -1, -1)
    if masks is not None:
        for row in order:
            tint, own = np.array(class_color(int(labels[row])), np.float32), masks[row]
            shown[own] += np.float32(STRENGTH) * (tint - shown[own])
    pixels = np.rint(shown).astype(np.uint8)
    picture = Image.fromarray(np.repeat(np.repeat(pixels, scale, 0), scale, 1))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(LETTERS)
    for row in order:
        color = class_color(int(labels[row]))
        x1, y1, x2, y2 = (float(side) * scale for side in boxes[row])
        # The last pixel of a box is before its edge.
        corners = x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)
        pen.rectangle(corners, outline=color, width=max(1, round(scale / 2)))
        if text := printable(texts[row]):
            top = y1 - LETTERS - 2 if y1 > LETTERS + 2 else y1
            left, above, right, below = pen.textbbox((x1 + 1, top), text, font=font)
            pen.rectangle((left - 1, above - 1, right + 1, below + 1), fill=color)
            pen.text((x1 + 1, top), text, fill=(0, 0, 0), font=font)
    return np.asarray(picture)


def enlargement(shape: Sequence[int]) -> int:
    """The factor by which an image is enlarged to be drawn on."""
    return max(1, -(-LEAST_SIDE // max(shape[:2])))


def write_objects(file: Path, drawn: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes an image with its objects as a PNG.

    Raises:
        UsageError: The file cannot be written.
    """
    make_folder(file.parent)
    picture = Image.fromarray(drawn)
    write_whole(file, lambda partial: picture.save(partial, "PNG"))
