"""What a network costs: parameters and multiply-accumulates, exact, without running it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend import core

from senet_jax.ops.conv_lowering import lowering


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of one forward pass of one image."""

    params: int
    """Trainable parameters; the running statistics are not among them."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products: what the papers call FLOPs."""


def cost(model: nn.Module, input_size: int, channels: int = 3) -> Cost:
    """Counts the parameters and the multiply-accumulates of a model.

    Args:
        model: A module with the calling convention of the zoo.
        input_size: Side of the square image, pixels.
        channels: Channels of the image.
    """
    image = jax.ShapeDtypeStruct((1, input_size, input_size, channels), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def forward(key: jax.Array, image: jax.Array) -> tuple[jax.Array, dict]:
        logits, variables = model.init_with_output(key, image, train=False)
        return logits, variables.get("params", {})

    # Other forms multiply by zeros, or multiply where this does not look.
    with lowering("native"):
        jaxpr, (_, params) = jax.make_jaxpr(forward, return_shape=True)(key, image)
    return Cost(
        params=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        macs=_macs(jaxpr.jaxpr),
    )


def _macs(jaxpr: core.Jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        shapes = [getattr(var.aval, "shape", ()) for var in eqn.invars]
        out = math.prod(getattr(eqn.outvars[0].aval, "shape", ())) if eqn.outvars else 0
        if eqn.primitive.name == "conv_general_dilated":
            kernel = shapes[1]
            out_features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
            total += out * math.prod(kernel) // out_features
        elif eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            total += out * math.prod(shapes[0][axis] for axis in contracted)
        repeats = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        total += repeats * sum(_macs(inner) for inner in core.jaxprs_in_params(eqn.params))
    return total
