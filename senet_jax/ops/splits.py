"""The sum of blocks of channels, as split attention needs it."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def add_splits(x: Float[Array, "n h w c"], radix: int) -> Float[Array, "n h w c2"]:
    """Sum of ``radix`` blocks of channels.

    Slices are faster than a sum over an axis of splits, but their gradient would be a concatenation
    in memory, where it is only a broadcast.
    """
    return functools.reduce(jnp.add, jnp.split(x, radix, axis=-1))


def _add_splits_forward(x: Array, radix: int) -> tuple[Array, None]:
    return add_splits(x, radix), None


def _add_splits_backward(radix: int, kept: None, gradient: Array) -> tuple[Array]:
    return (jnp.tile(gradient, radix),)


add_splits.defvjp(_add_splits_forward, _add_splits_backward)
