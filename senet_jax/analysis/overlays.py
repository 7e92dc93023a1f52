"""The classes of pixels: as colours over their image with a legend, and as a PNG of numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from senet_jax.analysis.pictures import SIDE, draw_images
from senet_jax.errors import UsageError
from senet_jax.files import write_whole

STRENGTH = 0.6
"""Share of the colour of a class in a pixel."""

_NO_CLASS = (224, 224, 192)
"""Colour of a value that is no class; VOC has it for what is ignored."""

Palette = Sequence[Sequence[int]]
"""Red, green and blue of each class, 0 to 255."""


def overlay(
    image: UInt8[np.ndarray, "h w c"], label: Int[np.ndarray, "h w"], palette: Palette
) -> UInt8[np.ndarray, "h w 3"]:
    """An image in the colours of the classes of its pixels.

    Args:
        image: A grey or RGB image.
        label: Classes; a pixel with any other value, such as an ignored one, keeps its colour.
        palette: The colours.
    """
    shown = np.broadcast_to(image, (*label.shape, 3)).astype(np.float64)
    colors = np.array(palette, np.float64)
    known = (label >= 0) & (label < len(colors))
    shown[known] += STRENGTH * (colors[label[known]] - shown[known])
    return np.rint(shown).astype(np.uint8)


def draw_overlays(
    file: Path,
    images: UInt8[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, "n h w"],
    titles: Sequence[str],
    names: Sequence[str],
    palette: Palette,
    side: float = SIDE,
) -> Path:
    """Draws images with the classes of their pixels over them into a PNG file.

    Args:
        file: The file, whose folder is made if need be.
        images: Grey or RGB images, 0 to 255.
        labels: Classes; other values stand for none.
        titles: The text over each image.
        names: Names of the classes; the legend has those that the images have.
        palette: The colours.
        side: As in ``draw_images``.
    """
    shown = np.stack([overlay(*pair, palette) for pair in zip(images, labels, strict=True)])
    there = [index for index in np.unique(labels).tolist() if 0 <= index < len(names)]
    legend = [(names[index], tuple(palette[index])) for index in there]
    return draw_images(file, shown, titles, legend, side)


def write_label(file: Path, label: Int[np.ndarray, "h w"], palette: Palette) -> Path:
    """Writes classes as a PNG of their numbers, which shows the colours where it is viewed.

    Args:
        file: The file.
        label: Classes, or a value that is ignored.
        palette: The colours; of more than 256 classes they are not written.

    Raises:
        UsageError: The file cannot be written, or a class is no number of 16 bits.
    """
    if label.size and not 0 <= label.min() <= label.max() < 2**16:
        raise UsageError("classes are written as numbers of 0 to 65535.")
    if len(palette) > 2**8 or label.max(initial=0) >= 2**8:
        picture = Image.fromarray(label.astype(np.uint16))
    else:
        picture = Image.fromarray(label.astype(np.uint8))
        # With fewer colours Pillow would write fewer bits than the ignored value has.
        rest = 2**8 - len(palette)
        picture.putpalette([level for color in (*palette, *rest * [_NO_CLASS]) for level in color])
    write_whole(file, lambda partial: picture.save(partial, "PNG"))
    return file
