"""Pooling with the paddings of PyTorch and Caffe, which ``SAME`` and ``VALID`` cannot express."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Num

from senet_jax.ops.target import for_gpu


def pooled_side(size: int, window: int, stride: int, pad: int = 0, ceil_mode: bool = False) -> int:
    """The number of windows along an axis, in PyTorch and Caffe; none or less: too small.

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
    x: Float[Array, "n h w c"],
    window: int,
    stride: int,
    *,
    pad: int = 0,
    ceil_mode: bool = False,
    relu: bool = False,
) -> Float[Array, "n h2 w2 c"]:
    """Maximum over square windows; padding counts as minus infinity.

    Args:
        x: Feature maps.
        window: Side of the window, pixels.
        stride: Distance between windows, pixels.
        pad: Padding on every side, pixels.
        ceil_mode: Keep a last window that hangs over the edge (Caffe's rule).
        relu: A ReLU stands before the pool. On GPUs it is one more candidate of each
            window, zero, which saves the map between the two.
    """
    padding = [_padding(size, window, stride, pad, ceil_mode) for size in x.shape[1:3]]
    x, kept = _reached(x, window, stride, padding)
    windows = _Windows(window, stride, kept, x.shape[1:3])
    if for_gpu():
        return _max_pool_by_pixel(x, windows, relu)
    return _max_pool(nn.relu(x) if relu else x, windows)


class _Windows(NamedTuple):
    """The places of the windows of a pool, which reach all of the map."""

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


def _max_pool_forward(x: Array, windows: _Windows, relu: bool = False) -> tuple[Array, Array]:
    """The maximum, and which pixel of its window it was, counted row by row from 0.

    If ``relu``, zero is a candidate before all pixels, and has the number after theirs.
    """
    side, stride, padding, _ = windows
    low = jnp.array(-jnp.inf, x.dtype)
    padded = lax.pad(x, low, [(0, 0, 0), *((*sides, 0) for sides in padding), (0, 0, 0)])
    rows, columns = ((size - side) // stride * stride + 1 for size in padded.shape[1:3])

    def seen(row: int, column: int) -> Array:
        """The pixel at this place of every window."""
        return padded[:, row : row + rows : stride, column : column + columns : stride]

    best = jnp.zeros_like(seen(0, 0)) if relu else seen(0, 0)
    winner = jnp.full(best.shape, side**2 if relu else 0, np.min_scalar_type(side**2))
    for place in range(0 if relu else 1, side**2):
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_pool_by_pixel(
    x: Float[Array, "n h w c"], windows: _Windows, relu: bool
) -> Float[Array, "n h2 w2 c"]:
    """As :func:`_max_pool`, of the ReLU of ``x`` if ``relu``, in the form for GPUs.

    XLA's own gradient scatters there, and its forward pass writes four indices for each window.
    Here each pixel gathers its gradient from the few windows that hold it.
    """
    best = _max_pool(x, windows)
    return nn.relu(best) if relu else best


def _max_pool_by_pixel_forward(x: Array, windows: _Windows, relu: bool) -> tuple[Array, Array]:
    # Without the barrier XLA keeps the comparisons, a map each, from which it computes the winner.
    best, winner = lax.optimization_barrier(_max_pool_forward(x, windows, relu))
    return best, winner


def _max_pool_by_pixel_backward(
    windows: _Windows, relu: bool, winner: Array, gradient: Array
) -> tuple[Array]:
    side, stride, padding, size = windows
    reach = -(-side // stride)
    total = jnp.zeros((), gradient.dtype)
    for back_row, back_column in np.ndindex(reach, reach):
        back = back_row, back_column
        rows, columns = (
            lax.broadcasted_iota(jnp.int32, (1, *size, 1), axis + 1) + padding[axis][0]
            for axis in (0, 1)
        )
        row, column = rows % stride + back_row * stride, columns % stride + back_column * stride
        place = jnp.where((row < side) & (column < side), row * side + column, -1)
        holder, of_holder = (_spread(each, windows, back) for each in (winner, gradient))
        total += jnp.where(holder.astype(jnp.int32) == place, of_holder, 0)
    return (total,)


def _spread(
    x: Num[Array, "n h2 w2 c"], windows: _Windows, back: tuple[int, int]
) -> Num[Array, "n h w c"]:
    """For each pixel the number of a window that holds it.

    Args:
        x: Numbers of windows.
        windows: Their places.
        back: Rows and columns of windows to go back from the last one that begins at the pixel or
            before it.
    """
    for axis, steps in enumerate(back, 1):
        before, length = windows.padding[axis - 1][0], windows.size[axis - 1]
        last = (before + length - 1) // windows.stride
        pads = [(0, 0, 0)] * x.ndim
        pads[axis] = steps, last + 1 - steps - x.shape[axis], 0
        x = lax.pad(x, jnp.zeros((), x.dtype), pads)
        x = jnp.repeat(x, windows.stride, axis)
        x = lax.slice_in_dim(x, before, before + length, axis=axis)
    return x


_max_pool_by_pixel.defvjp(_max_pool_by_pixel_forward, _max_pool_by_pixel_backward)


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
        count_pad: The zeros of ``pad`` count in the mean.
    """
    height, width = x.shape[1:3]
    padding = [_padding(size, window, stride, pad, ceil_mode) for size in (height, width)]
    dims, strides = (1, window, window, 1), (1, stride, stride, 1)
    x, kept = _reached(x, window, stride, padding)
    total = lax.reduce_window(
        x, np.zeros((), x.dtype), lax.add, dims, strides, ((0, 0), *kept, (0, 0))
    )

    def counted(size: int, before: int, after: int) -> np.ndarray:
        """The number of positions that each window counts along one axis."""
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
