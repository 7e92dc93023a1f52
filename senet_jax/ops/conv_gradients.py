"""Dense convolutions with passes that XLA:CPU does not have: other gradients, or Winograd's domain.

XLA's own kernel gradient of a dense 3x3 convolution takes 2 to 11 times as long on a CPU as its
forward pass, which has as many multiplications. The forms here have no forward-mode derivative.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from senet_jax.ops import winograd
from senet_jax.ops.conv_forms import (
    Form,
    Geometry,
    native,
    padded,
    sum_of_products,
    windows,
)

KernelGradient = Callable[[Array, Array, tuple[int, ...], Geometry], Array]
"""``(images, gradient of the output, shape of the kernel, geometry) -> gradient of the kernel``."""


def _with_gradient(
    kernel_gradient: KernelGradient, convolve: Form = native, *, transposed: bool = False
) -> Form:
    """A convolution with another kernel gradient.

    Args:
        kernel_gradient: That gradient.
        convolve: The form of the forward pass.
        transposed: Compute the gradient of the input by the same form, as the convolution that it
            is without a stride; else it is the derivative of the forward pass.
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
    def form(x: Array, kernel: Array, geometry: Geometry) -> Array:
        return convolve(x, kernel, geometry)

    def forward(x: Array, kernel: Array, geometry: Geometry) -> tuple[Array, tuple[Array, Array]]:
        return convolve(x, kernel, geometry), (x, kernel)

    def backward(geometry: Geometry, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
        x, kernel = saved
        if transposed:
            dx = convolve(dy, *_transposed(kernel, geometry))
        else:
            (dx,) = jax.vjp(lambda x: convolve(x, kernel, geometry), x)[1](dy)
        return dx, kernel_gradient(x, dy, kernel.shape, geometry)

    form.defvjp(forward, backward)
    return form


def _transposed(kernel: Array, geometry: Geometry) -> tuple[Array, Geometry]:
    """The convolution by which an output's gradient becomes the input's, if nothing is strided."""
    (down, across), ((above, below), (left, right)) = geometry.dilation, geometry.padding
    vertical, horizontal = (kernel.shape[0] - 1) * down, (kernel.shape[1] - 1) * across
    pads = ((vertical - above, vertical - below), (horizontal - left, horizontal - right))
    return kernel[::-1, ::-1].swapaxes(2, 3), Geometry((1, 1), pads, geometry.dilation)


def is_dense(kernel: Float[Array, "kh kw c_g c2"], geometry: Geometry) -> bool:
    """Tells whether :data:`patches` applies: one group, and more than one tap."""
    return geometry.groups == 1 and kernel.shape[:2] != (1, 1)


def _patches_of(
    x: Float[Array, "n h w c"], shape: tuple[int, ...], geometry: Geometry
) -> Float[Array, "n h2 w2 taps"]:
    """The pixels that each output is a sum of (im2col), those of each tap of the kernel in turn."""
    return jnp.concatenate(windows(x, shape, geometry), axis=-1)


def _patches_gradient(
    x: Array, dy: Array, shape: tuple[int, ...], geometry: Geometry
) -> Float[Array, "kh kw c c2"]:
    return sum_of_products(_patches_of(x, shape, geometry), dy).reshape(shape)


patches: Form = _with_gradient(_patches_gradient)
"""The kernel gradient is a product with the patches of the images, kh x kw copies of them."""


def _convolve_patches(x: Array, kernel: Array, geometry: Geometry) -> Array:
    rows = kernel.reshape(-1, kernel.shape[3])
    return lax.dot_general(_patches_of(x, kernel.shape, geometry), rows, (((3,), (0,)), ((), ())))


patches_all: Form = _with_gradient(_patches_gradient, _convolve_patches)
"""The forward pass and both gradients are products with the patches of the images."""


def is_small(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw c_g c2"], geometry: Geometry
) -> bool:
    """Tells whether the images, or the output, are smaller than the kernel.

    XLA:CPU computes such a convolution, or its input gradient, pixel by pixel, which takes up to
    40 times as long.
    """
    for axis in range(2):
        reach = (kernel.shape[axis] - 1) * geometry.dilation[axis] + 1
        image = x.shape[1 + axis]
        output = (image + sum(geometry.padding[axis]) - reach) // geometry.strides[axis] + 1
        if min(image, output) < reach:
            return True
    return False


def is_unstrided(kernel: Float[Array, "kh kw c_g c2"], geometry: Geometry) -> bool:
    """Tells whether :data:`crossed` applies: :func:`is_dense` without a stride."""
    return is_dense(kernel, geometry) and geometry.strides == (1, 1)


def _crossed_gradient(
    x: Array, dy: Array, shape: tuple[int, ...], geometry: Geometry
) -> Float[Array, "kh kw c c2"]:
    """One product of horizontal shifts of the images and vertical shifts of the gradient."""
    rows, columns, channels, features = shape
    (down, across), width = geometry.dilation, dy.shape[2]
    x = padded(x, geometry.padding)
    # The rows below the last output have no gradient; with them both have as many rows.
    below = x.shape[1] - dy.shape[1]
    shifted = [x[:, :, column * across : column * across + width] for column in range(columns)]
    lowered = [
        jnp.pad(dy, ((0, 0), (row * down, below - row * down), (0, 0), (0, 0)))
        for row in range(rows)
    ]
    product = sum_of_products(jnp.concatenate(shifted, axis=-1), jnp.concatenate(lowered, axis=-1))
    return product.reshape(columns, channels, rows, features).transpose(2, 0, 1, 3)


crossed: Form = _with_gradient(_crossed_gradient)
"""The kernel gradient is one product of kw shifts of the images and kh of the gradient."""


def _winograd_gradient(
    x: Array, dy: Array, shape: tuple[int, ...], geometry: Geometry
) -> Float[Array, "3 3 c c2"]:
    return winograd.kernel_gradient(x, dy, geometry)


winograd_gradient: Form = _with_gradient(_winograd_gradient)
"""The kernel gradient is computed in Winograd's domain."""

winograd_all: Form = _with_gradient(_winograd_gradient, winograd.convolve, transposed=True)
"""The forward pass and both gradients are computed in Winograd's domain."""
