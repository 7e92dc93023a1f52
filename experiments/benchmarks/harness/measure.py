"""Common parts of the benchmarks: turns, statistics, the machine, and the form of a result."""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from senet_jax.errors import UsageError
from senet_jax.files import make_folder, write_text
from senet_jax.text import markdown_table
from senet_jax.training.machine.hardware import processor

RESULTS = Path("experiments/results")

Sampler = Callable[[], float]
"""Measures once and returns seconds."""


def interleave(
    samplers: Mapping[str, Sampler], rounds: Mapping[str, int]
) -> dict[str, list[float]]:
    """Measures in turns, A B C, C B A, A B C, ..., so that a slow minute hits all of them.

    Args:
        samplers: By name.
        rounds: The number of rounds, counted from the first, that each takes part in.

    Returns:
        The seconds of each, in the order of the rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in samplers}
    for index in range(max(rounds.values(), default=0)):
        names = [name for name in samplers if index < rounds[name]]
        for name in names if index % 2 == 0 else reversed(names):
            times[name].append(samplers[name]())
    return times


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float
    pairs: int
    """Number of the values."""

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f}, {self.pairs})"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of numbers."""
    low, median, high = np.percentile(values, (25, 50, 75)).tolist()
    return Spread(median, low, high, len(values))


def ratio(times: Sequence[float], base: Sequence[float]) -> Spread:
    """Spread of the ratios of the rounds that both took part in; above one, ``base`` is faster."""
    return spread([time / other for time, other in zip(times, base, strict=False)])


def machine() -> dict[str, Any]:
    """Place, time and versions; all that a repeated run should name."""
    devices = jax.devices()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "platform": platform.platform(),
        "processor": processor() or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 1024} kB",
        "device": devices[0].device_kind,
        "devices": len(devices),
        "load": os.getloadavg()[0],
        "environment": {
            name: value for name, value in os.environ.items() if name.startswith(_TELLING)
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


_TELLING = ("XLA_", "OMP_", "MALLOC_", "GLIBC_TUNABLES")
"""First letters of the environment variables on which speed depends."""

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def _commit() -> str | None:
    """The commit that the source tree is at, with a plus if files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None


def warn_if_busy() -> None:
    """Says so if other processes keep the cores of this machine busy."""
    load = os.getloadavg()[0]
    if load > len(os.sched_getaffinity(0)) / 2:
        print(
            f"this machine is busy (load {load:.1f}): its numbers are not to be published.",
            file=sys.stderr,
        )


def write(out: Path, rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Writes a result atomically: the machine, the command, and one object a row.

    Raises:
        SystemExit: The file cannot be written; the result is printed instead.
    """
    result = {"machine": machine(), "command": sys.argv[1:], **more, "rows": list(rows)}
    text = json.dumps(result, indent=2, default=dataclasses.asdict) + "\n"
    try:
        make_folder(out.parent)
        write_text(out, text)
    except UsageError as error:
        print(text)
        sys.exit(f"error: {error}")


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as a table in Markdown; a field that a row lacks is empty."""

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:,.3f}" if abs(value) < 100 else f"{value:,.0f}"
        return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)

    lines = [[cell(row.get(column)) for column in columns] for row in rows]
    return markdown_table(columns, lines)
