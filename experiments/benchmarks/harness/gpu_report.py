"""The tables and figures of a run of ``gpu.py``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import convolutions, normalization
from experiments.benchmarks.harness import cifar_seeds
from experiments.benchmarks.harness.contenders import COLUMNS, OURS, PLAIN_FLAX
from experiments.benchmarks.harness.gpu_parts import PARTS
from experiments.benchmarks.harness.measure import Spread, table
from experiments.benchmarks.se_overhead import COLUMNS as OVERHEAD_COLUMNS
from senet_jax.analysis.plots import STYLE, save_figure
from senet_jax.analysis.statistics import LEVEL, difference, estimate
from senet_jax.errors import UsageError
from senet_jax.files import read_text, write_text

ACCOUNTS = Path(__file__).resolve().parents[2] / "results" / "gpu_account"
"""The folder of the accounts of ``gpu_account``."""

TITLES = {
    "race": ("ResNet-50 and SE-ResNet-50", COLUMNS),
    "cifar": ("CIFAR-10 with and without SE", cifar_seeds.COLUMNS),
    "large": ("ResNeSt-50 and SE-ResNeXt-101", COLUMNS),
    "lowerings": ("Forms of convolutions", convolutions.COLUMNS),
    "detector": ("Mask R-CNN", COLUMNS),
    "overhead": ("The cost of attention", OVERHEAD_COLUMNS),
    "norms": ("Batch norm, SE, max pool and split attention", normalization.COLUMNS),
}
"""Title and columns of the table of each part."""

BYTE_COLUMNS = ("network", "contender", "ms a step", "GB of the account", "TB/s")

Row = Mapping[str, Any]


def report(folder: Path, accounts: Path = ACCOUNTS) -> str:
    """Writes ``README.md`` and the figures into the folder of a run.

    Args:
        folder: The results of ``gpu.py run``; a part that did not run has none.
        accounts: The folder of the accounts of bytes.

    Returns:
        The text of ``README.md``.

    Raises:
        UsageError: The folder has no results.
    """
    results = {name: _read(folder / f"{name}.json") for name in PARTS}
    results = {name: result for name, result in results.items() if result is not None}
    if not results:
        raise UsageError(f"{folder} has no results of a part: run gpu.py run --out {folder} first.")
    machine = next(iter(results.values()))["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = [
        "# One GPU",
        f"Commit `{machine['commit']}`, {machine['date'][:10]}, {machine['device']}, {versions}.",
    ]
    for name, result in results.items():
        title, columns = TITLES[name]
        lines += [f"## {title}", table([_readable(row) for row in result["rows"]], columns)]
        if result["skipped"]:
            lines.append("Left out: " + "; ".join(result["skipped"]) + ".")
        if name == "cifar":
            lines += _compared(result["rows"], folder)
    rows = with_bytes([row for part in results.values() for row in part["rows"]], accounts)
    if rows:
        title = "## Seconds beside the bytes that the account foretold"
        lines += [title, table(rows, BYTE_COLUMNS), "![Milliseconds against bytes](bytes.png)"]
        _draw_bytes(rows, folder / "bytes.png")
    text = "\n\n".join(lines) + "\n"
    write_text(folder / "README.md", text)
    return text


def _read(file: Path) -> Any:
    return json.loads(read_text(file)) if file.exists() else None


def _readable(row: Row) -> dict[str, Any]:
    """A row whose spreads are text."""
    return {
        name: str(Spread(**value)) if isinstance(value, dict) and "median" in value else value
        for name, value in row.items()
    }


def _compared(rows: Sequence[Row], folder: Path) -> list[str]:
    """The sentences and the figure of the errors of two networks, paired by seed."""
    errors: dict[str, dict[int, float]] = {}
    for row in rows:
        errors.setdefault(row["network"], {})[row["seed"]] = row["test error, %"]
    if len(errors) < 2:
        return []
    (plain, base), (name, other) = list(errors.items())[:2]
    found = difference(other, base)
    if found is None or found.estimate.low is None:
        return ["So few seeds give no interval."]
    _draw_errors(errors, folder / "cifar.png")
    gap = found.estimate
    means = [f"{each} {estimate(list(own.values())).mean:.2f} %" for each, own in errors.items()]
    interval = f"{gap.mean:+.2f} points [{gap.low:.2f}, {gap.high:.2f}]"
    return [
        f"Test error: {', '.join(means)}. The difference of {name} to {plain}, paired by seed, is "
        f"{interval}, an interval of {LEVEL:.0%}.",
        "![Test error of each seed](cifar.png)",
    ]


def with_bytes(rows: Sequence[Row], accounts: Path) -> list[dict[str, Any]]:
    """The training steps of classifiers of which an account has the bytes, with both.

    An account is of a batch of its own: its bytes are scaled to the images of the step. Detectors
    have none here, because their account is of larger images.

    Args:
        rows: Rows of the parts.
        accounts: The folder of the accounts.
    """
    foretold: dict[tuple[str, int], float] = {}
    for file in sorted(accounts.glob("*.json")):
        account = json.loads(read_text(file))
        for each in account["rows"]:
            foretold[each["network"], account["size"]] = each["GB"] / account["batch"]
    found = []
    for row in rows:
        if row.get("mode") != "train" or not row.get("step_s"):
            continue
        flax = row["contender"] == PLAIN_FLAX
        network = row["model"] + (", plain Flax" if flax else "")
        key = (network, row["size"])
        if key in foretold and (flax or row["contender"] == OURS):
            seconds, gigabytes = row["step_s"]["median"], foretold[key] * row["batch"]
            found.append(
                {
                    "network": row["model"],
                    "contender": row["contender"],
                    "ms a step": 1e3 * seconds,
                    "GB of the account": gigabytes,
                    "TB/s": gigabytes / 1e3 / seconds,
                }
            )
    return found


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _draw_errors(errors: Mapping[str, Mapping[int, float]], out: Path) -> None:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(4.5, 3)
        for place, own in enumerate(errors.values()):
            axes.plot([place] * len(own), list(own.values()), "o", alpha=0.6)
            axes.plot(
                [place - 0.2, place + 0.2], [estimate(list(own.values())).mean] * 2, color="black"
            )
        axes.set(xticks=range(len(errors)), xticklabels=list(errors), ylabel="test error, %")
        axes.set_xlim(-0.6, len(errors) - 0.4)
        save_figure(figure, out)


def _draw_bytes(rows: Sequence[Row], out: Path) -> None:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(5, 3.4)
        for row in rows:
            place = (row["GB of the account"], row["ms a step"])
            axes.plot(*place, "s" if row["contender"] == PLAIN_FLAX else "o", color="#0b5394")
            axes.annotate(f" {row['network']}, {row['contender']}", place, fontsize=6)
        axes.set(xlabel="GB that the account foretells", ylabel="ms a step", xlim=(0, None))
        axes.set_ylim(0, None)
        save_figure(figure, out)
