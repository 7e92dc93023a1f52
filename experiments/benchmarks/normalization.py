"""Batch norm, attention joined to it, max pool and split attention against their plain forms.

    python -m experiments.benchmarks.normalization

times a forward and backward pass of each pair in turns, at shapes of ResNet-50 and ResNeSt-50,
prints the median of the paired ratios (below one, ours is faster) and writes them as JSON.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from experiments.benchmarks.harness.measure import (
    RESULTS,
    interleave,
    ratio,
    spread,
    table,
    warn_if_busy,
    write,
)
from senet_jax.attention import SqueezeExciteConfig
from senet_jax.attention.squeeze import squeeze_avg
from senet_jax.ops.moments import scale
from senet_jax.ops.norm import BatchNorm
from senet_jax.ops.pooling import max_pool
from senet_jax.ops.splits import add_splits

COLUMNS = ("case", "ours ms", "other ms", "ours / other")

MAPS = ((112, 64), (56, 256), (28, 512), (14, 1024), (7, 2048))
"""Side and channels of maps of ResNet-50 at 224 pixels."""

Case = tuple[str, nn.Module, nn.Module, tuple[int, int, int, int]]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measure what stands between the convolutions."""

    batch_size: int = 8
    """Images of a batch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the images; statistics and gates are float32 always."""
    pairs: int = 15
    """Pairs of measurements."""
    out: Path = RESULTS / "normalization.json"
    """The result."""


class Norm(nn.Module):
    """Batch norm and ReLU, ours or Flax's."""

    ours: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm = BatchNorm(train=True) if self.ours else nn.BatchNorm(use_running_average=False)
        return nn.relu(norm(x))


class Tail(nn.Module):
    """The end of a residual block: batch norm, SE, addition and ReLU."""

    fused: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm, se = BatchNorm(train=True), SqueezeExciteConfig().build()
        return nn.relu((norm(x, se.excite) if self.fused else se(norm(x))) + jnp.abs(x))


class Pool(nn.Module):
    """The stem's max pool, with our gradient or XLA's."""

    ours: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.ours:
            return max_pool(x, 3, 2, pad=1)
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


class Splits(nn.Module):
    """Split attention behind its convolution, ours or with an axis of splits."""

    radix: int
    ours: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1] // self.radix
        x = nn.relu(x)
        splits = x.reshape(*x.shape[:3], self.radix, features)
        total = add_splits(x, self.radix) if self.ours else splits.sum(axis=3)
        hidden = nn.relu(
            BatchNorm(train=True)(nn.Dense(max(features // 4, 32))(squeeze_avg(total)))
        )
        logits = nn.Dense(x.shape[-1])(hidden).reshape(-1, 1, 1, self.radix, features)
        gate = jax.nn.softmax(logits, axis=3)
        if self.ours:
            return add_splits(scale(x, gate.reshape(len(x), -1)), self.radix)
        return (splits * gate).sum(axis=3)


def cases(batch_size: int) -> Iterator[Case]:
    """Name, our form, the other form, shape."""
    for side, channels in MAPS:
        yield "batch norm, relu", Norm(True), Norm(False), (batch_size, side, side, channels)
    for side, channels in MAPS[1:]:
        yield "bn, se, add, relu", Tail(True), Tail(False), (batch_size, side, side, channels)
    yield "max pool", Pool(True), Pool(False), (batch_size, 112, 112, 64)
    for radix, side, channels in ((2, 56, 128), (2, 14, 512), (4, 28, 256)):
        ours, other = (Splits(radix, ours) for ours in (True, False))
        yield f"split attention, radix {radix}", ours, other, (batch_size, side, side, channels)


def timer(module: nn.Module, shape: tuple[int, ...], dtype: str) -> Callable[[], float]:
    """Seconds of a forward and backward pass, compiled here."""
    x = jax.random.normal(jax.random.key(0), shape, dtype)
    variables = module.init(jax.random.key(1), x)
    y = jax.eval_shape(lambda: module.apply(variables, x, mutable=["batch_stats"])[0])
    gradient = jax.random.normal(jax.random.key(2), y.shape, y.dtype)

    @jax.jit
    def step(params: Any, x: jax.Array, gradient: jax.Array) -> Any:
        def forward(params: Any, x: jax.Array) -> Any:
            return module.apply({**variables, "params": params}, x, mutable=["batch_stats"])

        y, backward, new = jax.vjp(forward, params, x, has_aux=True)
        return y, new, backward(gradient)

    arguments = variables.get("params", {}), x, gradient
    jax.block_until_ready(step(*arguments))

    def run() -> float:
        began = time.perf_counter()
        jax.block_until_ready(step(*arguments))
        return time.perf_counter() - began

    return run


def measure(case: Case, benchmark: Benchmark) -> dict[str, Any]:
    """Times the two forms of a case in turns."""
    name, ours, other, shape = case
    forms = {"ours": ours, "other": other}
    samplers = {form: timer(module, shape, benchmark.dtype) for form, module in forms.items()}
    times = interleave(samplers, dict.fromkeys(samplers, benchmark.pairs))
    return {
        "case": f"{name} {'x'.join(map(str, shape))}",
        "ours ms": 1e3 * spread(times["ours"]).median,
        "other ms": 1e3 * spread(times["other"]).median,
        "ours / other": ratio(times["ours"], times["other"]),
    }


def main() -> None:
    """Runs the benchmark."""
    import tyro

    benchmark = tyro.cli(Benchmark, description=__doc__)
    warn_if_busy()
    rows = [measure(case, benchmark) for case in cases(benchmark.batch_size)]
    print(table(rows, COLUMNS))
    write(benchmark.out, rows)


if __name__ == "__main__":
    main()
