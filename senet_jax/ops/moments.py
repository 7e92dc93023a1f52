"""Means and variances of feature maps, and the affine that uses them, in one pass each way.

A reduction over all pixels and samples at once is slow in XLA on CPUs, and two of them read the
maps twice. Here one reduction goes over short runs of pixels, whose channels stay in the cache,
and gives two sums; what is left to do is small. The sums are of each sample's own pixels, so that
on a mesh no device waits for another here.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from senet_jax.ops import gpu_moments
from senet_jax.ops.precision import accurate
from senet_jax.ops.runs import run_sums, runs_of
from senet_jax.ops.target import for_gpu


@jax.custom_vjp
def sample_moments(
    x: Float[Array, "n *space c"],
) -> tuple[Float[Array, "n c"], Float[Array, "n c"]]:
    """Mean and biased variance of the pixels of each sample and channel, accurate.

    Each run of pixels is taken relative to its first pixel, and the runs are joined by their means
    (Chan, Golub and LeVeque 1979), so that a mean far above the deviation costs no accuracy, which
    it does in E[x^2] - E[x]^2.

    Args:
        x: Feature maps, or vectors, whose variance is 0.
    """
    runs = runs_of(x)
    runs = runs.astype(accurate(x.dtype))
    first = runs[:, :, 0]
    length = runs.shape[2]
    shifted = runs - first[:, :, None]
    total, squares = run_sums(shifted, shifted * shifted)
    offset = total / length
    run_mean = first + offset
    run_var = jnp.maximum(squares / length - offset * offset, 0)
    mean = run_mean.mean(axis=1)
    var = (run_var + jnp.square(run_mean - mean[:, None])).mean(axis=1)
    return mean, var


def _moments_forward(x: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    mean, var = sample_moments(x)
    return (mean, var), (x, mean)


def _moments_backward(kept: tuple[Array, Array], gradients: tuple[Array, Array]) -> tuple[Array]:
    x, mean = kept
    pixels = max(1, x[0, ..., 0].size)
    of_mean, of_var = (_over_pixels(gradient / pixels, x) for gradient in gradients)
    centred = x.astype(mean.dtype) - _over_pixels(mean, x)
    return ((of_mean + 2 * of_var * centred).astype(x.dtype),)


sample_moments.defvjp(_moments_forward, _moments_backward)


@jax.custom_vjp
def affine(
    x: Float[Array, "n *space c"],
    centre: Float[Array, "n c"],
    factor: Float[Array, "n c"],
    offset: Float[Array, "n c"],
) -> Float[Array, "n *space c"]:
    """``(x - centre) * factor + offset`` with numbers of each sample and channel, accurate.

    The backward pass reads ``x`` and the gradient once for all the sums.
    """
    centre, factor, offset = (_over_pixels(each, x) for each in (centre, factor, offset))
    return (x.astype(accurate(x.dtype)) - centre) * factor + offset


def _affine_forward(
    x: Array, centre: Array, factor: Array, offset: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    return affine(x, centre, factor, offset), (x, centre, factor)


def _affine_backward(
    kept: tuple[Array, Array, Array], gradient: Array
) -> tuple[Array, Array, Array, Array]:
    x, centre, factor = kept
    runs = runs_of(gradient)
    centred = runs_of(x).astype(accurate(x.dtype)) - centre[:, None, None]
    of_offset, of_factor = (s.sum(axis=1) for s in run_sums(runs, runs * centred))
    of_x = (gradient * _over_pixels(factor, x)).astype(x.dtype)
    return of_x, -of_offset * factor, of_factor, of_offset


affine.defvjp(_affine_forward, _affine_backward)


def scale(x: Float[Array, "n *space c"], factor: Float[Array, "n c"]) -> Float[Array, "n *space c"]:
    """``x * factor`` in the precision of ``x``, with the factors' gradient accurate."""
    return gpu_moments.scale(x, factor) if for_gpu() else _scale(x, factor)


@jax.custom_vjp
def _scale(x: Array, factor: Array) -> Array:
    return x * _over_pixels(factor.astype(x.dtype), x)


def _scale_forward(x: Array, factor: Array) -> tuple[Array, tuple[Array, Array]]:
    return _scale(x, factor), (x, factor)


def _scale_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, factor = kept
    gradients, runs = (runs_of(each).astype(accurate(x.dtype)) for each in (gradient, x))
    (of_factor,) = run_sums(gradients * runs)
    return _scale(gradient, factor), of_factor.sum(axis=1).astype(factor.dtype)


_scale.defvjp(_scale_forward, _scale_backward)


def _over_pixels(each: Float[Array, "n c"], x: Float[Array, "n *space c"]) -> Array:
    """Numbers of samples and channels with the axes of the pixels put between."""
    return lax.expand_dims(each, range(1, x.ndim - 1))
