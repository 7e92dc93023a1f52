"""The two layers of an excitation, which several mechanisms have."""

import jax
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention.gates import Elementwise
from senet_jax.errors import UsageError
from senet_jax.ops.precision import accurate


def reduced_width(channels: int, reduction: float) -> int:
    """Width of the hidden layer: channels // reduction.

    Raises:
        UsageError: The reduction is larger than the channels, so that nothing would be left.
    """
    hidden = int(channels // reduction)
    if hidden < 1:
        raise UsageError(
            f"reduction {reduction:g} leaves no hidden channel of {channels}: "
            f"use a reduction of at most {channels}."
        )
    return hidden


def mlp(
    x: Float[Array, "*n c"], width: int, *, bias: bool, activation: Elementwise = jax.nn.relu
) -> Float[Array, "*n c"]:
    """Applies the layers ``reduce`` and ``expand``, accurate; called inside a compact method.

    Args:
        x: Squeezed maps, or feature maps, whose pixels are then taken one by one.
        width: Width of the hidden layer.
        bias: The layers have biases.
        activation: The function between them.
    """

    def layer(features: int, name: str) -> nn.Dense:
        return nn.Dense(
            features,
            use_bias=bias,
            kernel_init=nn.initializers.he_normal(),
            dtype=accurate(x.dtype),
            name=name,
        )

    hidden = activation(layer(width, "reduce")(x))
    return layer(x.shape[-1], "expand")(hidden)
