"""Tables and files of what was found inside the gates of a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from senet_jax.analysis.gates.excitation import Gates
from senet_jax.analysis.gates.plots import (
    draw_depth,
    draw_gates,
    draw_pruning,
    draw_removal,
)
from senet_jax.analysis.gates.probe import EDGE
from senet_jax.analysis.gates.pruning import PruningReport, pruning_csv
from senet_jax.analysis.gates.removal import RemovalReport, removal_csv
from senet_jax.data.class_names import readable
from senet_jax.files import write_text
from senet_jax.interchange.files import save_arrays
from senet_jax.text import comma_separated, markdown_table

CLASS_SHARE = "class share"

HEADER = (
    "block",
    "gates",
    "mean",
    "std over channels",
    "std over images",
    "std over classes",
    CLASS_SHARE,
    "shut",
    "open",
)


def gates_markdown(gates: Sequence[Gates]) -> str:
    """A line for each block and what one must know to read it."""
    count = gates[0].count
    return gates_table(
        gates,
        f"Gates of {count.sum():,} images of {np.count_nonzero(count):,} classes. Deviations over "
        "images and over the means of the classes are averages over the channels.",
        "Class share: the part of the variance over images that lies between classes, adjusted for "
        "their number; near 0 a gate knows nothing of the class.",
    )


def gates_table(gates: Sequence[Gates], about: str, class_share: str | None) -> str:
    """A line for each block, and sentences below.

    Args:
        gates: The gates of the blocks.
        about: The first sentences.
        class_share: Sentences about the class share. If None, the table has no such column.
    """
    header = [column for column in HEADER if column != CLASS_SHARE or class_share]
    rows = []
    for g in gates:
        share = ["" if g.specificity is None else f"{g.specificity:.1%}"] if class_share else []
        rows.append(
            (
                g.block.name,
                " x ".join(map(str, g.block.shape)),
                f"{g.mean.mean():.3f}",
                f"{g.mean.std():.3f}",
                f"{g.std.mean():.3f}",
                f"{np.sqrt(g.between).mean():.3f}",
                *share,
                f"{g.shut:.1%}",
                f"{g.open:.1%}",
            )
        )
    sentences = [
        about,
        *([class_share] if class_share else []),
        f"Shut and open: the share of gates of a magnitude below {EDGE:g} and above {1 - EDGE:g}.",
    ]
    if any(len(g.block.shape) > 1 for g in gates):
        sentences.append("Paths x channels: the weights of paths against each other.")
    if any(g.block.by_pixel for g in gates):
        sentences.append(
            "Pixels have gates of their own here; an image counts by their means, but for shut and "
            "open, which count pixels."
        )
    return f"{markdown_table(header, rows)}\n\n" + " ".join(sentences)


def write_gates(
    gates: Sequence[Gates],
    classes: list[str],
    labels: Sequence[int],
    drawn: Sequence[str],
    folder: Path,
) -> None:
    """Writes numbers and figures of gates into a folder that is there.

    ``gates.npz`` has ``classes``, ``count`` (images of each), and of each block ``BLOCK/mean`` and
    ``BLOCK/std`` (paths if any, channels), ``BLOCK/class_mean`` and ``BLOCK/class_std`` (classes
    first); ``gates.csv`` a line for each channel.

    Args:
        gates: Those of all blocks.
        classes: Names of all classes.
        labels: The classes that are drawn, at most ten.
        drawn: Names of the blocks that are drawn by channel.
        folder: The folder.

    Raises:
        UsageError: A file cannot be written.
    """
    write_text(folder / "gates.csv", comma_separated(gates_csv(gates)))
    _write_arrays(folder / "gates.npz", gates, classes)
    by_name = {g.block.name: g for g in gates}
    draw_gates([by_name[name] for name in drawn], labels, readable(classes), folder)
    draw_depth(gates, folder)


def write_removal(report: RemovalReport, folder: Path) -> None:
    """Writes ``removal`` as CSV, PNG and SVG into a folder; errors as ``write_gates``."""
    write_text(folder / "removal.csv", comma_separated(removal_csv(report)))
    draw_removal(report, folder)


def write_pruning(report: PruningReport, folder: Path) -> None:
    """Writes ``pruning`` as CSV, PNG and SVG into a folder; errors as ``write_gates``."""
    write_text(folder / "pruning.csv", comma_separated(pruning_csv(report)))
    draw_pruning(report, folder)


def gates_csv(gates: Sequence[Gates]) -> list[tuple[object, ...]]:
    """A line for each channel of each block; the numbers by class are in ``gates.npz``."""
    lines: list[tuple[object, ...]] = [
        ("block", "stage", "path", "channel", "mean", "std", "std_within", "std_between")
    ]
    for g in gates:
        for *path, channel in np.ndindex(g.mean.shape):
            place = (*path, channel)
            of_channel = (g.mean, g.std, np.sqrt(g.within), np.sqrt(g.between))
            lines.append(
                (
                    g.block.name,
                    g.block.stage,
                    *(path or [""]),
                    channel,
                    *(float(x[place]) for x in of_channel),
                )
            )
    return lines


def _write_arrays(file: Path, gates: Sequence[Gates], classes: Sequence[str]) -> None:
    arrays: dict[str, Any] = {"classes": np.array(classes), "count": gates[0].count}
    for g in gates:
        for field in ("mean", "std", "class_mean", "class_std"):
            arrays[f"{g.block.name}/{field}"] = getattr(g, field)
    save_arrays(file, arrays)
