"""The cost of attention: a step of a network with it, over one of the network without it.

    python -m experiments.benchmarks.se_overhead

measures the variants in turns and prints the median of the paired ratios with their quartiles and
number, for training and inference.
"""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.benchmarks.harness.contenders import Contender, JaxContender, compete, rows
from experiments.benchmarks.harness.jobs import Job, Mode
from experiments.benchmarks.harness.measure import RESULTS, ratio, table, write

COLUMNS = ("mode", "contender", "images/s", "this / without", "compile s", "peak MiB", "params")


@dataclasses.dataclass(frozen=True)
class Overhead:
    """Measure what attention costs."""

    without: str = "resnet50"
    """The network without attention."""
    variants: tuple[str, ...] = ("seresnet50", "resnet50+se", "resnet50+eca")
    """Networks with attention: names, or a network "+" another attention. ("seresnet50" has the
    hidden widths of timm, "resnet50+se" those of the paper.)"""
    modes: tuple[Mode, ...] = ("train", "infer")
    """Training steps, inference, or both."""
    batch: int = 8
    """Images of a step."""
    size: int = 224
    """Side of the images, pixels."""
    dtype: str = "float32"
    """Compute precision."""
    pairs: int = 15
    """Rounds of measurements."""
    sample_s: float = 1.0
    """Seconds of a measurement, or those of one step if that is more."""
    out: Path = RESULTS / "se_overhead.json"
    """The result."""


def run(overhead: Overhead) -> list[dict[str, Any]]:
    """Measures all variants, mode by mode."""
    found: list[dict[str, Any]] = []
    for mode in overhead.modes:
        job = Job(overhead.without, mode, overhead.batch, overhead.size, overhead.dtype)
        contenders: dict[str, Contender] = {}
        for name in (overhead.without, *overhead.variants):
            own = dataclasses.replace(job, model=name)
            contenders[name] = JaxContender(own.build(), own)
        found += compare(job, contenders, overhead.pairs, overhead.sample_s)
        for contender in contenders.values():
            contender.close()
    return found


def compare(
    job: Job, contenders: dict[str, Contender], pairs: int, sample_s: float
) -> list[dict[str, Any]]:
    """Measures contenders in turns, and divides their times by those of ``job.model``."""
    times = compete(contenders, pairs, sample_s)
    lines = rows(job, contenders, times)
    for line in lines:
        line["this / without"] = ratio(times[line["contender"]], times[job.model])
    return lines


def main() -> None:
    """Runs the benchmark."""
    import tyro  # Not at the top, because gpu.py runs where it is not installed.

    overhead = tyro.cli(Overhead, description=__doc__)
    found = run(overhead)
    write(overhead.out, found)
    print(f"{table(found, COLUMNS)}\n\n{overhead.out}")


if __name__ == "__main__":
    main()
