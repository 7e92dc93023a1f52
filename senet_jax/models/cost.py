"""The cost of a network: parameters and multiply-accumulates, exact, without running it."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend import core

from senet_jax.models import mobilenet, shufflenet, vgg
from senet_jax.models.blocks import BasicBlock, Bottleneck
from senet_jax.models.inception import InceptionModule
from senet_jax.models.inception_resnet import ResidualModule
from senet_jax.models.preact_resnet import PreactBlock
from senet_jax.models.shake_shake import ShakeBlock
from senet_jax.ops.conv_lowering import lowering
from senet_jax.ops.resize import INTERPOLATION


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of one forward pass of one image."""

    params: int
    """Trainable parameters; the running statistics are not among them."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products, but for those that interpolate
    maps: what the papers call FLOPs."""


BLOCKS = frozenset(
    {
        BasicBlock,
        Bottleneck,
        InceptionModule,
        PreactBlock,
        ResidualModule,
        ShakeBlock,
        mobilenet.Block,
        shufflenet.Unit,
        vgg.Layer,
    }
)
"""Modules that networks repeat: each is traced once for each shape of its input."""


def cost(
    model: nn.Module,
    input_size: int,
    channels: int = 3,
    others: Sequence[jax.ShapeDtypeStruct] = (),
) -> Cost:
    """Counts the parameters and the multiply-accumulates of a model.

    Args:
        model: A module with the calling convention of the zoo.
        input_size: Side of the square image, pixels.
        channels: Channels of the image.
        others: Further inputs of the model, of one image.

    Example:
        >>> from senet_jax import create_model
        >>> counted = cost(create_model("cifar_resnet8"), input_size=32)
        >>> f"{counted.params:,} parameters, {counted.macs / 1e6:.1f} million MACs"
        '75,290 parameters, 12.2 million MACs'
    """
    image = jax.ShapeDtypeStruct((1, input_size, input_size, channels), jnp.float32)
    return _trace(model, image, *others, train=False)[0]


@functools.lru_cache(maxsize=1024)
def _trace(module: nn.Module, *inputs: jax.ShapeDtypeStruct, **arguments: Any) -> tuple[Cost, Any]:
    """The cost of a module and the shapes of its output."""
    blocks = []

    def replace(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        inner = context.module
        if type(inner) not in BLOCKS or not isinstance(inner.parent, nn.Module):
            return call(*args, **kwargs)
        x = jax.ShapeDtypeStruct(args[0].shape, args[0].dtype)
        found, output = _trace(inner.clone(parent=None, name=None), x)
        blocks.append(found)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), output)

    def forward(key: jax.Array, *x: jax.Array) -> tuple[Any, dict]:
        with nn.intercept_methods(replace):
            output, variables = module.init_with_output(key, *x, **arguments)
        return output, variables.get("params", {})

    key = jax.eval_shape(lambda: jax.random.key(0))
    # Other forms multiply by zeros, or multiply where this does not look.
    with lowering("native"):
        jaxpr, (output, params) = jax.make_jaxpr(forward, return_shape=True)(key, *inputs)
    own = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    total = Cost(
        params=own + sum(block.params for block in blocks),
        macs=_macs(jaxpr.jaxpr) + sum(block.macs for block in blocks),
    )
    return total, output


def _macs(jaxpr: core.Jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.params.get("name") == INTERPOLATION:
            continue
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
