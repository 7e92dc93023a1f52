"""Sums over short runs of pixels, whose channels stay in the cache of a CPU.

A reduction over all pixels and samples at once is slow in XLA on CPUs, and each of several reads
its operands again.
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

SHORTEST_RUN = 14
"""Pixels; where the rows of a map are shorter, a run is the whole map."""


def runs_of(x: Float[Array, "n *space c"]) -> Float[Array, "n runs pixels c"]:
    """The pixels of each sample in runs: its rows, or all of them where rows are short."""
    whole = x.ndim < 4 or x.shape[-2] < SHORTEST_RUN
    return x.reshape(x.shape[0], *((1, -1) if whole else (-1, x.shape[-2])), x.shape[-1])


def run_sums(*operands: Float[Array, "n runs pixels c"]) -> Any:
    """Sums over the pixels of each run, (n, runs, c), of all operands in one loop."""
    zeros = tuple(jnp.zeros((), each.dtype) for each in operands)

    def add(left: Any, right: Any) -> Any:
        return tuple(a + b for a, b in zip(left, right, strict=True))

    # Without the barrier XLA would merge the reduction with those that follow, into the slow one.
    return lax.optimization_barrier(lax.reduce(operands, zeros, add, (2,)))
