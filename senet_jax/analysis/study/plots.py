"""The figures of a study: curves with the band of the seeds, bars, differences, cost."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from senet_jax.analysis.plots import STYLE, save_figure
from senet_jax.analysis.statistics import Estimate
from senet_jax.analysis.study.cells import Cell
from senet_jax.analysis.study.report import Row, StudyReport
from senet_jax.tasks.metrics import Metric, with_unit
from senet_jax.text import figure_text

FIGURES, FORMATS = ("curves", "errors", "differences", "cost"), ("png", "svg")

Color = tuple[float, ...]
Groups = Mapping[str, Sequence[Row]]

GREY = (0.35, 0.35, 0.35, 1.0)


def draw_study(report: StudyReport, folder: Path) -> list[Path]:
    """Draws ``curves``, ``errors``, ``differences`` and ``cost`` into a folder, as PNG and SVG.

    Without anything that was compared there are no ``differences``.

    Args:
        report: The study.
        folder: A folder that is there.
    """
    groups, metric = report.groups, report.metric
    colors = _colors(report.rows)
    several = len(groups) > 1
    files = []
    with matplotlib.rc_context(STYLE):
        figures = {
            "curves": (
                _panels(groups, metric, colors) if several else _curves(report.rows, metric, colors)
            ),
            "errors": _bars(groups, metric, colors),
            "cost": _cost(groups, metric, colors),
        }
        compared = {
            group: [row for row in rows if row.difference is not None]
            for group, rows in groups.items()
        }
        if any(compared.values()):
            baseline = report.compared_with
            figures["differences"] = _differences(compared, metric, colors, baseline)
        for name, figure in figures.items():
            for kind in FORMATS:
                files.append(folder / f"{name}.{kind}")
                save_figure(figure, files[-1])
    return files


def _label(row: Row) -> str:
    """The name of a cell in its group."""
    return row.cell.name.removeprefix(f"{row.group}/")


def _colors(rows: Sequence[Row]) -> dict[str, Color]:
    """Grey for baselines, then colours that can be told apart, the same in all groups."""
    baselines = {_label(row) for row in rows if row.is_baseline}
    others = list(dict.fromkeys(_label(row) for row in rows if _label(row) not in baselines))
    palette = matplotlib.colormaps["tab10" if len(others) <= 10 else "turbo"]
    positions = range(len(others)) if len(others) <= 10 else np.linspace(0, 1, len(others))
    colors: dict[str, Color] = dict.fromkeys(baselines, GREY)
    for label, position in zip(others, positions, strict=True):
        colors[label] = palette(position)
    return colors


def _curves(rows: Sequence[Row], metric: Metric, colors: Mapping[str, Color]) -> Figure:
    """Training and validation by epoch: the mean of the seeds, and their range as a band."""
    figure = Figure(figsize=(6.5, 3.2), layout="constrained")
    titles = {"train": "training", "val": "validation"}
    if not _trained(rows, metric):
        del titles["train"]
    every = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for row in rows:
        for axes, split in zip(every, titles, strict=True):
            _band(axes, row, metric, split, colors)
    every[0].set_ylabel(f"{figure_text(metric.axis)}{_band_note(rows)}")
    for axes, title in zip(every, titles.values(), strict=True):
        axes.set_title(title, fontsize=9)
        _epochs(axes)
    handles, labels = every[-1].get_legend_handles_labels()
    if len(rows) > MOST_IN_LEGEND:
        figure.legend(handles, labels, fontsize=7, loc="outside right upper")
    else:
        every[-1].legend(fontsize=7)
    return figure


MOST_IN_LEGEND = 8
"""Lines that a legend inside of the axes can name without hiding what they show."""

PANEL = (1.9, 1.7)
"""Width and height of the axes of a group, inches."""


def _panels(groups: Groups, metric: Metric, colors: Mapping[str, Color]) -> Figure:
    """The curves of each group: training thin and dashed, validation with the band of the seeds."""
    columns = min(4, len(groups), math.ceil(math.sqrt(len(groups))) + 1)
    lines = math.ceil(len(groups) / columns)
    width, height = PANEL
    figure = Figure(figsize=(max(columns * width, 4.5), lines * height + 0.6), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(groups) :]:
        axes.axis("off")
    shown: dict[str, Line2D] = {}
    for axes, (group, rows) in zip(grid.flat, groups.items(), strict=False):
        for row in rows:
            color = colors[_label(row)]
            epochs, values = _values(row.cell, metric, "train")
            marker = _marker(epochs)
            axes.plot(
                epochs, values.mean(0), color=color, linewidth=0.7, linestyle="--", marker=marker
            )
            line = _band(axes, row, metric, "val", colors)
            shown[figure_text(_label(row))] = line
        axes.set_title(figure_text(group), fontsize=8)
        _epochs(axes)
        axes.tick_params(labelsize=7)
        axes.set_xlabel("")
        if metric.shown_lower_is_better:
            # A first epoch that is far off would leave the others flat.
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
    everything = [row for rows in groups.values() for row in rows]
    dashed = "dashed: training" if _trained(everything, metric) else "validation"
    scale = "logarithmic, " if metric.shown_lower_is_better else ""
    figure.supxlabel(
        f"epoch\n{dashed}{_band_note(everything)}; axes: {scale}each its own", fontsize=8
    )
    figure.supylabel(figure_text(metric.axis), fontsize=9)
    figure.legend(
        list(shown.values()),
        list(shown),
        fontsize=7,
        loc="outside upper center",
        ncols=min(len(shown), 6),
    )
    return figure


def _epochs(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _values(cell: Cell, metric: Metric, split: str) -> tuple[list[float], np.ndarray]:
    """The epochs that all seeds have, and the metric of each seed at each, as people see it."""
    key = f"{split}/{metric.key}"
    curves = [
        {line["epoch"]: metric.shown(line[key]) for line in run.lines if key in line}
        for run in cell.runs.values()
    ]
    epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
    return epochs, np.array([[curve[epoch] for epoch in epochs] for curve in curves])


def _trained(rows: Sequence[Row], metric: Metric) -> bool:
    """Says if training measures the metric."""
    return any(_values(row.cell, metric, "train")[0] for row in rows)


def _band(axes: Axes, row: Row, metric: Metric, split: str, colors: Mapping[str, Color]) -> Line2D:
    color, label = colors[_label(row)], figure_text(_label(row))
    epochs, values = _values(row.cell, metric, split)
    (line,) = axes.plot(
        epochs, values.mean(0), color=color, linewidth=1.3, marker=_marker(epochs), label=label
    )
    axes.fill_between(epochs, values.min(0), values.max(0), color=color, alpha=0.18, linewidth=0)
    return line


def _marker(epochs: Sequence[float]) -> str:
    """Dots on curves of so few points that a line alone might not be seen."""
    return "." if len(epochs) < 4 else ""


def _band_note(rows: Sequence[Row]) -> str:
    return "; band: all seeds" if any(row.final.count > 1 for row in rows) else ""


BAR, GAP = 0.3, 0.6
"""Height of a bar, inches, and what lies between two groups, in bars."""


def _places(groups: Groups) -> list[tuple[float, Row]]:
    """The place of each row, from the top, with a gap between groups."""
    rows = [(number, row) for number, group in enumerate(groups.values()) for row in group]
    return [(place + GAP * number, row) for place, (number, row) in enumerate(rows)]


def _lanes(groups: Groups, height: float) -> tuple[Figure, Axes, list[tuple[float, Row]]]:
    """A figure with a lane for each row."""
    places = _places(groups)
    figure = Figure(figsize=(6.5, height + BAR * (places[-1][0] + 1)), layout="constrained")
    axes = figure.subplots()
    names = [figure_text(row.cell.name) for _, row in places]
    axes.set_yticks([place for place, _ in places], names)
    axes.set_ylim(places[-1][0] + 0.6, -0.6)
    axes.grid(visible=False, axis="y")
    return figure, axes, places


def _bars(groups: Groups, metric: Metric, colors: Mapping[str, Color]) -> Figure:
    """The final values with their intervals; each seed is a dot."""
    figure, axes, places = _lanes(groups, 0.7)
    dots: list[float] = []
    for place, row in places:
        final = row.final
        axes.barh(place, final.mean, color=colors[_label(row)], alpha=0.6, height=0.6)
        if final.low is not None and final.high is not None:
            axes.plot((final.low, final.high), (place, place), color="black", linewidth=1.2)
            dots += [final.low, final.high]
        seeds = list(row.cell.shown(metric).values())
        axes.plot(seeds, [place] * len(seeds), "k.", markersize=4)
        dots += seeds
    # The values differ by little: the axis shows the differences, and says so.
    reach = max(dots) - min(dots) or 1.0
    left = min(dots) - reach
    if min(dots) >= 0:
        left = max(0.0, left)
    axes.set_xlim(left, max(dots) + 0.15 * reach)
    cut = "; the axis does not begin at 0" if left > 0 else ""
    lines = _lines_note([row.final for _, row in places])
    axes.set_xlabel(f"{figure_text(metric.axis)}{lines}, dots: seeds{cut}")
    return figure


def _lines_note(estimates: Sequence[Estimate]) -> str:
    return ", lines: 95 % interval" if any(each.low is not None for each in estimates) else ""


def _differences(
    groups: Groups, metric: Metric, colors: Mapping[str, Color], baseline: str
) -> Figure:
    """The differences to the baselines with their intervals, and those of the papers."""
    figure, axes, places = _lanes({key: rows for key, rows in groups.items() if rows}, 0.9)
    axes.axvline(0, color=GREY, linewidth=0.8)
    papers = []
    for place, row in places:
        assert row.difference is not None
        gap, color = row.difference.estimate, colors[_label(row)]
        if gap.low is not None and gap.high is not None:
            axes.plot((gap.low, gap.high), (place, place), color=color, linewidth=1.6)
        axes.plot([gap.mean], [place], "o", color=color, markersize=5)
        if row.published_difference is not None:
            papers += axes.plot(
                [row.published_difference], [place], "D", color="black", fillstyle="none"
            )
    lines = _lines_note([row.difference.estimate for _, row in places if row.difference])
    what = f"difference in {figure_text(metric.shown_title)} to {figure_text(baseline)}"
    axes.set_xlabel(f"{with_unit(what, figure_text(metric.points))}{lines}")
    if papers:
        figure.legend(papers[:1], ["paper"], fontsize=7, loc="outside upper right")
    return figure


def _cost(groups: Groups, metric: Metric, colors: Mapping[str, Color]) -> Figure:
    """The metric against multiply-accumulates; of several groups, with lines from the baselines.

    Where tables show errors, this shows the accuracy.
    """
    rows = [row for group in groups.values() for row in group]
    several = len(groups) > 1
    figure = Figure(
        figsize=(6.0 if several or len(rows) > MOST_IN_LEGEND else 4.5, 3.6), layout="constrained"
    )
    axes = figure.subplots()
    costs = [row.cost.macs / 1e6 for row in rows]
    at = dict(zip((row.cell.name for row in rows), _apart(costs), strict=True))
    for row in rows:
        final = row.final
        # An interval that ends at 0 or 100 % does not have the mean in its middle.
        below = [0.0 if final.low is None else final.mean - final.low]
        above = [0.0 if final.high is None else final.high - final.mean]
        axes.errorbar(
            at[row.cell.name],
            _height(row, metric),
            yerr=[above, below] if metric.as_error else [below, above],
            fmt="o",
            markersize=4,
            color=colors[_label(row)],
            capsize=2,
            label=figure_text(_label(row)),
        )
    if several:
        for group, members in groups.items():
            points = [(at[row.cell.name], _height(row, metric)) for row in members]
            for point in points[1:]:
                pair = zip(points[0], point, strict=True)
                axes.plot(*pair, color=GREY, linewidth=0.6, zorder=0)
            name = figure_text(group)
            axes.annotate(name, points[0], xytext=(5, -8), textcoords="offset points", fontsize=6)
    if max(costs) > 3 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    else:
        # Costs that are all but the same must not look different.
        axes.set_xlim(0.9 * min(costs), 1.1 * max(costs))
        axes.ticklabel_format(axis="x", useOffset=False)
    moved = list(at.values()) != costs
    axes.set_xlabel(f"MMACs an image{' (where they agree, moved apart)' if moved else ''}")
    axes.set_ylabel(figure_text(f"{metric.title} accuracy (%)" if metric.as_error else metric.axis))
    named = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    handles, labels = list(named.values()), list(named)
    if len(named) > MOST_IN_LEGEND:
        figure.legend(handles, labels, fontsize=7, loc="outside right upper")
    else:
        axes.legend(handles, labels, fontsize=7)
    return figure


def _height(row: Row, metric: Metric) -> float:
    return 100 - row.final.mean if metric.as_error else row.final.mean


MARKERS = 60
"""Points side by side that fill the width of the figure of cost."""


def _apart(costs: Sequence[float]) -> list[float]:
    """Costs at which no point hides another: those within a marker are spread around it."""
    width = max(1.2, max(costs) / min(costs))
    marker, step = width ** (1 / MARKERS), width ** (2 / MARKERS)
    clusters: list[list[int]] = []
    for index in sorted(range(len(costs)), key=costs.__getitem__):
        if clusters and costs[index] <= costs[clusters[-1][0]] * marker:
            clusters[-1].append(index)
        else:
            clusters.append([index])
    apart = list(costs)
    for cluster in clusters:
        for place, index in enumerate(cluster):
            apart[index] *= step ** (place - (len(cluster) - 1) / 2)
    return apart
