"""What several seeds cost against one: in turn, as one vmapped program, and as processes at once.

    python -m experiments.benchmarks.seeds

measures, for a network on synthetic images, the rate of training (images/s over all seeds) of

- ``one``: one run in one process, which is also the rate of seeds one after the other,
- ``vmap``: all seeds as one program, the step mapped over a leading axis of states and batches,
- ``processes``: as many processes as seeds at once on the same device or cores,
- ``pinned``: likewise, each on cores of its own (on CPUs alone),

in turns, each relative to ``one`` of its round, and what the second seed waits for its first step:
in the process of the first, which has the program, and in a new one with the compilation cache.
`senet_jax.studies.places` follows what this finds; on several GPUs it gives each a run.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import tyro

from experiments.benchmarks.measure import RESULTS, interleave, ratio, spread, table, write

COLUMNS = ("model", "way", "images/s", "times the rate of one")


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Measure what several seeds cost against one."""

    models: tuple[str, ...] = ("cifar_seresnet8",)
    """Names that `senet-jax models` lists."""
    seeds: int = 2
    """How many seeds at once."""
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
    if len(sys.argv) > 1 and sys.argv[1] == "--serve":
        _serve(int(sys.argv[2]), json.loads(sys.argv[3]))
        return
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
        one = _Trainer(wanted, cache)
        groups = {
            "one": [one],
            "vmap": [_Trainer(wanted | {"seeds": options.seeds}, cache)],
            "processes": [_Trainer(wanted, cache) for _ in range(options.seeds)],
        }
        if one.backend == "cpu" and share:
            groups["pinned"] = [_Trainer(wanted | {"cores": cores}, cache) for cores in pinned]

        def sampler(group: list[_Trainer]) -> Any:
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
        first = _Trainer(wanted, cache)
        first.close()
        other = _Trainer(wanted, cache)
        other.close()
    return {
        "first seed": first.ready_s[0],
        "another in its process": first.ready_s[1],
        "another in a process of its own": other.ready_s[0],
    }


class _Trainer:
    """A process that trains when asked to."""

    def __init__(self, wanted: dict[str, Any], cache: str) -> None:
        self._orders, theirs = Pipe()
        began = time.perf_counter()
        command = [sys.executable, "-m", "experiments.benchmarks.seeds", "--serve"]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), json.dumps(wanted)],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
            )
        self.backend: str = self._orders.recv()
        self.ready_s = [time.perf_counter() - began]
        if "again" in wanted:
            began = time.perf_counter()
            self._orders.recv()
            self.ready_s.append(time.perf_counter() - began)

    def start(self, steps: int) -> None:
        self._orders.send(steps)

    def finish(self) -> None:
        self._orders.recv()

    def close(self) -> None:
        self._orders.close()
        self._process.wait()


def _serve(handle: int, wanted: dict[str, Any]) -> None:
    if "cores" in wanted:
        os.sched_setaffinity(0, wanted["cores"])
    orders = Connection(handle)
    import jax

    run, state, batch, step = _set_up(wanted)
    state, _ = jax.block_until_ready(step(state, batch))
    orders.send(jax.default_backend())
    if "again" in wanted:
        other = run.with_seed(1, Path("unused"))
        jax.block_until_ready(other.train_step(other.fresh_state(), batch))
        orders.send("ready")
    while True:
        try:
            steps = orders.recv()
        except EOFError:
            return
        for _ in range(steps):
            state, _ = step(state, batch)
        jax.block_until_ready(state)
        orders.send("done")


def _set_up(wanted: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """The run of the first seed; the state, batch and step of as many as are wanted."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from senet_jax.data.card import known_card
    from senet_jax.models import zoo
    from senet_jax.training.config import ModelConfig, TrainConfig
    from senet_jax.training.presets import preset
    from senet_jax.training.run import Run
    from senet_jax.training.step import key_data

    size = zoo.find(wanted["model"]).input_size
    data = "cifar10" if size == 32 else "imagenet2012"
    base = preset("cifar10") if data == "cifar10" else TrainConfig()
    config = dataclasses.replace(
        base,
        model=ModelConfig(name=wanted["model"]),
        data=dataclasses.replace(base.data, name=data, batch_size=wanted["batch"]),
    )
    card = known_card(data, size)
    assert card is not None
    run = Run(config, card.stand_in())
    rng = np.random.default_rng(0)
    count, seeds = wanted["batch"], wanted["seeds"]
    batch = {
        "image": rng.integers(0, 256, (count, *run.dataset.image_shape), np.uint8),
        "label": rng.integers(0, len(run.dataset.classes), (count,), np.int32),
    }
    if seeds == 1:
        return run, run.fresh_state(), batch, run.train_step
    several = [run.with_seed(index, Path("unused")) for index in range(seeds)]
    states = jax.tree.map(lambda *x: jnp.stack(x), *(one.fresh_state() for one in several))
    keys = np.stack([key_data(index) for index in range(seeds)])
    mapped = jax.jit(jax.vmap(run.train_step.program), donate_argnums=0)
    batches = jax.tree.map(lambda x: np.stack([x] * seeds), batch)
    return run, states, batches, lambda state, batch: mapped(state, batch, keys)


if __name__ == "__main__":
    main()
