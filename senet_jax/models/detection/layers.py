"""Layers of the pyramid and the heads of detectors."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from senet_jax.ops.compute import Compute
from senet_jax.ops.conv import HE_NORMAL
from senet_jax.ops.precision import accurate

HE_UNIFORM = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
"""Kaiming's uniform initialization without a gain, of variance 1 / fan_in."""
LINEAR = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's initialization of linear layers, of variance 1 / (3 fan_in); biases start at 0 here."""


class ConvLayer(nn.Module, kw_only=True):
    """A convolution with a bias, or with a batch norm, and a ReLU."""

    compute: Compute
    """Precision and norms."""
    width: int
    """Output channels."""
    norm: bool
    """A batch norm in place of the bias."""
    kernel_size: int = 3
    """Side of the kernel."""
    relu: bool = True
    """End in a ReLU."""
    kernel_init: Initializer = HE_NORMAL
    """Initializer of the kernel."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], counts: Bool[Array, " n"] | None = None
    ) -> Float[Array, "n h w c2"]:
        """Applies the layer.

        Args:
            x: Maps.
            counts: False for maps that are padding, see ``BatchNorm``.
        """
        conv = self.compute.conv(
            self.width,
            self.kernel_size,
            use_bias=not self.norm,
            kernel_init=self.kernel_init,
            name="conv",
        )
        x = conv(x)
        if self.norm:
            return self.compute.norm("bn")(x, relu=self.relu, counts=counts)
        return nn.relu(x) if self.relu else x


class MapDense(nn.Module):
    """A dense layer of all values of a map: a convolution of the size of the map."""

    width: int
    """Outputs."""
    dtype: DTypeLike | None
    """Precision; if None, that of the inputs."""
    kernel_init: Initializer
    """Initializer of the kernel."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n c2"]:
        shape = (*x.shape[1:], self.width)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,), jnp.float32)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return jax.lax.dot(x.reshape(len(x), -1), kernel.reshape(-1, self.width)) + bias


class Doubling(nn.Module):
    """A transposed convolution with a 2x2 kernel and stride 2, which doubles the sides of maps."""

    width: int
    """Output channels."""
    dtype: DTypeLike | None
    """Precision; if None, that of the inputs."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        n, height, width, channels = x.shape
        shape = (2, 2, channels, self.width)
        kernel = self.param("kernel", HE_NORMAL, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,), jnp.float32)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = jnp.einsum("nhwc,abco->nhawbo", x, kernel)
        return y.reshape(n, 2 * height, 2 * width, self.width) + bias


def output_dense(width: int, init: Initializer, dtype: DTypeLike, name: str) -> nn.Dense:
    """A dense layer whose outputs are at least in float32."""
    return nn.Dense(width, kernel_init=init, dtype=accurate(dtype), name=name)
