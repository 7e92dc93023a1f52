"""The cost of checkpoints to a loop, and their state after a fault.

    python -m experiments.benchmarks.checkpoints blocking --network seresnet152

saves a state of random numbers in turns synchronously (``save`` and ``wait``), asynchronously (the
time of ``save`` alone; the rest is waited for, but not counted) and, for comparison, through Orbax
alone, synchronously and without fingerprint. Prints the seconds that each blocks the caller and
the ratio of the first two, with quartiles over the rounds, and the bytes.

    python -m experiments.benchmarks.checkpoints faults

fills disks, forbids writing, starts two runs in one folder, and truncates, empties and deletes each
file of a checkpoint in turn. Prints how many of the faults ended in one clear sentence with the
older checkpoints intact; exits with 1 if one did not. As root it mounts small disks; else the disks
are left out, and the count says so.
"""

import dataclasses
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import tyro

from experiments.benchmarks.faults import FAULTS, Fault
from experiments.benchmarks.harness.measure import (
    RESULTS,
    interleave,
    ratio,
    spread,
    table,
    warn_if_busy,
    write,
)
from senet_jax.config import CheckpointConfig, TrainConfig
from senet_jax.models import zoo
from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.records.inventory import take_inventory
from senet_jax.training.state import TrainState, init_state

SYNCHRONOUS, ASYNCHRONOUS, ORBAX = "synchronous", "asynchronous", "Orbax, synchronous"
COLUMNS = ("network", "save", "blocks s", "of synchronous", "state MB", "on disk MB", "arrays")


@dataclasses.dataclass(frozen=True)
class Blocking:
    """Measure for how long saves block."""

    network: str = "seresnet152"
    """A name in the zoo; the state is its parameters, statistics and momentum."""
    rounds: int = 10
    """Saves of each kind."""
    folder: Path | None = None
    """The folder of the checkpoints; None means a temporary folder."""
    out: Path = RESULTS / "checkpoints" / "blocking.json"
    """The result."""


@dataclasses.dataclass(frozen=True)
class Faults:
    """Let things go wrong."""

    out: Path = RESULTS / "checkpoints" / "faults.json"
    """The result."""


def random_state(network: str) -> TrainState:
    """A state of a network of the zoo with SGD's momentum; its numbers do not compress."""
    entry, rng = zoo.find(network), np.random.default_rng(0)
    shape = (entry.input_size, entry.input_size, 3)
    optimizer = optax.sgd(0.1, momentum=0.9)
    key = jax.random.key(0)
    model = zoo.create_model(network)
    shapes = jax.eval_shape(lambda: init_state(model, optimizer, key, shape, ema=False))

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if leaf.dtype == jnp.int32:
            return jnp.zeros(leaf.shape, leaf.dtype)
        return jnp.asarray(rng.standard_normal(leaf.shape, np.float32))

    return jax.tree.map(draw, shapes)


def measure_blocking(study: Blocking) -> list[dict[str, Any]]:
    """Measures the three kinds of saves in turns."""
    folder = Path(tempfile.mkdtemp(prefix="checkpoints-", dir=study.folder))
    state, steps = random_state(study.network), iter(range(1, 10**6))
    own = Checkpoints(folder / "own", CheckpointConfig(keep_last=1))

    def save(waiting: bool) -> float:
        numbered = dataclasses.replace(state, step=jnp.int32(next(steps)))
        began = time.perf_counter()
        own.save(numbered, {}, {})
        if waiting:
            own.wait()
        seconds = time.perf_counter() - began
        own.wait()
        return seconds

    def orbax() -> float:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as plain:
            began = time.perf_counter()
            plain.save(folder / "orbax", args=ocp.args.StandardSave(state), force=True)
            return time.perf_counter() - began

    samplers = {
        SYNCHRONOUS: lambda: save(waiting=True),
        ASYNCHRONOUS: lambda: save(waiting=False),
        ORBAX: orbax,
    }
    try:
        for sampler in samplers.values():
            sampler()  # What the first compiles belongs to no save.
        times = interleave(samplers, dict.fromkeys(samplers, study.rounds))
        own.close()
        (entry,) = take_inventory(
            folder / "own", TrainConfig(checkpoint=CheckpointConfig(keep_last=1))
        )
    finally:
        shutil.rmtree(folder)
    leaves = jax.tree.leaves(state)
    return [
        {
            "network": study.network,
            "save": name,
            "blocks s": spread(seconds),
            "of synchronous": ratio(seconds, times[SYNCHRONOUS]),
            "state MB": sum(leaf.nbytes for leaf in leaves) / 1e6,
            "on disk MB": entry.size / 1e6,
            "arrays": len(leaves),
        }
        for name, seconds in times.items()
    ]


def measure_faults() -> Iterator[Fault]:
    """Lets all faults happen, and prints each."""
    for kind in FAULTS:
        folder = Path(tempfile.mkdtemp(prefix="faults-"))
        try:
            for fault in kind(folder):
                print(f"{'ok    ' if fault.survived else 'FAILED'} {fault.what}: {fault.message}")
                sys.stdout.flush()
                yield fault
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Runs the benchmark."""
    study = tyro.extras.subcommand_cli_from_dict(
        {"blocking": Blocking, "faults": Faults}, description=__doc__
    )
    if isinstance(study, Faults):
        faults = list(measure_faults())
        survived = sum(fault.survived for fault in faults)
        write(study.out, [dataclasses.asdict(fault) for fault in faults])
        print(f"{survived} of {len(faults)} faults: one clear sentence, older checkpoints intact")
        sys.exit(survived != len(faults))
    warn_if_busy()
    rows = measure_blocking(study)
    write(study.out, rows)
    print(f"{table(rows, COLUMNS)}\n\n{study.out}")


if __name__ == "__main__":
    main()
