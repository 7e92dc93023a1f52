"""Pooling with the paddings of PyTorch and Caffe, which ``SAME`` and ``VALID`` cannot express."""

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
    return nn.max_pool(x, (window, window), strides=(stride, stride), padding=padding)


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
    total = lax.reduce_window(
        x, np.zeros((), x.dtype), lax.add, dims, strides, ((0, 0), *padding, (0, 0))
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
