"""The forms in which XLA can be given a convolution; they are equal but for rounding."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from senet_jax.ops.runs import run_sums, runs_of

Pair = tuple[int, int]

Form = Callable[[Array, Array, "Geometry"], Array]
"""``(images, kernel, geometry) -> output``."""

CHUNK, CHUNKS = 32, 4
"""Channels, at least, of a dense convolution in :func:`chunked`, and how many there are at most.
Smaller ones multiply by fewer zeros, but each has to be compiled. With at most 8 a training step of
SE-ResNeXt-50 is 6 % faster than with 4, and compiles in 2.3 times XLA's own forms' time, with 4 in
1.4 times."""

TAPS = 9
"""Taps of a depthwise kernel, at most, whose gradients are summed in one loop."""


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A convolution but for its arrays; all pairs are (vertical, horizontal)."""

    strides: Pair = (1, 1)
    """Pixels from one output to the next."""
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    """Zeros before and after."""
    dilation: Pair = (1, 1)
    """Pixels from one tap of the kernel to the next."""
    groups: int = 1
    """Groups of channels that do not see each other; divides both channel counts."""


def native(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw c_g c2"], geometry: Geometry
) -> Float[Array, "n h2 w2 c2"]:
    """XLA's own convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.padding,
        rhs_dilation=geometry.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=geometry.groups,
    )


def padded(x: Float[Array, "n h w c"], padding: tuple[Pair, Pair]) -> Float[Array, "n h2 w2 c"]:
    """The images with zeros around them; negative numbers take pixels away."""
    rows, columns = ((before, after, 0) for before, after in padding)
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0)))


def windows(
    x: Float[Array, "n h w c"], kernel_shape: tuple[int, ...], geometry: Geometry
) -> list[Float[Array, "n h2 w2 c"]]:
    """The pixels that each tap of a kernel sees, in the order of the taps, row by row."""
    x = padded(x, geometry.padding)
    (down, across), (vertical, horizontal) = geometry.dilation, geometry.strides
    rows, columns = kernel_shape[:2]
    height, width = x.shape[1] - (rows - 1) * down, x.shape[2] - (columns - 1) * across
    return [
        x[:, y : y + height : vertical, z : z + width : horizontal]
        for y in range(0, rows * down, down)
        for z in range(0, columns * across, across)
    ]


def sum_of_products(
    x: Float[Array, "n h w c"], dy: Float[Array, "n h w c2"]
) -> Float[Array, "c c2"]:
    """The products of each channel of one map and each of another, summed over all pixels.

    XLA:CPU writes the first operand of such a product transposed, and computes it anew for this,
    with all additions and norms since the last convolution. So the one of fewer channels is first.
    """
    pixels = (((0, 1, 2), (0, 1, 2)), ((), ()))
    if dy.shape[-1] < x.shape[-1]:
        return lax.dot_general(dy, x, pixels).T
    return lax.dot_general(x, dy, pixels)


def is_pointwise(kernel: Float[Array, "kh kw c_g c2"], geometry: Geometry) -> bool:
    """Tells whether :func:`pointwise` applies: one tap, one group, no padding."""
    unpadded = geometry.padding == ((0, 0), (0, 0))
    return kernel.shape[:2] == (1, 1) and geometry.groups == 1 and unpadded


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def pointwise(
    x: Float[Array, "n h w c"], kernel: Float[Array, "1 1 c c2"], geometry: Geometry
) -> Float[Array, "n h2 w2 c2"]:
    """A matrix product over the channels of the pixels that the stride keeps.

    It has no forward-mode derivative.
    """
    return lax.dot_general(_kept(x, geometry), kernel[0, 0], (((3,), (0,)), ((), ())))


def _kept(x: Array, geometry: Geometry) -> Array:
    for axis, stride in zip((1, 2), geometry.strides, strict=True):
        x = lax.slice_in_dim(x, 0, None, stride, axis)
    return x


def _pointwise_forward(x: Array, kernel: Array, geometry: Geometry) -> tuple[Array, Any]:
    return pointwise(x, kernel, geometry), (x, kernel)


def _pointwise_backward(geometry: Geometry, saved: Any, dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    kept, spread = jax.vjp(lambda x: _kept(x, geometry), x)
    (dx,) = spread(lax.dot_general(dy, kernel[0, 0], (((3,), (1,)), ((), ()))))
    return dx, sum_of_products(kept, dy).reshape(kernel.shape)


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def chunked(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "kh kw c_g c2"],
    geometry: Geometry,
    dense_form: Form | None = None,
) -> Float[Array, "n h2 w2 c2"]:
    """Dense convolutions of some groups each, whose kernels are zero between the groups.

    The blocks between groups are zeros: an infinite pixel in one group becomes NaN in the other
    groups of its chunk (inf * 0).

    Args:
        x: The images.
        kernel: The kernel.
        geometry: The convolution.
        dense_form: The form of the dense convolutions; None means :func:`pointwise` where it
            applies, else :func:`native`.
    """
    groups, (height, width, inner, features) = geometry.groups, kernel.shape
    divisors = [n for n in range(1, groups + 1) if groups % n == 0]
    together = next(
        n for n in divisors if n == groups or (n * inner >= CHUNK and groups <= n * CHUNKS)
    )
    chunks, outer = groups // together, features // groups
    blocks = kernel.reshape(height, width, 1, inner, chunks, together, outer)
    diagonal = jnp.eye(together, dtype=bool)[:, None, None, :, None]
    dense = jnp.where(diagonal, blocks, jnp.zeros((), kernel.dtype))
    dense = dense.reshape(height, width, together * inner, features)
    plain = dataclasses.replace(geometry, groups=1)
    form = dense_form or (pointwise if is_pointwise(dense, plain) else native)
    parts = zip(jnp.split(x, chunks, axis=-1), jnp.split(dense, chunks, axis=-1), strict=True)
    return jnp.concatenate([form(part, weights, plain) for part, weights in parts], axis=-1)


def is_depthwise(kernel: Float[Array, "kh kw c_g c2"], geometry: Geometry) -> bool:
    """Tells whether :func:`depthwise` applies: each channel by itself gives one channel."""
    return 1 < geometry.groups == kernel.shape[3] and kernel.shape[2] == 1


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw 1 c"], geometry: Geometry
) -> Float[Array, "n h2 w2 c"]:
    """A multiply-add of all pixels for each tap of the kernel; has no forward-mode derivative."""
    return _taps(x, kernel, geometry)


def _taps(x: Array, kernel: Array, geometry: Geometry) -> Array:
    weights = kernel.reshape(-1, kernel.shape[3])
    total = jnp.zeros((), x.dtype)
    for window, weight in zip(windows(x, kernel.shape, geometry), weights, strict=True):
        total = total + window * weight
    return total


def _depthwise_forward(x: Array, kernel: Array, geometry: Geometry) -> tuple[Array, Any]:
    return _taps(x, kernel, geometry), (x, kernel)


def _depthwise_backward(geometry: Geometry, saved: Any, dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    dx = _depthwise_input_gradient(dy, kernel, geometry, x.shape)
    if x.dtype == jnp.float32:
        products = [runs_of(window * dy) for window in windows(x, kernel.shape, geometry)]
        parts = (products[tap : tap + TAPS] for tap in range(0, len(products), TAPS))
        sums = [each.sum((0, 1)) for part in parts for each in run_sums(*part)]
        return dx, jnp.stack(sums).reshape(kernel.shape)
    _, pull_kernel = jax.vjp(lambda kernel: chunked(x, kernel, geometry), kernel)
    return dx, pull_kernel(dy)[0]


def _depthwise_input_gradient(
    dy: Array, kernel: Array, geometry: Geometry, shape: tuple[int, ...]
) -> Array:
    """The taps of the flipped kernel over the gradient, spread by the stride.

    The transpose of :func:`_taps` would write a padded map for each tap.
    """
    reach = [step * (side - 1) for step, side in zip(geometry.dilation, kernel.shape, strict=False)]
    before = [most - pad for most, (pad, _) in zip(reach, geometry.padding, strict=True)]
    spread = [(n - 1) * step + 1 for n, step in zip(dy.shape[1:3], geometry.strides, strict=True)]
    after = [
        side + most - low - width
        for side, most, low, width in zip(shape[1:3], reach, before, spread, strict=True)
    ]
    edges = zip(before, after, (step - 1 for step in geometry.strides), strict=True)
    wide = lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
    dense = Geometry(dilation=geometry.dilation, groups=geometry.groups)
    return _taps(wide, kernel[::-1, ::-1], dense)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)
