"""Grids of images."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from senet_jax.analysis.plots import STYLE, save_figure
from senet_jax.files import make_folder
from senet_jax.text import figure_text, printable

SIDE, TITLE_LINE = 1.4, 0.11
"""Side of an image and height of a line of its title, inches."""

LINE = 26
"""Letters of a line of a title."""

ENTRY = 0.9
"""Width of an entry of a legend, inches."""


def wrap(line: str) -> str:
    """Breaks a line of a title into lines that fit over an image, escaped for a figure."""
    return "\n".join(map(figure_text, textwrap.wrap(printable(line), LINE)))


def _hexadecimal(color: Sequence[int]) -> str:
    return "#" + "".join(f"{level:02x}" for level in color)


def draw_images(
    file: Path,
    images: UInt8[np.ndarray, "n h w c"],
    titles: Sequence[str],
    legend: Sequence[tuple[str, Sequence[int]]] = (),
    side: float = SIDE,
) -> Path:
    """Draws images in rows, as near to a square as they go, into a PNG file.

    Args:
        file: The file, whose folder is made if need be.
        images: Grey or RGB images, 0 to 255.
        titles: A title over each; long lines are broken.
        legend: Names below the images, each with its colour, 0 to 255.
        side: Side of the square that each image is drawn in, inches.
    """
    wrapped = ["\n".join(map(wrap, title.split("\n"))) for title in titles]
    lines = max(title.count("\n") + 1 for title in wrapped)
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    entries = [figure_text(name) for name, _ in legend]
    across = max(1, int(columns * side / ENTRY))
    below = 1.5 * TITLE_LINE * math.ceil(len(entries) / across)
    size = columns * side, rows * (side + lines * TITLE_LINE) + below
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for axes, image, title in zip(grid.flat, images, wrapped, strict=False):
            axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
            axes.set_title(title, fontsize=6, pad=2)
        if legend:
            patches = [Patch(color=_hexadecimal(color)) for _, color in legend]
            figure.legend(
                patches,
                entries,
                loc="outside lower center",
                ncols=min(across, len(entries)),
                fontsize=6,
                frameon=False,
            )
        make_folder(file.parent)
        save_figure(figure, file)
    return file
