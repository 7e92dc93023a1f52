"""Bytes that collectives move in a training step, on meshes of 1 to 256 devices, without running.

    python -m experiments.benchmarks.collectives --models resnet50 --devices 8 --norm device

compiles the training step of a recipe for virtual CPU devices, a process for each mesh, and reads
the collectives out of the optimised HLO. Data-parallel training with batch norm by device needs one
all-reduce of the gradients, and of the running statistics, which are means over the devices; with
global batch norm two small ones more for each layer. An all-gather without ``--fsdp`` is a layer
that is not computed locally. With it the parameters are gathered, and the gradients, which XLA
reduces on CPUs whole, but on TPUs and GPUs in parts (reduce-scatter).

Bytes are those of the results that each device holds in the end: how many travel depends on the
algorithm (a ring sends an all-reduce nearly twice). Exits with 1 if a data-parallel step with batch
norm by device reduces 1 % more than its parameters, or does anything but reduce.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from jaxtyping import PyTree

from experiments.benchmarks.harness.measure import RESULTS, table, write
from senet_jax.config import MeshConfig, ModelConfig, TrainConfig
from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.models.zoo import find
from senet_jax.planning.collectives import KINDS, by_kind
from senet_jax.planning.dry_run import compile_step, set_up

LIMIT = 1.01
"""Limit of the all-reduced bytes over those of the parameters."""


@dataclasses.dataclass(frozen=True)
class Collectives:
    """Count the bytes of collectives in a training step."""

    models: tuple[str, ...] = ("cifar_resnet20", "cifar_seresnet20", "resnest14d")
    """Names that `senet-jax models` lists."""
    devices: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Sizes of the mesh."""
    fsdp: tuple[int, ...] = (1,)
    """Devices that share a state."""
    norm: Literal["global", "device"] = "global"
    """The images whose statistics a batch norm takes: all, or those of a device."""
    images: int = 2
    """Images of a step for each device."""
    size: int | None = None
    """Side of the images, pixels; None means the network's own."""
    out: Path = RESULTS / "collectives.json"
    """The result."""


COLUMNS = (
    "model",
    "devices",
    "fsdp",
    *KINDS,
    "bytes / device",
    "parameters",
    "statistics",
    "/ parameters",
    "compile s",
)


def measure(
    model: str, size: int | None, devices: int, images: int, fsdp: int = 1, norm: str = "global"
) -> dict[str, Any]:
    """One row, from a process of its own that has so many virtual devices."""
    # A number of devices in these flags would stand instead of that of the mesh.
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    job = [model, size or find(model).input_size, devices, images, fsdp, norm]
    command = [sys.executable, "-m", "experiments.benchmarks.collectives", json.dumps(job)]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=_ROOT
    )
    return json.loads(done.stdout.splitlines()[-1])


_ROOT = Path(__file__).parents[2]


def _config(model: str, size: int, devices: int, images: int, fsdp: int, norm: str) -> TrainConfig:
    """A run whose step is that of the recipes, without what the batch's images share."""
    return TrainConfig(
        model=ModelConfig(name=model, norm_group=images if norm == "device" else None),
        data=DataConfig(
            name="imagenet2012",
            batch_size=images * devices,
            image_size=size,
            augment=AugmentConfig(flip=True),
        ),
        mesh=MeshConfig(devices // fsdp, fsdp),
    )


def _here(model: str, size: int, devices: int, images: int, fsdp: int, norm: str) -> dict[str, Any]:
    """The row, in the process that has the devices."""
    run = set_up(_config(model, size, devices, images, fsdp, norm), topology=None)
    step = compile_step(run)
    found = by_kind(list(step.collectives))
    each = sum(total for _, total in found.values())
    parameters = _bytes(run.abstract.params)
    return {
        "model": model,
        "devices": devices,
        "fsdp": fsdp,
        "norm": norm,
        **{kind: count for kind, (count, _) in found.items()},
        "bytes / device": each,
        "bytes": each * devices,
        "parameters": parameters,
        "statistics": _bytes(run.abstract.batch_stats),
        "/ parameters": each / parameters,
        "compile s": step.compile_s,
        "by_kind": {kind: total for kind, (_, total) in found.items()},
    }


def _bytes(tree: PyTree[jax.ShapeDtypeStruct]) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def within(row: dict[str, Any]) -> bool:
    """Tells whether a row has no more than data parallelism needs, with batch norm by device."""
    if row["norm"] == "global" or row["fsdp"] > 1 or row["devices"] == 1:
        return True
    return set(row["by_kind"]) == {"all-reduce"} and 1 <= row["/ parameters"] < LIMIT


def main() -> None:
    """Runs the benchmark."""
    if sys.argv[1:2] and sys.argv[1].startswith("["):
        print(json.dumps(_here(*json.loads(sys.argv[1]))))
        return
    study = tyro.cli(Collectives, description=__doc__)
    found = []
    for model in study.models:
        for devices in study.devices:
            for fsdp in study.fsdp:
                row = measure(model, study.size, devices, study.images, fsdp, study.norm)
                print(row, flush=True)
                found.append(row)
                write(study.out, found, images=study.images)
    print(f"\n{table(found, COLUMNS)}\n\n{study.out}")
    sys.exit(not all(within(row) for row in found))


if __name__ == "__main__":
    main()
