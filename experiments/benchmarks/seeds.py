"""The cost of several seeds against one: in turn, as one vmapped program, and as processes at once.

    python -m experiments.benchmarks.seeds

measures, for a network on synthetic images, the rate of training (images/s over all seeds) of

- ``one``: one run in one process, which is also the rate of seeds one after the other,
- ``vmap``: all seeds as one program, the step mapped over a leading axis of states and batches,
- ``processes``: as many processes as seeds at once on the same device or cores,
- ``pinned``: likewise, each on cores of its own (on CPUs alone),

in turns, each relative to ``one`` of its round, and what the second seed waits for its first step:
in the process of the first, which has the program, and in a new one with the compilation cache.
`senet_jax.studies.slots` follows what this finds; on several GPUs it gives each a run.
"""

import dataclasses
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import tyro

from experiments.benchmarks.harness.measure import RESULTS, interleave, ratio, spread, table, write
from experiments.benchmarks.harness.trainer import Trainer

COLUMNS = ("model", "way", "images/s", "times the rate of one")


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Measure what several seeds cost against one."""

    models: tuple[str, ...] = ("cifar_seresnet8",)
    """Names that `senet-jax models` lists."""
    seeds: int = 2
    """Number of seeds at once."""
    batch: int = 128
    """Images of a step."""
    steps: int = 8
    """Steps of a measurement."""
    rounds: int = 5
    """Measurements of each way."""
    out: Path = RESULTS / "seeds" / "cpu.json"
    """File of the results."""


def main() -> None:
    """Measures, prints the table and writes it with all numbers."""
    options = tyro.cli(Seeds, description=__doc__)
    rows: list[dict[str, Any]] = []
    raw: dict[str, Any] = {}
    for model in options.models:
        times = _measure(model, options)
        images = options.batch * options.steps
        for way, seconds in times.items():
            count = 1 if way == "one" else options.seeds
            per_seed = [second / count for second in seconds]
            row = {
                "model": model,
                "way": way,
                "images/s": str(spread([images / second for second in per_seed])),
                "times the rate of one": str(ratio(times["one"], per_seed)),
            }
            rows.append(row)
        raw[model] = {"seconds": times, "first step, s": _first_steps(model, options)}
        print(f"{model}: seconds to the first step: {raw[model]['first step, s']}", flush=True)
    print(table(rows, COLUMNS))
    write(options.out, rows, options=dataclasses.asdict(options) | {"out": ""}, raw=raw)


def _measure(model: str, options: Seeds) -> dict[str, list[float]]:
    """Seconds of so many steps of all seeds, by way and round."""
    everyone = sorted(os.sched_getaffinity(0))
    share = len(everyone) // options.seeds
    pinned = [everyone[index * share : (index + 1) * share] for index in range(options.seeds)]
    wanted = {"model": model, "batch": options.batch, "seeds": 1}
    with tempfile.TemporaryDirectory() as cache:
        one = Trainer(wanted, cache)
        groups = {
            "one": [one],
            "vmap": [Trainer(wanted | {"seeds": options.seeds}, cache)],
            "processes": [Trainer(wanted, cache) for _ in range(options.seeds)],
        }
        if one.backend == "cpu" and share:
            groups["pinned"] = [Trainer(wanted | {"cores": cores}, cache) for cores in pinned]

        def sampler(group: list[Trainer]) -> Any:
            def sample() -> float:
                began = time.perf_counter()
                for trainer in group:
                    trainer.start(options.steps)
                for trainer in group:
                    trainer.finish()
                return time.perf_counter() - began

            return sample

        samplers = {way: sampler(group) for way, group in groups.items()}
        times = interleave(samplers, dict.fromkeys(samplers, options.rounds))
        for group in groups.values():
            for trainer in group:
                trainer.close()
    return times


def _first_steps(model: str, options: Seeds) -> dict[str, float]:
    """Seconds to the first step of a seed: the first, a second in its process, one in another."""
    wanted = {"model": model, "batch": options.batch, "seeds": 1, "again": True}
    with tempfile.TemporaryDirectory() as cache:
        first = Trainer(wanted, cache)
        first.close()
        other = Trainer(wanted, cache)
        other.close()
    return {
        "first seed": first.ready_s[0],
        "another in its process": first.ready_s[1],
        "another in a process of its own": other.ready_s[0],
    }


if __name__ == "__main__":
    main()
