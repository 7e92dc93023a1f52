"""Grad-CAM: where a network looks for a class (arXiv 1610.02391, section 3).

The feature maps are those that the classifier is given. Their gradient is that of a shift of zero,
which is added to them through ``nn.intercept_methods``: no network needs code for it.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, UInt8

from senet_jax.inference.ensemble import Member
from senet_jax.network import Network
from senet_jax.training.distributed.mesh import make_mesh


@dataclasses.dataclass(frozen=True)
class GradCAM:
    """The pixels that a network looks at in images, for one class in each."""

    label: Int[np.ndarray, " n"]
    """The class that is looked for."""
    coarse: Float[np.ndarray, "n h2 w2"]
    """ReLU of the sum of the feature maps, weighted by the means over the pixels of the gradient of
    the class's logit (eqs. 1 and 2)."""
    fine: Float[np.ndarray, "n h w"]
    """The same at the images' size, interpolated bilinearly."""
    probability: Float[np.ndarray, "n classes"]
    """Probabilities of all classes."""


def grad_cam(
    member: Member,
    images: UInt8[np.ndarray, "n h w c"],
    label: Int[np.ndarray, " n"] | None = None,
) -> GradCAM:
    """Computes the maps of some images.

    Args:
        member: The network.
        images: Views of its size.
        label: The class that is looked for in each image; None means the most probable one.
    """
    network = member.on(make_mesh(1))
    forward = functools.partial(_forward, network, member.model.head_modules[0])

    def explain(variables: Any, images: Array, label: Array | None) -> tuple[Array, ...]:
        shape = jax.eval_shape(lambda: forward(variables, images, 0))[1]

        def score(shift: Array) -> tuple[Array, tuple[Array, ...]]:
            logits, maps = forward(variables, images, shift)
            looked_for = jnp.argmax(logits, axis=-1) if label is None else label
            of_class = jnp.take_along_axis(logits, looked_for[:, None], axis=-1)
            return of_class.sum(), (looked_for, maps, jax.nn.softmax(logits))

        shift = jnp.zeros(shape.shape, shape.dtype)
        gradient, (looked_for, maps, probability) = jax.grad(score, has_aux=True)(shift)
        weights = gradient.astype(jnp.float32).mean(axis=(1, 2))
        coarse = nn.relu(jnp.einsum("nhwc,nc->nhw", maps, weights))
        fine = jax.image.resize(coarse, images.shape[:3], "bilinear")
        return looked_for, coarse, fine, probability

    return GradCAM(*map(np.asarray, network.jit(explain)(member.variables, images, label)))


def _forward(
    network: Network, head: str, variables: Any, images: UInt8[Array, "n h w c"], shift: Array | int
) -> Any:
    """The logits with the last feature maps shifted, and these maps before.

    Args:
        network: The network.
        head: The first of its ``head_modules``.
        variables: ``params`` and ``batch_stats``.
        images: Pixels.
        shift: Added to the maps.
    """
    # The head of most networks takes means of the maps, which ``classify`` computes; that of VGG
    # has layers before it that take the maps themselves.
    path, method = ((), "classify") if head == "head" else ((head,), "__call__")
    maps = []

    def add(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != method or context.module.path != path:
            return next_fun(*args, **kwargs)
        maps.append(args[0])
        return next_fun(args[0] + shift, *args[1:], **kwargs)

    with nn.intercept_methods(add):
        logits = network.apply(variables, images)
    return logits, maps[0]
