"""The figures of a study: curves with the band of the seeds, bars, accuracy against cost."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from senet_jax.analysis.cells import Cell
from senet_jax.analysis.plots import STYLE
from senet_jax.analysis.study_report import Row, StudyReport

FORMATS = ("png", "svg")


def draw_study(report: StudyReport, folder: Path) -> list[Path]:
    """Draws ``curves``, ``errors`` and ``cost`` into a folder, each as PNG and SVG.

    Args:
        report: The study.
        folder: A folder that is there.
    """
    files = []
    with matplotlib.rc_context(STYLE):
        colors = _colors(len(report.rows))
        for name, figure in (
            ("curves", _curves(report.rows, colors)),
            ("errors", _bars(report.rows, colors)),
            ("cost", _cost(report.rows, colors)),
        ):
            for kind in FORMATS:
                files.append(folder / f"{name}.{kind}")
                figure.savefig(files[-1], dpi=200)
    return files


def _colors(count: int) -> list[tuple[float, ...]]:
    """Grey for the baseline, then colours that can be told apart."""
    palette = matplotlib.colormaps["tab10" if count <= 11 else "turbo"]
    positions = range(count - 1) if count <= 11 else np.linspace(0, 1, count - 1)
    return [(0.35, 0.35, 0.35, 1.0), *(palette(position) for position in positions)]


def _curves(rows: Sequence[Row], colors: Sequence[tuple[float, ...]]) -> Figure:
    """Training and validation error by epoch: the mean of the seeds, and their range as a band."""
    figure = Figure(figsize=(6.5, 3.2), layout="constrained")
    training, validation = figure.subplots(1, 2, sharey=True)
    for row, color in zip(rows, colors, strict=True):
        for axes, split in ((training, "train"), (validation, "val")):
            _band(axes, row.cell, f"{split}/top1", color)
    training.set_ylabel("top-1 error (%)")
    for axes, title in ((training, "training"), (validation, "validation")):
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("epoch")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    validation.legend(fontsize=7)
    return figure


def _band(axes: Axes, cell: Cell, metric: str, color: tuple[float, ...]) -> None:
    """The curve of a cell over the epochs that all its seeds have."""
    curves = [
        {line["epoch"]: 100 * (1 - line[metric]) for line in run.lines if metric in line}
        for run in cell.runs.values()
    ]
    epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = np.array([[curve[epoch] for epoch in epochs] for curve in curves])
    marker = "." if len(epochs) < 4 else ""
    axes.plot(epochs, values.mean(0), color=color, linewidth=1.3, marker=marker, label=cell.name)
    axes.fill_between(epochs, values.min(0), values.max(0), color=color, alpha=0.18, linewidth=0)


def _bars(rows: Sequence[Row], colors: Sequence[tuple[float, ...]]) -> Figure:
    """The final errors with their intervals; each seed is a dot."""
    figure = Figure(figsize=(6.5, 0.7 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots()
    dots: list[float] = []
    for place, (row, color) in enumerate(zip(rows, colors, strict=True)):
        error = row.error
        axes.barh(place, error.mean, color=color, alpha=0.6, height=0.6)
        if error.low is not None and error.high is not None:
            axes.plot((error.low, error.high), (place, place), color="black", linewidth=1.2)
            dots += [error.low, error.high]
        seeds = [100 * (1 - top1) for top1 in row.cell.by_seed("val/top1").values()]
        axes.plot(seeds, [place] * len(seeds), "k.", markersize=4)
        dots += seeds
    # Errors differ by little: the axis shows the differences, and says so.
    reach = max(dots) - min(dots) or 1.0
    left = max(0.0, min(dots) - reach)
    axes.set_xlim(left, max(dots) + 0.15 * reach)
    axes.set_yticks(range(len(rows)), [row.cell.name for row in rows])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    cut = "; the axis does not begin at 0" if left > 0 else ""
    axes.set_xlabel(f"top-1 error (%), lines: 95 % interval, dots: seeds{cut}")
    return figure


def _cost(rows: Sequence[Row], colors: Sequence[tuple[float, ...]]) -> Figure:
    """Accuracy against multiply-accumulates."""
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.subplots()
    for row, color in zip(rows, colors, strict=True):
        error = row.error
        reach = 0.0 if error.high is None else error.high - error.mean
        axes.errorbar(
            row.cost.macs / 1e6,
            100 - error.mean,
            yerr=reach,
            fmt="o",
            markersize=4,
            color=color,
            capsize=2,
            label=row.cell.name,
        )
    macs = [row.cost.macs / 1e6 for row in rows]
    if max(macs) > 3 * min(macs):
        axes.set_xscale("log")
    else:
        # Costs that are all but the same must not look different.
        axes.set_xlim(0.9 * min(macs), 1.1 * max(macs))
        axes.ticklabel_format(axis="x", useOffset=False)
    axes.set_xlabel("MMACs an image")
    axes.set_ylabel("top-1 accuracy (%)")
    axes.legend(fontsize=7)
    return figure
