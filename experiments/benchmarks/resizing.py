"""Bilinear resizing as matrix products against the same as gathers.

    python -m experiments.benchmarks.resizing

times a forward pass and a forward and backward pass of both in turns, at shapes of the logits of
segmentation networks, prints the median of the paired ratios (below one, the products are faster)
and writes them as JSON.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float

from experiments.benchmarks.harness.measure import (
    RESULTS,
    interleave,
    ratio,
    spread,
    table,
    warn_if_busy,
    write,
)
from senet_jax.ops.resize import resize_bilinear

SHAPES = ((2, 60, 480, 21), (2, 60, 480, 150), (8, 15, 240, 11))
"""Images, side before and after, and classes: PASCAL VOC, ADE20K and CamVid."""

COLUMNS = ("shape", "pass", "products ms", "gathers ms", "products / gathers")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Measure both forms of resizing."""

    pairs: int = 15
    """Pairs of measurements."""
    out: Path = RESULTS / "resizing.json"
    """The result."""


def gathered(x: Float[Array, "n h w c"], side: int) -> Float[Array, "n side side c"]:
    """Resizes by two pixels a row, then two a column; the outer edges stay."""
    for axis in (1, 2):
        before = x.shape[axis]
        source = np.clip((np.arange(side) + 0.5) * before / side - 0.5, 0, before - 1)
        first = source.astype(int)
        share = jnp.asarray(np.expand_dims(source - first, (1, 2)), x.dtype)
        share = share if axis == 1 else share.swapaxes(0, 1)
        second = np.minimum(first + 1, before - 1)
        low, high = (jnp.take(x, rows, axis=axis) for rows in (first, second))
        x = low * (1 - share) + high * share
    return x


def products(x: Float[Array, "n h w c"], side: int) -> Float[Array, "n side side c"]:
    """Resizes as the networks do."""
    return resize_bilinear(x, (side, side), align_corners=False)


def main() -> None:
    """Runs the benchmark."""
    benchmark = tyro.cli(Benchmark, description=__doc__)
    warn_if_busy()
    rows = []
    for n, before, after, classes in SHAPES:
        x = jax.random.normal(jax.random.key(0), (n, before, before, classes))
        np.testing.assert_allclose(products(x, after), gathered(x, after), atol=1e-4)
        for name, trained in (("forward", False), ("forward and backward", True)):
            samplers = {
                form.__name__: _sampler(form, x, after, trained) for form in (products, gathered)
            }
            times = interleave(samplers, dict.fromkeys(samplers, benchmark.pairs))
            rows.append(
                {
                    "shape": f"{n}x{before}x{before}x{classes} to {after}",
                    "pass": name,
                    "products ms": 1e3 * spread(times["products"]).median,
                    "gathers ms": 1e3 * spread(times["gathered"]).median,
                    "products / gathers": str(ratio(times["products"], times["gathered"])),
                }
            )
            print(table(rows[-1:], COLUMNS), flush=True)
    write(benchmark.out, rows)


def _sampler(
    form: Callable[[Array, int], Array], x: Float[Array, "n h w c"], side: int, trained: bool
) -> Callable[[], float]:
    def loss(x: Array) -> Array:
        return jnp.sum(form(x, side) ** 2)

    run = jax.jit(jax.grad(loss) if trained else lambda x: form(x, side))
    run(x).block_until_ready()

    def sample() -> float:
        began = time.perf_counter()
        run(x).block_until_ready()
        return time.perf_counter() - began

    return sample


if __name__ == "__main__":
    main()
