"""Pooling with the paddings of PyTorch and Caffe, which ``SAME`` and ``VALID`` cannot express."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float


def pooled_side(size: int, window: int, stride: int, pad: int = 0, ceil_mode: bool = False) -> int:
    """How many windows there are along an axis, in PyTorch and Caffe; none or less: too small.

    In ceil mode a last, partial window is kept if it starts inside the image or its left padding.
    """
    if not ceil_mode:
        return (size + 2 * pad - window) // stride + 1
    outputs = -(-(size + 2 * pad - window) // stride) + 1
    return outputs - 1 if (outputs - 1) * stride >= size + pad else outputs


def _padding(size: int, window: int, stride: int, pad: int, ceil_mode: bool) -> tuple[int, int]:
    """Padding (before, after) that gives the output length of PyTorch and Caffe."""
    if not ceil_mode:
        return pad, pad
    outputs = pooled_side(size, window, stride, pad, ceil_mode)
    return pad, max(pad, (outputs - 1) * stride + window - size - pad)


def _reached(
    x: Float[Array, "n h w c"], window: int, stride: int, padding: Sequence[tuple[int, int]]
) -> tuple[Float[Array, "n h1 w1 c"], tuple[tuple[int, int], ...]]:
    """The part of a map, and of its padding, that windows reach, for the pool to be of that alone.

    On CPUs jax 0.10.1 makes one kernel of a matrix product and a pool after it, which writes beyond
    its memory where windows leave out the end of the map.
    """
    sizes, kept = [], []
    for size, (before, after) in zip(x.shape[1:3], padding, strict=True):
        rest = (before + size + after - window) % stride
        sizes.append(size - max(0, rest - after))
        kept.append((before, max(0, after - rest)))
    return x[:, : sizes[0], : sizes[1]], tuple(kept)


def max_pool(
    x: Float[Array, "n h w c"], window: int, stride: int, *, pad: int = 0, ceil_mode: bool = False
) -> Float[Array, "n h2 w2 c"]:
    """Maximum over square windows; padding counts as minus infinity.

    Args:
        x: Feature maps.
        window: Side of the window, pixels.
        stride: Distance between windows, pixels.
        pad: Padding on every side, pixels.
        ceil_mode: Keep a last window that hangs over the edge (Caffe's rule).
    """
    padding = [_padding(size, window, stride, pad, ceil_mode) for size in x.shape[1:3]]
    x, kept = _reached(x, window, stride, padding)
    return _max_pool(x, _Windows(window, stride, kept, x.shape[1:3]))


class _Windows(NamedTuple):
    """Where the windows of a pool lie, which reach all of the map."""

    side: int
    stride: int
    padding: tuple[tuple[int, int], ...]
    size: tuple[int, ...]
    """Rows and columns of the map."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Float[Array, "n h w c"], windows: _Windows) -> Float[Array, "n h2 w2 c"]:
    """Maximum over windows, for whose gradient XLA has a loop that is slow on CPUs.

    The gradient of a window goes to the first pixel that has its maximum, as in XLA's.
    """
    side, stride, padding, _ = windows
    return nn.max_pool(x, (side, side), strides=(stride, stride), padding=padding)


def _max_pool_forward(x: Array, windows: _Windows) -> tuple[Array, Array]:
    """The maximum, and which pixel of its window it was."""
    side, stride, padding, _ = windows
    low = jnp.array(-jnp.inf, x.dtype)
    padded = lax.pad(x, low, [(0, 0, 0), *((*sides, 0) for sides in padding), (0, 0, 0)])
    rows, columns = ((size - side) // stride * stride + 1 for size in padded.shape[1:3])

    def seen(row: int, column: int) -> Array:
        """The pixel at this place of every window."""
        return padded[:, row : row + rows : stride, column : column + columns : stride]

    best = seen(0, 0)
    winner = jnp.zeros(best.shape, np.min_scalar_type(side**2 - 1))
    for place in range(1, side**2):
        pixel = seen(*divmod(place, side))
        winner = jnp.where(pixel > best, jnp.array(place, winner.dtype), winner)
        best = jnp.maximum(best, pixel)
    return best, winner


def _max_pool_backward(windows: _Windows, winner: Array, gradient: Array) -> tuple[Array]:
    """Gathers the gradient of each pixel from the windows that hold it.

    Pixels whose row and column leave the same remainders by the stride are held by as many windows,
    at the same places: each such set is a sum of shifted maps.
    """
    side, stride, padding, size = windows
    reach = -(-side // stride)
    rows, columns = (outputs + reach - 1 for outputs in gradient.shape[1:3])
    border = ((0, 0), (reach - 1, reach - 1), (reach - 1, reach - 1), (0, 0))
    gradient, winner = jnp.pad(gradient, border), jnp.pad(winner, border)

    def pixels(first_row: int, first_column: int) -> Array:
        total = jnp.zeros((len(gradient), rows, columns, gradient.shape[3]), gradient.dtype)
        for row in range(first_row, side, stride):
            for column in range(first_column, side, stride):
                top, left = reach - 1 - row // stride, reach - 1 - column // stride
                at = (slice(None), slice(top, top + rows), slice(left, left + columns))
                total += jnp.where(winner[at] == row * side + column, gradient[at], 0)
        return total

    sets = [jnp.stack([pixels(i, j) for j in range(stride)], axis=3) for i in range(stride)]
    whole = jnp.stack(sets, axis=2)
    whole = whole.reshape(len(gradient), rows * stride, columns * stride, -1)
    slices = [
        slice(before, before + length) for (before, _), length in zip(padding, size, strict=True)
    ]
    return (whole[:, slices[0], slices[1]],)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def avg_pool(
    x: Float[Array, "n h w c"],
    window: int,
    stride: int,
    *,
    pad: int = 0,
    ceil_mode: bool = False,
    count_pad: bool = True,
) -> Float[Array, "n h2 w2 c"]:
    """Mean over square windows.

    Args:
        x: Feature maps.
        window: Side of the window, pixels.
        stride: Distance between windows, pixels.
        pad: Padding on every side, pixels.
        ceil_mode: Keep a last window that hangs over the edge; what hangs over ``pad`` is never
            counted.
        count_pad: Whether the zeros of ``pad`` count in the mean.
    """
    height, width = x.shape[1:3]
    padding = [_padding(size, window, stride, pad, ceil_mode) for size in (height, width)]
    dims, strides = (1, window, window, 1), (1, stride, stride, 1)
    x, kept = _reached(x, window, stride, padding)
    total = lax.reduce_window(
        x, np.zeros((), x.dtype), lax.add, dims, strides, ((0, 0), *kept, (0, 0))
    )

    def counted(size: int, before: int, after: int) -> np.ndarray:
        """How many positions each window counts along one axis."""
        first, last = (-pad, size + pad) if count_pad else (0, size)
        starts = np.arange(0, before + size + after - window + 1, stride) - before
        return np.minimum(starts + window, last) - np.maximum(starts, first)

    counts = np.outer(counted(height, *padding[0]), counted(width, *padding[1]))
    return total / counts[None, :, :, None].astype(x.dtype)


def adaptive_avg_pool(
    x: Float[Array, "n h w c"], height: int, width: int
) -> Float[Array, "n {height} {width} c"]:
    """Mean over as many windows as asked for; the map may be smaller than that (PyTorch's rule).

    Window i of k along a side of s pixels spans the pixels from floor(i s / k) to
    ceil((i + 1) s / k).

    Args:
        x: Feature maps.
        height: Rows of the result.
        width: Columns of the result.
    """
    for axis, windows in ((1, height), (2, width)):
        size = x.shape[axis]
        if size == windows:
            continue
        means = [
            lax.slice_in_dim(x, i * size // windows, -(-(i + 1) * size // windows), axis=axis).mean(
                axis, keepdims=True
            )
            for i in range(windows)
        ]
        x = lax.concatenate(means, axis)
    return x
