"""Figures from the metrics of a run."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from senet_jax.files import write_whole
from senet_jax.tasks.base import Task, reported
from senet_jax.tasks.metrics import Metric
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
LOSS = Metric("loss", "loss", higher_is_better=False)
"""The curve of a training that measures none of the metrics."""
VALIDATION: dict[str, Any] = {"color": "#0b5394", "linewidth": 1.4, "label": "validation"}


def draw_curves(run_dir: Path, title: str, task: type[Task]) -> Path:
    """Draws the metrics of a run by epoch, training and validation, into ``curves.png``.

    The training curve is the mean over the steps of an epoch, of augmented images and parameters
    that still change; the validation curve is taken at the end of an epoch. If training measures
    none of the metrics, as in detection, its loss has a panel of its own.

    Args:
        run_dir: Folder of a run that has metrics.
        title: The name of the network.
        task: The task that it learned.
    """
    lines = read_metrics(run_dir)
    metric, *_ = metrics = reported(task)
    if not any(f"train/{each.key}" in line for line in lines for each in metrics):
        metrics = [*metrics, LOSS]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.25 * len(metrics), 2.6), layout="constrained")
        *left, right = figure.subplots(1, len(metrics), squeeze=False)[0]
        for axes, each in zip((right, *left), metrics, strict=True):
            _draw(axes, lines, each)
            axes.set_ylabel(figure_text(each.axis))
        for axes in left:
            # Early epochs are far off; on a linear axis the rest would be a flat line.
            axes.set_yscale("log")
        if metric.range:
            right.set_ylim(bottom=metric.range[0], top=1.08 * right.dataLim.ymax or None)
        for final in [line for line in lines if metric.validation in line][-1:]:
            value = metric.shown(final[metric.validation])
            right.annotate(
                figure_text(f"{value:.{metric.digits}f} {metric.shown_unit}".rstrip()),
                (1, value),
                # Behind the axis, at the height of the value.
                xycoords=right.get_yaxis_transform(),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=VALIDATION["color"],
            )
        for axes in (right, *left):
            if axes is right or len(metrics) > len(reported(task)):
                axes.legend(loc="best")
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


def _draw(axes: Axes, lines: list[Line], metric: Metric) -> None:
    for split, style in (("train", TRAINING), ("val", VALIDATION)):
        key = f"{split}/{metric.key}"
        points = [(line["epoch"], metric.shown(line[key])) for line in lines if key in line]
        if not points:
            continue
        axes.plot(
            [epoch for epoch, _ in points],
            [value for _, value in points],
            marker="." if len(points) < 4 else "",
            **style,
        )
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
