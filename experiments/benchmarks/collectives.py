"""Bytes that collectives move in a training step, on meshes of 1 to 256 devices, without running.

    python -m experiments.benchmarks.collectives --models cifar_resnet20 seresnext26t_32x4d

compiles the training step for virtual CPU devices, a process for each size of the mesh, and reads
the collectives out of the optimised HLO. Data-parallel training needs one all-reduce of the
gradients and two small ones for each batch norm; an all-gather in this table is a layer that is
not computed locally. Bytes are those of the results that each device holds in the end: how many
travel depends on the algorithm (a ring sends an all-reduce nearly twice). A collective in a loop
counts once.
"""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro

from experiments.benchmarks.measure import RESULTS, table, write
from senet_jax.data.config import AugmentConfig
from senet_jax.data.datasets import IMAGENET_MEAN, IMAGENET_STD
from senet_jax.models.zoo import create_model, find
from senet_jax.training.mesh import make_mesh, over_batch, replicated
from senet_jax.training.state import init_state
from senet_jax.training.step import make_train_step

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")

# "%x = (f32[2]{0}, f32[]) all-reduce(": the results stand before the operation. Of an asynchronous
# pair the second half counts, whose results are those of the collective and nothing else.
_COLLECTIVE = re.compile(rf"^[^=]*= (.*?) ({'|'.join(KINDS)})(-done)?\(", re.MULTILINE)
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")


def collective_bytes(hlo: str) -> dict[str, tuple[int, int]]:
    """Reads the collectives out of a compiled program.

    Args:
        hlo: Text of the optimised HLO, which is the program of one device.

    Returns:
        By kind, how many there are and the bytes of their results on one device; kinds that do
        not occur are left out.
    """
    found: dict[str, tuple[int, int]] = {}
    for results, kind, _ in _COLLECTIVE.findall(hlo):
        size = sum(
            math.prod(int(side) for side in shape.split(",") if side) * _bits(dtype) // 8
            for dtype, shape in _ARRAY.findall(results)
        )
        count, total = found.get(kind, (0, 0))
        found[kind] = (count + 1, total + size)
    return found


def _bits(dtype: str) -> int:
    """Bits of an element of a type such as f32, bf16, u8 or pred."""
    if dtype == "pred":
        return 8
    digits = re.search(r"\d+", dtype)
    assert digits, dtype
    return int(digits[0])


def compiled_step(model: Any, image_shape: tuple[int, int, int], batch: int, devices: int) -> str:
    """The optimised HLO of a training step.

    Args:
        model: A module with the calling convention of the zoo.
        image_shape: Height, width and channels.
        batch: Images of a step, over all devices.
        devices: Size of the mesh.
    """
    mesh = make_mesh(devices)
    optimizer = optax.sgd(0.1, momentum=0.9)
    state = jax.eval_shape(
        lambda: init_state(model, optimizer, jax.random.key(0), image_shape, ema=False)
    )
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.uint8)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    everywhere, split = replicated(mesh), over_batch(mesh)
    laid_out = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        (state, {"image": images, "label": labels}),
        (jax.tree.map(lambda _: everywhere, state), {"image": split, "label": split}),
    )
    step: Any = make_train_step(
        model,
        optimizer,
        mesh,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        seed=0,
        augmentation=AugmentConfig(),
    )
    return step.lower(*laid_out).compile().as_text()


@dataclasses.dataclass(frozen=True)
class Collectives:
    """Count the bytes of collectives in a training step."""

    models: tuple[str, ...] = ("cifar_resnet20", "cifar_seresnet20", "resnest14d")
    """Names that `senet-jax models` lists."""
    devices: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Sizes of the mesh."""
    images: int = 2
    """Images of a step for each device."""
    size: int | None = None
    """Side of the images, pixels; None means the network's own."""
    out: Path = RESULTS / "collectives.json"
    """The result."""


COLUMNS = ("model", "devices", *KINDS, "bytes / device", "bytes", "compile s")


def measure(model: str, size: int | None, devices: int, images: int) -> dict[str, Any]:
    """One row, from a process of its own that has so many virtual devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    # Code that is never run need not be good; the partition into devices comes before.
    flags += " --xla_backend_optimization_level=0"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    job = [model, size or find(model).input_size, devices, images]
    command = [sys.executable, "-m", "experiments.benchmarks.collectives", json.dumps(job)]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True, cwd=_ROOT
    )
    return json.loads(done.stdout.splitlines()[-1])


_ROOT = Path(__file__).parents[2]


def _here(model: str, size: int, devices: int, images: int) -> dict[str, Any]:
    """The row, in the process that has the devices."""
    began = time.perf_counter()
    hlo = compiled_step(create_model(model), (size, size, 3), images * devices, devices)
    seconds = time.perf_counter() - began
    found = collective_bytes(hlo)
    each = sum(total for _, total in found.values())
    return {
        "model": model,
        "devices": devices,
        **{kind: count for kind, (count, _) in found.items()},
        "bytes / device": each,
        "bytes": each * devices,
        "compile s": seconds,
        "by_kind": {kind: total for kind, (_, total) in found.items()},
    }


def main() -> None:
    """Runs the benchmark."""
    if sys.argv[1:2] and sys.argv[1].startswith("["):
        print(json.dumps(_here(*json.loads(sys.argv[1]))))
        return
    study = tyro.cli(Collectives, description=__doc__)
    found = []
    for model in study.models:
        for devices in study.devices:
            found.append(measure(model, study.size, devices, study.images))
            write(study.out, found, images=study.images)
    print(f"{table(found, COLUMNS)}\n\n{study.out}")


if __name__ == "__main__":
    main()
