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
import importlib.metadata
import os
import re
import time
from collections.abc import Iterator
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

    image = jnp.zeros((2, side, side, 3))
    abstract = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    state = jax.tree.map(lambda leaf: shape(leaf.shape, leaf.dtype), dict(abstract))
    arguments = shape((batch, side, side, 3), jnp.bfloat16), shape((batch,), jnp.int32)
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    with compiled_for("gpu"):
        traced = step.trace(state["params"], state["batch_stats"], *arguments)
    lowered = traced.lower(lowering_platforms=("cuda",))
    return lowered.compile(compiler_options={"xla_gpu_autotune_level": 0})


def count(network: str, model: nn.Module, account: Account, sharding: Sharding) -> dict[str, Any]:
    """A row of the table, still without a comparison."""
    began = time.perf_counter()
    compiled = compile_step(model, account.batch, account.size, sharding)
    kernels = read_kernels(compiled.as_text())
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
        "temporaries GB": compiled.memory_analysis().temp_size_in_bytes / 1e9,
        "compile s": time.perf_counter() - began,
    }


def rows(account: Account, sharding: Sharding) -> Iterator[dict[str, Any]]:
    """The rows of each network: the plain Flax twin, ours, and ours with fused=False."""
    for name in account.models:
        plain = None
        if name in PLAIN:
            twin = PLAIN[name](dtype=jnp.bfloat16)
            plain = count(f"{name}, plain Flax", twin, account, sharding)
            yield plain
        fields = [{}, {"fused": False}] if name in account.unfused else [{}]
        for given in fields:
            model = zoo.create_model(name, dtype=jnp.bfloat16, **given)
            row = count(f"{name}{', fused=False' if given else ''}", model, account, sharding)
            if plain is not None:
                row |= {
                    "/ plain": row["kernels"] / plain["kernels"],
                    "GB / plain": row["GB"] / plain["GB"],
                }
            yield row


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
            dtype="bfloat16",
            target=DEVICE,
            compiler={name: importlib.metadata.version(name) for name in sorted(_COMPILER)},
            note="compiled, not run: bytes of operands and results, which are no seconds",
        )
    print(f"\n{table(found, COLUMNS)}\n\nBytes are no seconds: nothing ran.\n{account.out}")


if __name__ == "__main__":
    main()
