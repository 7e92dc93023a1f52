"""Gates and inner activations: elementwise functions, by name.

A new gate is a function and a row in :data:`GATES`.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

Elementwise = Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]

GATES: dict[str, Elementwise] = {
    "sigmoid": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "tanh": jax.numpy.tanh,
    "hard_sigmoid": jax.nn.hard_sigmoid,
}
"""The last non-linearity of the excitation. The hard sigmoid is min(max(x + 3, 0), 6) / 6."""

ACTIVATIONS: dict[str, Elementwise] = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "hard_swish": jax.nn.hard_swish,
}
"""The non-linearity between the two layers of the excitation."""
