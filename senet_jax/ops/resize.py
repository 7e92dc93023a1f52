"""Bilinear and nearest resizing of feature maps and labels, equal to PyTorch's.

``jax.image.resize`` is another function: it antialiases when it shrinks a map, and it cannot align
the corners.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from senet_jax.ops.precision import accurate


def resize_bilinear(
    x: Float[Array, "n h w c"], size: Sequence[int], *, align_corners: bool
) -> Float[Array, "n h2 w2 c"]:
    """Resizes maps linearly in both directions, without antialiasing.

    This is ``torch.nn.functional.interpolate(mode="bilinear", antialias=False)``. Each axis is one
    product with a matrix of two entries a row, and so is its gradient. The gradient of a gather
    would be a scatter, which is slower on a CPU (``experiments/benchmarks/resizing.py``) and adds
    in any order on a GPU.

    Args:
        x: Maps.
        size: Height and width of the result, pixels.
        align_corners: The centres of the corner pixels stay where they are; otherwise the outer
            edges of the maps do.

    Returns:
        Maps in float32, in which the result is computed, or in float64 if ``x`` is.
    """
    x = x.astype(accurate(x.dtype))
    for axis, side in zip((1, 2), size, strict=True):
        x = _resize_axis(x, axis, side, align_corners)
    return x


def resize_nearest(x: Shaped[Array, "n h w *c"], size: Sequence[int]) -> Shaped[Array, "..."]:
    """Resizes maps or labels by taking the nearest pixel towards the first one.

    This is ``torch.nn.functional.interpolate(mode="nearest")``.

    Args:
        x: Maps, or labels, of any type.
        size: Height and width of the result, pixels.
    """
    for axis, side in zip((1, 2), size, strict=True):
        x = jnp.take(x, _nearest(x.shape[axis], side), axis=axis)
    return x


def _resize_axis(
    x: Float[Array, "n h w c"], axis: int, side: int, align_corners: bool
) -> Float[Array, "n h2 w2 c"]:
    before = x.shape[axis]
    if before == side:
        return x
    if before == 1:
        shape = (*x.shape[:axis], side, *x.shape[axis + 1 :])
        return jnp.broadcast_to(x, shape)
    matrix = jnp.asarray(_matrix(before, side, align_corners), x.dtype)
    interpolated: Array = interpolate(matrix, x, axis)
    return interpolated


INTERPOLATION = "interpolate"
"""Name of the function that multiplies, in the jaxpr of what calls it."""


@functools.partial(jax.jit, static_argnums=2)
def interpolate(
    matrix: Float[Array, "side before"], x: Float[Array, "n h w c"], axis: int
) -> Float[Array, "n h2 w2 c"]:
    """Applies a matrix to an axis of maps, 1 or 2.

    It is compiled under a name of its own so that the counts of a network's multiplications can
    leave it out: papers count convolutions and dense layers.
    """
    equation = "oh,nhwc->nowc" if axis == 1 else "ow,nhwc->nhoc"
    return jnp.einsum(equation, matrix, x, precision=lax.Precision.HIGHEST)


@functools.lru_cache(maxsize=64)
def _matrix(before: int, after: int, align_corners: bool) -> np.ndarray:
    """The matrix (after, before) that resizes one axis."""
    sources, shares = bilinear_sources(before, after, align_corners)
    matrix = np.zeros((after, before), np.float32)
    np.add.at(matrix, (np.arange(after)[:, None], sources), shares)
    matrix.flags.writeable = False
    return matrix


def bilinear_sources(
    before: int, after: int, align_corners: bool
) -> tuple[Int[np.ndarray, "{after} 2"], Float[np.ndarray, "{after} 2"]]:
    """The two pixels that each pixel of a resized axis lies between, and their shares in it.

    The coordinates have the precision that they have in PyTorch: a scale in float32, and one
    rounding to float32 at the end. In float64 the shares would differ from PyTorch's by up to a
    hundred times the rounding of float32.

    Args:
        before: Pixels of the axis.
        after: Pixels of the resized axis.
        align_corners: As in ``resize_bilinear``.
    """
    steps = np.arange(after)
    if align_corners:
        scale = np.float32(before - 1) / np.float32(max(after - 1, 1))
        source = (float(scale) * steps).astype(np.float32)
    else:
        scale = np.float32(before) / np.float32(after)
        source = np.maximum(float(scale) * (steps + 0.5) - 0.5, 0).astype(np.float32)
    first = np.minimum(source.astype(np.int64), before - 1)
    second = np.minimum(first + 1, before - 1)
    share = np.clip(source - first.astype(np.float32), 0, 1)
    return np.stack([first, second], 1), np.stack([1 - share, share], 1)


@functools.lru_cache(maxsize=64)
def _nearest(before: int, after: int) -> np.ndarray:
    """For each pixel of an axis the one that it is taken from."""
    scale = np.float32(before) / np.float32(after)
    found = np.floor(np.arange(after, dtype=np.float32) * scale).astype(np.int64)
    return np.minimum(found, before - 1)
