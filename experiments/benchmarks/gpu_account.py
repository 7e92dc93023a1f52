"""Kernels of a training step on a GPU, and the bytes that they move, without a GPU.

    python -m venv cuda
    cuda/bin/pip install -c constraints.txt jax jaxlib flax optax numpy jaxtyping tyro
    cuda/bin/pip install --no-deps jax-cuda13-plugin==0.10.1 jax-cuda13-pjrt==0.10.1 \
        nvidia-cuda-nvcc
    PYTHONPATH=. cuda/bin/python -m experiments.benchmarks.gpu_account

compiles, with XLA's CUDA compiler for a named H100, the forward and backward pass of networks of
this project, in the forms for GPUs, and of their plain Flax twins, in bfloat16. Nothing runs. One
instruction of the program's entry is one kernel; its bytes are the sizes of its operands and
results. The compiler does not autotune here, which takes a device.

Detectors have no plain twin; the one with SE is compared with the one without. They have loops
(NMS, RoIAlign, the crops of masks). A loop is one kernel of the entry, with the bytes of all that
goes in and comes out. The kernels inside loops are counted apart and without bytes, because each
reads a part of its operands; a loop of an unknown number of passes counts as one pass.

Bytes are no seconds. Caches, launches, arithmetic and the workspace that a kernel chooses at run
time are not in the account, and a map that a kernel reads in part, or twice, counts once as a
whole. On networks like these most kernels wait for memory, so fewer bytes are a reason to expect a
shorter step; how much shorter, ``experiments/benchmarks/gpu.py`` measures on a GPU.

Kinds: ``convolutions`` are cuDNN's, ``reductions`` are fusions that end in sums, with the
elementwise chain before them; ``copies`` copy, transpose or pad; ``others`` are elementwise chains
and matrix products.
"""

import collections
import dataclasses
import functools
import importlib.metadata
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro
from flax import linen as nn
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from experiments.benchmarks.harness.measure import RESULTS, table, write
from experiments.benchmarks.harness.plain_flax import PLAIN
from senet_jax.models import zoo
from senet_jax.ops.target import compiled_for
from senet_jax.planning.hlo import Instruction, Program, size


@dataclasses.dataclass(frozen=True)
class Account:
    """Count the kernels of a training step on a GPU, and their bytes."""

    models: tuple[str, ...] = (
        "resnet50",
        "seresnet50",
        "resnext50_32x4d",
        "seresnext50_32x4d",
        "resnest50d",
    )
    """Names that `senet-jax models` lists; those with a plain Flax twin are compared with it."""
    unfused: tuple[str, ...] = ("seresnet50",)
    """Those that are counted with fused=False, too: attention apart from the batch norm."""
    batch: int = 256
    """Images of a step."""
    size: int = 224
    """Side of the images, pixels."""
    detectors: tuple[str, ...] = ("maskrcnn_resnet50_fpn", "maskrcnn_seresnet50_fpn")
    """Names of detectors, each compared with the first."""
    detection_batch: int = 2
    """Images of a detector's step."""
    detection_sides: tuple[int, int] = (800, 1344)
    """Rows and columns of its images."""
    objects: int = 100
    """Objects for which its images have room."""
    out: Path = RESULTS / "gpu_account" / "h100.json"
    """The result."""


KINDS = ("convolutions", "reductions", "copies", "others")
COLUMNS = (
    "network",
    "kernels",
    "/ plain",
    "GB",
    "GB / plain",
    *(f"{kind} {unit}" for kind in KINDS for unit in ("kernels", "GB")),
    "kernels in loops",
    "temporaries GB",
    "compile s",
)

DEVICE = "NVIDIA H100 80GB HBM3"
H100 = f"""
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000 device_memory_size: 84929347584 l2_cache_size: 52428800
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
}}
platform_name: "CUDA"
device_description_str: "{DEVICE}"
runtime_version {{ major: 13 }}
dnn_version_info {{ major: 9 minor: 10 }}
"""
"""An H100 SXM, by its data sheet and the numbers that CUDA reports of it, for XLA's compiler."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel of a compiled program."""

    kind: str
    """One of ``KINDS``."""
    name: str
    bytes: int
    """Sizes of its operands and results, added."""


def read_kernels(hlo: str) -> list[Kernel]:
    """Reads the kernels out of a program that XLA compiled for a GPU.

    Args:
        hlo: Text of the optimised HLO.
    """
    program = Program(hlo)
    entry = [each for each in program.instructions if each.computation == program.entry]
    sizes = {each.name: size(each.results) for each in entry}
    return [
        Kernel(
            _kind(each),
            each.name,
            sizes[each.name] + sum(sizes[operand] for operand in each.operands),
        )
        for each in entry
        if each.opcode not in _NO_KERNEL
    ]


def count_in_loops(hlo: str) -> int:
    """Counts the kernels that loops and conditionals run, each as often as its loop is known to.

    Args:
        hlo: Text of the optimised HLO.
    """
    program = Program(hlo)
    return sum(
        program.times(each.computation)
        for each in program.instructions
        if each.computation in program.looped and each.opcode not in _NO_KERNEL
    )


_NO_KERNEL = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast")
_COPIES = re.compile(r"copy|transpose|pad_fusion|broadcast_fusion|reverse|concatenate|slice")


def _kind(each: Instruction) -> str:
    """Fusions have names of their last operations; a "reduce_window" is a pool."""
    if "__cudnn$conv" in each.rest:
        return "convolutions"
    if "reduce" in each.name.replace("reduce_window", ""):
        return "reductions"
    return "copies" if _COPIES.search(each.name) else "others"


def compile_step(model: nn.Module, batch: int, side: int, sharding: Sharding) -> Any:
    """Compiles loss, statistics and gradients of a network for the GPU of a sharding."""

    def shape(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def loss(params: Any, statistics: Any, images: Any, labels: Any) -> Any:
        variables = {"params": params, "batch_stats": statistics}
        logits: Any
        logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
        each = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
        return each.mean(), updated

    images = shape((batch, side, side, 3), jnp.bfloat16)
    return _compile(model, loss, sharding, images, shape((batch,), jnp.int32))


def compile_detection_step(model: nn.Module, account: Account, sharding: Sharding) -> Any:
    """Compiles losses, statistics and gradients of a detector for the GPU of a sharding."""

    def loss(params: Any, statistics: Any, images: Any, targets: Any, key: Any) -> Any:
        losses: Any
        losses, updated = model.apply(
            {"params": params, "batch_stats": statistics},
            images,
            None,
            targets,
            train=True,
            rngs={"dropout": key, "sampling": key},
            mutable=["batch_stats"],
        )
        return sum(losses.values()), updated

    batch, room = account.detection_batch, (account.detection_batch, account.objects)
    shapes = {
        "boxes": ((*room, 4), jnp.float32),
        "labels": (room, jnp.int32),
        "valid": (room, bool),
        "masks": ((*room, MASK_SIDE, MASK_SIDE), jnp.uint8),
    }
    targets = {
        name: jax.ShapeDtypeStruct(*each, sharding=sharding) for name, each in shapes.items()
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    sides = account.detection_sides
    images = jax.ShapeDtypeStruct((batch, *sides, 3), jnp.bfloat16, sharding=sharding)
    return _compile(model, loss, sharding, images, targets, key)


MASK_SIDE = 112
"""Side of the grid that holds the mask of an object, as the presets of COCO have it."""


def _compile(
    model: nn.Module, loss: Callable[..., Any], sharding: Sharding, images: Any, *others: Any
) -> Any:
    """Compiles ``loss(params, statistics, images, *others)`` and its gradients."""
    image = jnp.zeros((2, *images.shape[1:]))
    abstract = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        dict(abstract),
    )
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    with compiled_for("gpu"):
        traced = step.trace(state["params"], state["batch_stats"], images, *others)
    lowered = traced.lower(lowering_platforms=("cuda",))
    return lowered.compile(compiler_options={"xla_gpu_autotune_level": 0})


def count(network: str, compile_it: Callable[[], Any]) -> dict[str, Any]:
    """A row of the table, still without a comparison."""
    began = time.perf_counter()
    compiled = compile_it()
    hlo = compiled.as_text()
    kernels = read_kernels(hlo)
    counts = collections.Counter(kernel.kind for kernel in kernels)
    return {
        "network": network,
        "kernels": len(kernels),
        "GB": sum(kernel.bytes for kernel in kernels) / 1e9,
        **{f"{kind} kernels": counts[kind] for kind in KINDS},
        **{
            f"{kind} GB": sum(kernel.bytes for kernel in kernels if kernel.kind == kind) / 1e9
            for kind in KINDS
        },
        "kernels in loops": count_in_loops(hlo),
        "temporaries GB": compiled.memory_analysis().temp_size_in_bytes / 1e9,
        "compile s": time.perf_counter() - began,
    }


def rows(account: Account, sharding: Sharding) -> Iterator[dict[str, Any]]:
    """The rows of each network: the plain Flax twin, ours, and ours with fused=False.

    Then those of the detectors.
    """

    def counted(network: str, model: nn.Module) -> dict[str, Any]:
        return count(network, lambda: compile_step(model, account.batch, account.size, sharding))

    for name in account.models:
        plain = None
        if name in PLAIN:
            plain = counted(f"{name}, plain Flax", PLAIN[name](dtype=jnp.bfloat16))
            yield plain
        fields = [{}, {"fused": False}] if name in account.unfused else [{}]
        for given in fields:
            model = zoo.create_model(name, dtype=jnp.bfloat16, **given)
            row = counted(f"{name}{', fused=False' if given else ''}", model)
            yield row if plain is None else _compared(row, plain)
    first = None
    for name in account.detectors:
        detector = zoo.create_model(name, dtype=jnp.bfloat16)
        step = functools.partial(compile_detection_step, detector, account, sharding)
        row = count(name, step)
        first = first or row
        yield _compared(row, first)


def _compared(row: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    return row | {
        "/ plain": row["kernels"] / plain["kernels"],
        "GB / plain": row["GB"] / plain["GB"],
    }


def target() -> Sharding:
    """One H100 that is not there; must come before jax is first used.

    Raises:
        SystemExit: The environment has no compiler for CUDA.
    """
    # The plugin would refuse to load without a driver.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    jax.config.update("jax_platforms", "cpu")
    if not _COMPILER.issubset(each.name for each in importlib.metadata.distributions()):
        raise SystemExit(f"error: install {' and '.join(sorted(_COMPILER))}, as said above.")
    found = topologies.get_topology_desc(
        platform="cuda", target_config=H100.strip(), topology="1x1x1"
    )
    return NamedSharding(topologies.make_mesh(found, (1,), ("data",)), PartitionSpec())


_COMPILER = {"jax-cuda13-plugin", "jax-cuda13-pjrt"}


def main() -> None:
    """Runs the account."""
    account = tyro.cli(Account, description=__doc__)
    sharding = target()
    found = []
    for row in rows(account, sharding):
        print(f"{row['network']}: {row['kernels']:,} kernels, {row['GB']:.1f} GB", flush=True)
        found.append(row)
        write(
            account.out,
            found,
            batch=account.batch,
            size=account.size,
            detection_batch=account.detection_batch,
            detection_sides=account.detection_sides,
            objects=account.objects,
            dtype="bfloat16",
            target=DEVICE,
            compiler={name: importlib.metadata.version(name) for name in sorted(_COMPILER)},
            note="compiled, not run: bytes of operands and results, which are no seconds",
        )
    print(f"\n{table(found, COLUMNS)}\n\nBytes are no seconds: nothing ran.\n{account.out}")


if __name__ == "__main__":
    main()
