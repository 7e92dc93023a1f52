"""The time that a CPU saves by keeping freed memory, which XLA asks for again at each step.

    python -m experiments.benchmarks.allocator

trains networks on synthetic images in two processes, one as glibc's malloc comes and one after
`senet_jax.training.machine.allocator.keep_freed_memory`, in turns: seconds, pages that the system
maps and zeroes, and the peak of the memory.
"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import tyro

from experiments.benchmarks.harness.measure import (
    RESULTS,
    Sampler,
    interleave,
    ratio,
    spread,
    table,
    warn_if_busy,
    write,
)
from experiments.benchmarks.harness.trainer import Trainer
from senet_jax.models import zoo

COLUMNS = ("model", "batch", "allocator", "step, s", "time / default", "pages a step", "peak, MB")

DEFAULT, KEEPING = "default", "keeping"


@dataclasses.dataclass(frozen=True)
class Allocator:
    """Measure what keeping freed memory saves."""

    models: tuple[str, ...] = ("cifar_seresnet8", "cifar_seresnet20", "resnet50", "resnest50d")
    """Names that `senet-jax models` lists."""
    batch: int | None = None
    """Images of a step; None means 128 of 32 pixels, 8 of larger ones."""
    steps: int = 4
    """Steps of a measurement."""
    rounds: int = 9
    """Measurements of each."""
    out: Path = RESULTS / "allocator" / "cpu.json"
    """File of the results."""


def main() -> None:
    """Measures, prints the table and writes it with all numbers."""
    options = tyro.cli(Allocator, description=__doc__)
    warn_if_busy()
    rows: list[dict[str, Any]] = []
    raw: dict[str, Any] = {}
    for model in options.models:
        batch = options.batch or (128 if zoo.find(model).input_size == 32 else 8)
        times, usage = _measure(model, batch, options)
        for name, seconds in times.items():
            rows.append(
                {
                    "model": model,
                    "batch": batch,
                    "allocator": name,
                    "step, s": str(spread([each / options.steps for each in seconds])),
                    "time / default": str(ratio(seconds, times[DEFAULT])),
                    "pages a step": usage[name]["pages"] / options.steps,
                    "peak, MB": usage[name]["peak, MB"],
                }
            )
        raw[model] = times
        print(table(rows[-2:], COLUMNS), flush=True)
    print(table(rows, COLUMNS))
    write(options.out, rows, options=dataclasses.asdict(options) | {"out": ""}, raw=raw)


def _measure(
    model: str, batch: int, options: Allocator
) -> tuple[dict[str, list[float]], dict[str, dict[str, float]]]:
    """Seconds of so many steps by allocator and round, and what else was used in the last."""
    wanted = {"model": model, "batch": batch, "seeds": 1}
    usage: dict[str, dict[str, float]] = {}

    def sampler(name: str, trainer: Trainer) -> Sampler:
        def sample() -> float:
            began = time.perf_counter()
            trainer.start(options.steps)
            usage[name] = trainer.finish()
            return time.perf_counter() - began

        return sample

    with tempfile.TemporaryDirectory() as cache:
        trainers = {
            name: Trainer(wanted | {"keep_memory": name == KEEPING}, cache)
            for name in (DEFAULT, KEEPING)
        }
        samplers = {name: sampler(name, trainer) for name, trainer in trainers.items()}
        times = interleave(samplers, dict.fromkeys(samplers, options.rounds))
        for trainer in trainers.values():
            trainer.close()
    return times, usage


if __name__ == "__main__":
    main()
