"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3).

Lavin and Gray (arXiv 1509.09308, section 4.3): a tile of 4x4 outputs is
Y = A^T [(G k G^T) * (B^T x B)] A, where x is the tile of 6x6 inputs and * multiplies elements. The
sum over the input channels makes 36 products of matrices, (tiles, c) and (c, c2).

Everything is float32. For layers of ResNets the results differ from the direct sums by 1e-6 to 5e-6
of their deviation (root mean square), and by 9e-5 at most. An infinite or NaN pixel makes all
outputs of the tiles that hold it NaN, up to 3 pixels further than in the direct sum; in the
gradient of the kernel all taps of its channel become NaN.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from senet_jax.ops.conv_forms import Geometry, Shaped, padded

TILE = 4
"""Side of a tile of the output, pixels."""

_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
"""B^T."""
_KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    np.float32,
)
"""G."""
_OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    np.float32,
)
"""A^T."""

_SIDE = len(_INPUT)

_KERNELS = np.einsum("qb,pa->qpab", _KERNEL, _KERNEL).reshape(_SIDE * _SIDE, 9)
"""Maps the 9 taps of a kernel to its 36 elements, of which the column changes slower."""


def applies(kernel: Float[Shaped, "kh kw c_g c2"], geometry: Geometry) -> bool:
    """Tells whether a kernel has 3x3 taps of float32, one group, and no stride or dilation.

    In bfloat16 the sums of a tile would lose most of their digits.
    """
    plain = geometry.strides == geometry.dilation == (1, 1)
    square = kernel.shape[:2] == (3, 3) and kernel.dtype == jnp.float32
    return square and geometry.groups == 1 and plain


def _output_sides(x: Shaped, geometry: Geometry) -> tuple[int, int]:
    (above, below), (left, right) = geometry.padding
    return x.shape[1] + above + below - 2, x.shape[2] + left + right - 2


def tiles_of(x: Float[Shaped, "n h w c"], geometry: Geometry) -> tuple[int, int]:
    """The tiles that cover the output, vertically and horizontally."""
    height, width = _output_sides(x, geometry)
    return -(-height // TILE), -(-width // TILE)


def convolve(
    x: Float[Array, "n h w c"], kernel: Float[Array, "3 3 c c2"], geometry: Geometry
) -> Float[Array, "n h2 w2 c2"]:
    """The convolution."""
    tall, wide = tiles_of(x, geometry)
    features = kernel.shape[3]
    kernels = _transformed(_KERNELS, kernel)
    products = lax.dot_general(_input_tiles(x, geometry), kernels, (((2,), (1,)), ((0,), (0,))))
    products = products.reshape(_SIDE, _SIDE, len(x), tall, wide, features)
    # The first axis is the column within a tile, as in _input_tiles; they are stacked in place.
    y = _stack(_OUTPUT, [products[column] for column in range(_SIDE)], 4)
    y = _stack(_OUTPUT, [y[row] for row in range(_SIDE)], 2)
    height, width = _output_sides(x, geometry)
    return y.reshape(len(x), TILE * tall, TILE * wide, features)[:, :height, :width]


def kernel_gradient(
    x: Float[Array, "n h w c"], dy: Float[Array, "n h2 w2 c2"], geometry: Geometry
) -> Float[Array, "3 3 c c2"]:
    """The gradient of the kernel, from that of the output.

    The convolution is linear in the kernel, so that the gradient is
    G^T [sum over tiles of (A dY A^T) * (B^T x B)] G.
    """
    tall, wide = tiles_of(x, geometry)
    below, right = TILE * tall - dy.shape[1], TILE * wide - dy.shape[2]
    dy = jnp.pad(dy, ((0, 0), (0, below), (0, right), (0, 0)))
    gradients = _stack(_OUTPUT.T, [dy[:, row::TILE] for row in range(TILE)])
    gradients = _combine(_OUTPUT.T, [gradients[:, :, :, column::TILE] for column in range(TILE)])
    products = lax.dot_general(
        _input_tiles(x, geometry), _flat(gradients), (((1,), (1,)), ((0,), (0,)))
    )
    return _transformed(_KERNELS.T, products).reshape(3, 3, *products.shape[1:])


def _input_tiles(x: Array, geometry: Geometry) -> Float[Array, "36 tiles c"]:
    """B^T x B of all tiles; the columns within a tile change slower than the rows."""
    tall, wide = tiles_of(x, geometry)
    (above, _), (left, _) = geometry.padding
    below, right = TILE * tall + 2 - x.shape[1] - above, TILE * wide + 2 - x.shape[2] - left
    x = padded(x, ((above, below), (left, right)))
    parts = [x[:, row:][:, : TILE * tall : TILE] for row in range(_SIDE)]
    by_row = _stack(_INPUT, parts)
    parts = [by_row[:, :, :, column:][:, :, :, : TILE * wide : TILE] for column in range(_SIDE)]
    return _flat(_combine(_INPUT, parts))


def _flat(parts: Array) -> Float[Array, "36 rows c"]:
    return parts.reshape(_SIDE * _SIDE, -1, parts.shape[-1])


def _combine(matrix: np.ndarray, parts: Sequence[Array]) -> Array:
    """Multiplies a constant matrix with a vector of arrays; the results are stacked in front.

    It is one loop over all results, which compiles in a third of the time of a loop for each.
    """
    columns = matrix.T.reshape(len(parts), -1, *[1] * parts[0].ndim)
    return functools.reduce(
        jnp.add, (jnp.asarray(column) * part for column, part in zip(columns, parts, strict=True))
    )


def _stack(matrix: np.ndarray, parts: Sequence[Array], axis: int = 0) -> Array:
    """As :func:`_combine`, by a loop for each result, stacked along any axis.

    XLA computes a stack once. It would fuse a :func:`_combine` into the next one, and compute each
    of its elements six times.
    """
    sums = []
    for row in matrix:
        terms = [value * part for value, part in zip(row, parts, strict=True) if value]
        sums.append(functools.reduce(jnp.add, terms))
    return jnp.stack(sums, axis)


def _transformed(matrix: np.ndarray, kernels: Float[Array, "*taps c c2"]) -> Array:
    """A constant matrix times the kernel of each pair of channels, as a vector of its taps."""
    taps = kernels.reshape(matrix.shape[1], -1)
    product = lax.dot_general(jnp.asarray(matrix), taps, (((1,), (0,)), ((), ())))
    return product.reshape(-1, *kernels.shape[-2:])
