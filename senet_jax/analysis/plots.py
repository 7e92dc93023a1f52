"""Figures from the metrics of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from senet_jax.files import write_whole
from senet_jax.text import figure_text
from senet_jax.training.records.metrics import Line, read_metrics

STYLE: Any = {
    "font.family": "serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
}
TRAINING: dict[str, Any] = {
    "color": "#888888",
    "linewidth": 1.0,
    "linestyle": "--",
    "label": "training",
}
VALIDATION: dict[str, Any] = {"color": "#0b5394", "linewidth": 1.4, "label": "validation"}


def draw_curves(run_dir: Path, title: str) -> Path:
    """Draws loss and error by epoch, training and validation, into ``curves.png``.

    The training curve is the mean over the steps of an epoch, of augmented images and parameters
    that still change; the validation curve is taken at the end of an epoch.

    Args:
        run_dir: Folder of a run that has metrics.
        title: What was trained.
    """
    lines = read_metrics(run_dir)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 2.6), layout="constrained")
        loss, error = figure.subplots(1, 2)
        _draw(loss, lines, "loss", lambda value: value)
        _draw(error, lines, "top1", lambda value: 100 * (1 - value))
        loss.set_ylabel("cross-entropy")
        error.set_ylabel("top-1 error (%)")
        # Early epochs are far off; on a linear axis the rest would be a flat line.
        loss.set_yscale("log")
        error.set_ylim(bottom=0)
        for final in [line for line in lines if "val/top1" in line][-1:]:
            error.annotate(
                f"{100 * (1 - final['val/top1']):.2f} %",
                (final["epoch"], 100 * (1 - final["val/top1"])),
                xytext=(0, 8),
                textcoords="offset points",
                ha="right",
                color=VALIDATION["color"],
            )
        error.legend(loc="best")
        figure.suptitle(figure_text(title), fontsize=9)
        file = run_dir / "curves.png"
        save_figure(figure, file)
    return file


def save_figure(figure: Figure, file: Path) -> None:
    """Writes a figure atomically.

    Args:
        figure: The figure.
        file: Its suffix, such as ``.png`` or ``.svg``, says the format.

    Raises:
        UsageError: As ``files.write_whole``.
    """
    kind = file.suffix.removeprefix(".")
    write_whole(file, lambda partial: figure.savefig(partial, format=kind, dpi=200))


def _draw(axes: Axes, lines: list[Line], metric: str, scale: Callable[[float], float]) -> None:
    for split, style in (("train", TRAINING), ("val", VALIDATION)):
        points = [
            (line["epoch"], line[f"{split}/{metric}"])
            for line in lines
            if f"{split}/{metric}" in line
        ]
        axes.plot(
            [epoch for epoch, _ in points],
            [scale(value) for _, value in points],
            marker="." if len(points) < 4 else "",
            **style,
        )
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
