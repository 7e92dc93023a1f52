"""A network as it is computed: its model, the normalization of its images, devices and lowering."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from senet_jax.data.normalization import Normalization
from senet_jax.ops.conv_lowering import lowering
from senet_jax.ops.lowerings import Lowering
from senet_jax.ops.precision import accurate


@dataclasses.dataclass(frozen=True)
class Network:
    """A model and all that its forward pass depends on besides its variables."""

    model: nn.Module
    """A module with the calling convention of the zoo."""
    normalization: Normalization
    """Mean and standard deviation by which the pixels are normalized."""
    mesh: Mesh
    """The devices; a batch is sharded over all of them."""
    conv_lowering: Lowering | None = None
    """Form in which XLA is given the convolutions; if None, each has the fastest one measured."""

    def apply(
        self,
        variables: Any,
        images: UInt8[Array, "n h w c"] | Float[Array, "n h w c"],
        *others: Any,
        train: bool = False,
        **arguments: Any,
    ) -> Any:
        """Normalizes images and applies the model to them, in a function that ``jit`` compiles.

        Args:
            variables: ``params`` and ``batch_stats``.
            images: Pixels, 0 to 255.
            *others: Further inputs of the model.
            train: Normalize by the statistics of the batch, and drop units.
            **arguments: Others of ``nn.Module.apply``, such as ``mutable`` and ``rngs``.

        Returns:
            As ``nn.Module.apply``: the outputs of the model, and the updated collections if
            ``mutable`` is given.
        """
        normalized = normalize(images, self.normalization)
        return self.model.apply(variables, normalized, *others, train=train, **arguments)

    def jit(self, function: Callable[..., Any], **arguments: Any) -> jax.stages.Wrapped:
        """Compiles a function with ``jax.jit``, whose other arguments it takes.

        While the function is traced, also for its gradient, the convolutions learn of the mesh and
        of their form.
        """

        @functools.wraps(function)
        def traced(*args: Any) -> Any:
            with (
                jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh),
                lowering(self.conv_lowering),
            ):
                return function(*args)

        return jax.jit(traced, **arguments)


def normalize(
    images: UInt8[Array, "n h w c"] | Float[Array, "n h w c"], normalization: Normalization
) -> Float[Array, "n h w c"]:
    """Maps pixels of 0 to 255 to zero mean and unit deviation by channel."""
    mean, std = jnp.array(normalization.mean), jnp.array(normalization.std)
    normalized = (images.astype(accurate(images.dtype)) / 255 - mean) / std
    return normalized[..., ::-1] if normalization.bgr else normalized
