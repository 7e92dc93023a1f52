"""Convolutions of the zoo in every form that XLA can be given them: times and compile times.

    python -m experiments.benchmarks.convolutions --model resnext50

times, for shapes of layers of a network, the forward pass and both gradients, each by itself, in
every form of ``senet_jax.ops.conv_lowering`` that applies. The forms are interleaved, a form's time
is the median, and its ratio to the native form's the median of the paired ratios, with their
quartiles and number. As in the commands, freed memory is kept. It prints a table and writes JSON;
``conv_lowering.best`` is the choice that follows from it.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

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
from senet_jax.ops.conv_forms import Geometry
from senet_jax.ops.conv_lowering import FORMS, applicable
from senet_jax.ops.lowerings import Lowering
from senet_jax.training.machine.allocator import keep_freed_memory

COLUMNS = ("convolution", "pass", "form", "ms", "this / native", "compile s", "temp MiB")

Layer = tuple[int, int, int, int, int, int]
"""Side of the images, channels in and out, side of the kernel, stride, groups."""

LAYERS: dict[str, list[Layer]] = {
    "cifar": [
        (32, 3, 16, 3, 1, 1),
        (32, 16, 16, 3, 1, 1),
        (32, 16, 32, 3, 2, 1),
        (16, 32, 32, 3, 1, 1),
        (8, 64, 64, 3, 1, 1),
    ],
    "resnet50": [
        (224, 3, 64, 7, 2, 1),
        (56, 64, 64, 3, 1, 1),
        (56, 128, 128, 3, 2, 1),
        (56, 64, 256, 1, 1, 1),
        (56, 256, 64, 1, 1, 1),
        (56, 256, 512, 1, 2, 1),
        (28, 128, 128, 3, 1, 1),
        (28, 512, 128, 1, 1, 1),
        (14, 256, 256, 3, 1, 1),
        (14, 256, 1024, 1, 1, 1),
        (7, 512, 512, 3, 1, 1),
        (7, 2048, 512, 1, 1, 1),
    ],
    "resnext50": [
        (56, 128, 128, 3, 1, 32),
        (56, 256, 256, 3, 2, 32),
        (28, 256, 256, 3, 1, 32),
        (14, 512, 512, 3, 1, 32),
        (7, 1024, 1024, 3, 1, 32),
    ],
    "resnest50": [
        (56, 64, 128, 3, 1, 2),
        (28, 128, 256, 3, 1, 2),
        (14, 256, 512, 3, 1, 2),
        (7, 512, 1024, 3, 1, 2),
    ],
    "mobilenet": [
        (112, 32, 32, 3, 1, 32),
        (112, 64, 64, 3, 2, 64),
        (56, 128, 128, 3, 1, 128),
        (14, 512, 512, 3, 1, 512),
        (7, 1024, 1024, 3, 1, 1024),
    ],
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measure the forms of convolutions."""

    model: Literal["cifar", "resnet50", "resnext50", "resnest50", "mobilenet"] = "resnet50"
    """The network whose layers are measured; "cifar" means the ResNets of CIFAR."""
    batch_size: int | None = None
    """Images of a batch; None means 128 for CIFAR and 8 for the others."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of images and kernel."""
    repeats: int = 15
    """Measurements of each form."""
    out: Path = RESULTS / "convolutions.json"
    """The result."""


def passes(name: Any, geometry: Geometry) -> dict[str, Callable[..., jax.Array]]:
    """The forward pass and both gradients of a form."""

    def forward(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
        return FORMS[name](x, kernel, geometry)

    def input_gradient(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: FORMS[name](x, kernel, geometry), x)[1](dy)[0]

    def kernel_gradient(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
        return jax.vjp(lambda kernel: FORMS[name](x, kernel, geometry), kernel)[1](dy)[0]

    return {"forward": forward, "input": input_gradient, "kernel": kernel_gradient}


def seconds(compiled: Any, arrays: Sequence[jax.Array]) -> float:
    """Time of one call."""
    began = time.perf_counter()
    compiled(*arrays).block_until_ready()
    return time.perf_counter() - began


def measure(layer: Layer, benchmark: Benchmark) -> list[dict[str, Any]]:
    """Times a layer in all forms: a row for each pass and form."""
    size, channels, features, side, stride, groups = layer
    pad = side // 2
    geometry = Geometry((stride, stride), ((pad, pad), (pad, pad)), groups=groups)
    rng = np.random.default_rng(0)
    out = (size + 2 * pad - side) // stride + 1
    batch = benchmark.batch_size or (128 if benchmark.model == "cifar" else 8)
    shapes = [
        (batch, size, size, channels),
        (side, side, channels // groups, features),
        (batch, out, out, features),
    ]
    arrays = [jnp.asarray(rng.standard_normal(shape), benchmark.dtype) for shape in shapes]
    names = applicable(arrays[1], geometry)
    rows = []
    for direction in ("forward", "input", "kernel"):
        compiled: dict[Lowering, Any] = {}
        compile_seconds = {}
        for name in names:
            began = time.perf_counter()
            function = passes(name, geometry)[direction]
            compiled[name] = jax.jit(function).lower(*arrays).compile()
            compile_seconds[name] = time.perf_counter() - began
            compiled[name](*arrays).block_until_ready()

        samplers: dict[str, Sampler] = {
            name: functools.partial(seconds, compiled[name], arrays) for name in names
        }
        times = interleave(samplers, dict.fromkeys(names, benchmark.repeats))
        rows += [
            {
                "convolution": f"{size}x{size}, {channels} to {features}, {groups} groups, "
                f"{side}x{side}, stride {stride}",
                "pass": direction,
                "form": name,
                "ms": 1e3 * spread(times[name]).median,
                "this / native": ratio(times[name], times["native"]),
                "compile s": compile_seconds[name],
                "temp MiB": compiled[name].memory_analysis().temp_size_in_bytes / 2**20,
            }
            for name in names
        ]
    return rows


def main() -> None:
    """Runs the benchmark."""
    import tyro

    benchmark = tyro.cli(Benchmark, description=__doc__)
    warn_if_busy()
    keep_freed_memory()
    rows: list[dict[str, Any]] = []
    for layer in LAYERS[benchmark.model]:
        rows += measure(layer, benchmark)
    print(table(rows, COLUMNS))
    write(benchmark.out, rows)


if __name__ == "__main__":
    main()
