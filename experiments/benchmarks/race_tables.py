"""The tables of the races, from their results: one table for each commit that was measured.

    python -m experiments.benchmarks.race_tables

prints Markdown for ``experiments/benchmarks/README.md`` from the JSON that ``race`` wrote into
``experiments/results/race``. A number is the time of senet_jax over that of the other: the median
of the paired ratios with their quartiles. Below one, senet_jax is faster.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results" / "race"
RATIO = "senet_jax / this"
OTHERS = {
    "PyTorch": ("PyTorch", "timm"),
    "torch.compile": ("torch.compile",),
    "plain Flax": ("plain Flax",),
}
"""Columns, and the names of the contenders in each."""
MODES = {"train": "training", "infer": "inference"}


def tables(folder: Path = RESULTS) -> Iterator[str]:
    """Returns a caption and a table for each commit, in the order in which they were measured.

    Args:
        folder: The folder of the results, which are read from its subfolders, too.
    """
    results = [json.loads(file.read_text()) for file in sorted(folder.rglob("*.json"))]
    results = [result for result in results if any(RATIO in row for row in result["rows"])]
    results.sort(key=lambda result: result["machine"]["date"])
    for commit in dict.fromkeys(result["machine"]["commit"] for result in results):
        yield _table(commit, [r for r in results if r["machine"]["commit"] == commit])


def _table(commit: str, results: list[Mapping[str, Any]]) -> str:
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for result in results:
        for row in result["rows"]:
            network = f"{row['model']}, {row['batch']} of {row['size']}"
            cell = cells.setdefault((network, MODES[row["mode"]]), {})
            for column, names in OTHERS.items():
                if row["contender"] in names and RATIO in row:
                    cell[column] = _ratio(row[RATIO])
    columns = [column for column in OTHERS if any(column in cell for cell in cells.values())]
    lines = [
        f"| network, images of pixels | step | {' | '.join(columns)} |",
        "|---|---|" + "---|" * len(columns),
    ]
    for (network, mode), cell in sorted(cells.items()):
        values = (cell.get(column, "not measured") for column in columns)
        lines.append(f"| {network} | {mode} | {' | '.join(values)} |")
    machine, peer = results[0]["machine"], results[0]["peer"]
    options = f", {peer['torch_options'].replace('_', ' ')}" if peer.get("torch_options") else ""
    caption = (
        f"Commit `{commit}`, {machine['date'][:10]}, {machine['processor']}, "
        f"PyTorch {peer['torch'].partition('+')[0]}{options}:"
    )
    return "\n".join([caption, "", *lines])


def _ratio(spread: Mapping[str, float]) -> str:
    digits = 2 if spread["median"] >= 0.1 else 3
    median, low, high = (f"{spread[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


if __name__ == "__main__":
    print("\n\n".join(tables()))
