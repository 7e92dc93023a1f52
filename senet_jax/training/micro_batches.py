"""Gradient accumulation: a batch in parts, one after the other, so that less must be remembered."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key, PyTree, Shaped

from senet_jax.axes import BATCH_AXES

Gradients = Callable[[Any, Any, Key[Array, ""]], tuple[PyTree[Array], PyTree[Array]]]
"""``(batch_stats, examples, key)`` to what is averaged (metrics, gradients) and the statistics."""


def accumulate(
    gradients: Gradients,
    batch_stats: PyTree[Array],
    examples: PyTree[Shaped[Array, "n ..."]],
    key: Key[Array, ""],
    *,
    parts: int,
    mesh: Mesh,
) -> tuple[PyTree[Array], PyTree[Array]]:
    """Takes the gradients of a batch as the mean of those of its parts.

    Batch norm normalizes over a part, and its running statistics move once a part. Part k of N has
    the images k, k + N, k + 2N, ..., so that each device takes them of its own and the parts are
    the same on any mesh. Over a mesh the gradients of each part are reduced by themselves: N parts
    send N times the bytes.

    Args:
        gradients: The function of one part.
        batch_stats: Running statistics before the batch.
        examples: The batch, split over ``mesh``.
        key: Randomness; part k gets ``fold_in(key, k)``, a batch in one part the key itself.
        parts: Number of parts; together with the devices it divides the batch.
        mesh: The mesh.

    Returns:
        The means over the parts, and the statistics after the last.
    """
    if parts == 1:
        return gradients(batch_stats, examples, key)
    divided = NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))

    def divide(x: Array) -> Array:
        x = jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)
        return jax.lax.with_sharding_constraint(x, divided)

    def add(carry: Any, part: Any) -> tuple[Any, None]:
        sums, batch_stats = carry
        index, own = part
        found, batch_stats = gradients(batch_stats, own, jax.random.fold_in(key, index))
        return (jax.tree.map(jnp.add, sums, found), batch_stats), None

    stacked = (jnp.arange(parts), jax.tree.map(divide, examples))
    shapes, _ = jax.eval_shape(
        gradients, batch_stats, jax.tree.map(lambda x: x[0], stacked[1]), key
    )
    carry = (jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), batch_stats)
    if mesh.devices.flat[0].platform == "cpu":
        # Convolutions in a loop are 40 times slower on CPUs (jax#12868).
        for index in range(parts):
            part = jax.tree.map(lambda x, index=index: x[index], stacked)
            carry, _ = add(carry, part if index == 0 else _after(carry, part))
    else:
        carry, _ = jax.lax.scan(add, carry, stacked)
    sums, batch_stats = carry
    return jax.tree.map(lambda x: x / parts, sums), batch_stats


def _after(earlier: PyTree[Array], part: PyTree[Array]) -> PyTree[Array]:
    """The same part, which cannot be had before what is earlier is computed.

    XLA on CPUs drops optimisation barriers and would compute the parts side by side, with the
    memory of all of them; what it computes with it must wait for.
    """
    firsts = [leaf.ravel()[0] for leaf in jax.tree.leaves(earlier)]
    # Zero as long as the training has not diverged.
    zero = jnp.isnan(sum(first.astype(jnp.float32) for first in firsts))
    return jax.tree.map(lambda x: x + zero.astype(x.dtype), part)
