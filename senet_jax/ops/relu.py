"""The ReLU after an addition, whose result is needed in any case."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from senet_jax.ops.target import for_gpu


def relu_of_sum(x: Float[Array, "*dims"]) -> Float[Array, "*dims"]:
    """``nn.relu``, with a gradient that reads the result on GPUs.

    The result is in memory for the gradient of the convolution that comes next. XLA would rather
    compute its sign again, and for this read both terms of the sum.

    Args:
        x: Sum of a branch and its shortcut.
    """
    return _by_result(x) if for_gpu() else nn.relu(x)


@jax.custom_vjp
def _by_result(x: Array) -> Array:
    return jnp.maximum(x, 0)


def _by_result_forward(x: Array) -> tuple[Array, Array]:
    # The barrier hides from XLA how the result was computed.
    y = lax.optimization_barrier(jnp.maximum(x, 0))
    return y, y


def _by_result_backward(y: Array, gradient: Array) -> tuple[Array]:
    return (jnp.where(y > 0, gradient, 0),)


_by_result.defvjp(_by_result_forward, _by_result_backward)
