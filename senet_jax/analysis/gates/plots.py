"""The figures of gates: by channel as in the SENet paper, by depth, and after interventions."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from senet_jax.analysis.gates.excitation import Gates
from senet_jax.analysis.gates.grad_cam import GradCAM
from senet_jax.analysis.gates.pruning import GATE, OUTPUT, RANDOM, PruningReport
from senet_jax.analysis.gates.removal import RemovalReport, increase
from senet_jax.analysis.pictures import wrap
from senet_jax.analysis.plots import STYLE, save_figure
from senet_jax.text import figure_text

FORMATS = ("png", "svg")
COLORS = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
ALL = {"color": "black", "linewidth": 1.2, "label": "all"}


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes a figure as PNG and SVG."""
    files = [folder / f"{name}.{kind}" for kind in FORMATS]
    for file in files:
        save_figure(figure, file)
    return files


def draw_gates(
    gates: Sequence[Gates], labels: Sequence[int], classes: Sequence[str], folder: Path
) -> list[Path]:
    """Draws ``gates``: mean and deviation of the gate by channel, for some classes and for all.

    Args:
        gates: The blocks to draw, a row each.
        labels: The classes to draw, at most ten.
        classes: Names of all classes.
        folder: A folder that is there.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 0.6 + 1.5 * len(gates)), layout="constrained")
        grid = figure.subplots(len(gates), 2, squeeze=False)
        for row, g in zip(grid, gates, strict=True):
            for axes, of_class, of_all in zip(
                row, (g.class_mean, g.class_std), (g.mean, g.std), strict=True
            ):
                for color, label in zip(COLORS, labels, strict=False):
                    axes.plot(
                        of_class[label].ravel(),
                        color=color,
                        linewidth=0.7,
                        alpha=0.9,
                        label=figure_text(classes[label]),
                    )
                axes.plot(of_all.ravel(), **ALL)
                axes.set_xlim(-0.5, of_all.size - 0.5)
                axes.margins(y=0.05)
                for path in range(1, len(of_all.reshape(-1, of_all.shape[-1]))):
                    axes.axvline(path * of_all.shape[-1] - 0.5, color="black", linestyle=":")
            row[0].set_ylabel(g.block.name, fontsize=8)
        some = len(labels) < len(classes)
        shown = f", {len(labels)} of {len(classes)} classes" if some else ""
        grid[0, 0].set_title(f"mean gate{shown}", fontsize=9)
        grid[0, 1].set_title("standard deviation over images", fontsize=9)
        paths = any(len(g.block.shape) > 1 for g in gates)
        for axes in grid[-1]:
            axes.set_xlabel("channel index" + (", path after path" if paths else ""))
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(),
            loc="outside upper center",
            ncols=len(labels) + 1,
            fontsize=7,
        )
        return save(figure, folder, "gates")


def draw_depth(gates: Sequence[Gates], folder: Path) -> list[Path]:
    """Draws ``depth``: what becomes of the gates from the first block to the last."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 3.2), layout="constrained")
        levels, shares = figure.subplots(1, 2)
        places = range(len(gates))
        for name, values in (
            ("over channels", [g.mean.std() for g in gates]),
            ("over images", [g.std.mean() for g in gates]),
            ("over classes", [np.sqrt(g.between).mean() for g in gates]),
        ):
            levels.plot(places, values, marker=".", linewidth=1.1, label=f"deviation {name}")
        levels.plot(places, [g.mean.mean() for g in gates], marker=".", **{**ALL, "label": "mean"})
        for name, parts in (
            ("class share of the variance", [g.specificity for g in gates]),
            ("shut", [g.shut for g in gates]),
            ("open", [g.open for g in gates]),
        ):
            percents = [np.nan if part is None else 100 * part for part in parts]
            if np.isnan(percents).all():
                continue
            shares.plot(places, percents, marker=".", linewidth=1.1, label=name)
        levels.set_ylabel("gate")
        shares.set_ylabel("%")
        for axes in (levels, shares):
            axes.set_ylim(bottom=min(0.0, axes.dataLim.y0))
            axes.set_xticks(
                places, [g.block.name for g in gates], rotation=90, fontsize=_small(len(gates))
            )
            axes.legend(fontsize=7)
        return save(figure, folder, "depth")


def draw_removal(report: RemovalReport, folder: Path) -> list[Path]:
    """Draws ``removal``: what taking out the attention of a part adds to the error."""
    with matplotlib.rc_context(STYLE):
        rows = report.rows
        figure = Figure(figsize=(6.5, 0.9 + 0.36 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for shift, color, name, variants in (
            (-0.2, "#888888", "no gate", [row.neutral for row in rows]),
            (0.2, "#0b5394", "mean gate", [row.mean for row in rows]),
        ):
            gaps = [increase(answers, report.whole) for answers in variants]
            places = np.arange(len(rows)) + shift
            axes.barh(places, [g.mean for g in gaps], height=0.36, color=color, label=name)
            for place, gap in zip(places, gaps, strict=True):
                if gap.low is not None and gap.high is not None:
                    axes.plot((gap.low, gap.high), (place, place), color="black", linewidth=1)
        names = [f"{row.what}: -{row.params:,}" for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=8)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlabel("top-1 error above the whole network's (points), lines: 95 % interval")
        axes.set_ylabel("removed: parameters")
        axes.legend(fontsize=7)
        return save(figure, folder, "removal")


def draw_pruning(report: PruningReport, folder: Path) -> list[Path]:
    """Draws ``pruning``: the error by the share of channels that are shut, for each ranking."""
    with matplotlib.rc_context(STYLE):
        parts = list(dict.fromkeys(row.what for row in report.rows))
        columns = min(3, len(parts))
        rows = -(-len(parts) // columns)
        figure = Figure(figsize=(2.5 * columns, 0.5 + 2.1 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, part in itertools.zip_longest(grid.flat, parts):
            if part is None:
                axes.axis("off")
                continue
            _pruned(axes, report, part)
        for axes in grid[:, 0]:
            axes.set_ylabel("top-1 error (%)")
        grid[0, 0].legend(fontsize=7)
        return save(figure, folder, "pruning")


def _pruned(axes: Axes, report: PruningReport, part: str) -> None:
    rows = sorted((row for row in report.rows if row.what == part), key=lambda row: row.percent)
    for ranking, color, label in (
        (GATE, "#0b5394", "lowest gate"),
        (OUTPUT, "#b45f06", "lowest gate x input"),
        (RANDOM, "#888888", "random, and its range"),
    ):
        errors = [[one.error for one in row.answers.get(ranking, [])] for row in rows]
        if not all(errors):
            continue
        percents = [0.0, *(row.percent for row in rows)]
        errors = [[report.whole.error], *errors]
        means, least, most = (np.array([f(e) for e in errors]) for f in (np.mean, min, max))
        axes.plot(percents, means, marker=".", color=color, linewidth=1.2, label=label)
        axes.fill_between(percents, least, most, color=color, alpha=0.2, linewidth=0)
    axes.set_title(part, fontsize=8)
    axes.set_xlabel("channels shut (%)")
    axes.set_ylim(bottom=0)


def draw_grad_cam(
    images: Sequence[UInt8[np.ndarray, "n h w c"]],
    maps: Sequence[GradCAM],
    networks: Sequence[str],
    titles: Sequence[str],
    folder: Path,
) -> list[Path]:
    """Draws ``grad_cam``: each image, and where each network looks in it.

    Args:
        images: The images as each network is shown them.
        maps: The maps of each network.
        networks: Their names.
        titles: A title beside each image.
        folder: A folder that is there.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        count, columns = len(titles), 1 + len(maps)
        figure = Figure(figsize=(0.8 + 1.7 * columns, 0.4 + 1.75 * count), layout="constrained")
        grid = figure.subplots(count, columns, squeeze=False)
        for place, (row, title) in enumerate(zip(grid, titles, strict=True)):
            _show(row[0], images[0][place])
            row[0].set_ylabel(wrap(title), fontsize=7)
            for axes, shown, one in zip(row[1:], images, maps, strict=True):
                _show(axes, shown[place])
                heat = one.fine[place]
                axes.imshow(heat / (heat.max() or 1), cmap="turbo", vmin=0, vmax=1, alpha=0.45)
                axes.set_xlabel(
                    f"p = {one.probability[place, one.label[place]]:.3f}"
                    + ("" if heat.any() else ", nothing speaks for it"),
                    fontsize=7,
                )
        grid[0, 0].set_title("image", fontsize=8)
        for axes, name in zip(grid[0, 1:], networks, strict=True):
            axes.set_title(wrap(name), fontsize=7)
        figure.supxlabel("blue: 0, red: the map's maximum; p: probability of the class", fontsize=7)
        return save(figure, folder, "grad_cam")


def _show(axes: Axes, image: UInt8[np.ndarray, "h w c"]) -> None:
    axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _small(labels: int) -> float:
    """The font size for this many labels under an axis."""
    return max(3.0, min(7.0, 150 / labels))
