"""A process that trains on synthetic images, for benchmarks that compare processes."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from senet_jax.training.machine.allocator import keep_freed_memory


class Trainer:
    """A process that trains when asked to.

    Args:
        wanted: ``model``, ``batch`` and ``seeds``; besides ``cores`` that it keeps to, ``again``
            for a second seed, and ``keep_memory`` (True if absent): see ``training.allocator``.
        cache: Folder of compiled programs.
    """

    backend: str
    """The folder in which it trains."""
    ready_s: list[float]
    """Seconds to its first step, and to that of the second seed."""

    def __init__(self, wanted: dict[str, Any], cache: str) -> None:
        self._orders, theirs = Pipe()
        began = time.perf_counter()
        command = [sys.executable, "-m", "experiments.benchmarks.harness.trainer"]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), json.dumps(wanted)],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
            )
        self.backend = self._orders.recv()
        self.ready_s = [time.perf_counter() - began]
        if "again" in wanted:
            began = time.perf_counter()
            self._orders.recv()
            self.ready_s.append(time.perf_counter() - began)

    def start(self, steps: int) -> None:
        """Lets it train so many steps."""
        self._orders.send(steps)

    def finish(self) -> dict[str, float]:
        """Waits for them; returns how many pages were mapped meanwhile and the peak memory, MB."""
        usage: dict[str, float] = self._orders.recv()
        return usage

    def close(self) -> None:
        """Ends the process."""
        self._orders.close()
        self._process.wait()


def _serve(handle: int, wanted: dict[str, Any]) -> None:
    if "cores" in wanted:
        os.sched_setaffinity(0, wanted["cores"])
    if wanted.get("keep_memory", True):
        keep_freed_memory()
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
        before = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(steps):
            state, _ = step(state, batch)
        jax.block_until_ready(state)
        after = resource.getrusage(resource.RUSAGE_SELF)
        pages = after.ru_minflt - before.ru_minflt
        orders.send({"pages": pages, "peak, MB": after.ru_maxrss / 1000})


def _set_up(wanted: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """The run of the first seed; the state, batch and step of as many as are wanted."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from senet_jax.config import ModelConfig, TrainConfig
    from senet_jax.data.card import known_card
    from senet_jax.models import zoo
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
    mapped = jax.jit(jax.vmap(run.programs.train), donate_argnums=0)
    batches = jax.tree.map(lambda x: np.stack([x] * seeds), batch)
    return run, states, batches, lambda state, batch: mapped(state, batch, keys)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), json.loads(sys.argv[2]))
