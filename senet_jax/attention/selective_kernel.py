"""Selective kernels (SKNet, arXiv 1903.06586, section 3.1)."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from senet_jax.attention.base import ConvAttention, Gated
from senet_jax.attention.squeeze import SQUEEZES
from senet_jax.errors import UsageError, choose
from senet_jax.fields.attention import SelectiveKernelFields
from senet_jax.ops.compute import Compute
from senet_jax.ops.drop import Rate, norm_and_drop
from senet_jax.ops.precision import accurate


@dataclasses.dataclass(frozen=True)
class SelectiveKernelConfig(SelectiveKernelFields, ConvAttention):
    """Description of a selective-kernel convolution. The defaults are those of SKNet-50.

    Raises:
        UsageError: An unknown squeeze, or a number out of range.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("squeeze", self.squeeze, SQUEEZES)

    def build_conv(
        self,
        features: int,
        compute: Compute,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        name: str | None = None,
    ) -> "SelectiveKernel":
        return SelectiveKernel(self, features, compute, stride, dilation, groups, name=name)


class SelectiveKernel(Gated):
    """Convolutions of several kernel sizes, and their sum weighted by a softmax per channel.

    The parameters are ``path1``, ``path2``, ... (``conv`` and ``bn``), ``reduce`` with its
    ``reduce_bn``, and ``expand`` (path-major outputs). The weights (n, 1, 1, paths, features) are
    sown as the intermediate ``gate``.

    Raises:
        UsageError: Channels that the paths or the groups do not divide.
    """

    config: SelectiveKernelConfig
    """The fields of the mechanism."""
    features: int
    """Output channels."""
    compute: Compute
    """Precision and norms of the convolutions; the attention is float32."""
    stride: int = 1
    """Stride of the convolutions."""
    dilation: int = 1
    """Multiplies the dilation of every path."""
    groups: int = 1
    """Groups of each path's convolution."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], drop_rate: Rate | None = None
    ) -> Float[Array, "n h2 w2 c2"]:
        config, channels = self.config, x.shape[-1]
        paths = len(config.dilations)
        shares = paths if config.split_input else 1
        if channels % (shares * self.groups) or self.features % self.groups:
            raise UsageError(
                f"selective kernels from {channels} to {self.features} channels cannot have "
                f"{shares} shares of the input in {self.groups} groups: choose a cardinality that "
                f"divides {channels}{' per share' if shares > 1 else ''}, or another width."
            )
        inputs = jnp.split(x, paths, axis=-1) if config.split_input else [x] * paths
        outputs = jnp.stack(
            [
                _Path(
                    self.features,
                    self.compute,
                    self.stride,
                    self.dilation * dilation,
                    self.groups,
                    name=f"path{index}",
                )(path, drop_rate)
                for index, (path, dilation) in enumerate(
                    zip(inputs, config.dilations, strict=True), 1
                )
            ],
            axis=3,
        )
        hidden = SQUEEZES[config.squeeze](outputs.sum(axis=3, dtype=accurate(outputs.dtype)))
        width = max(int(self.features // config.reduction), config.min_width)
        hidden = _layer(width, hidden.dtype, "reduce")(hidden)
        hidden = self.compute.within(hidden.dtype).norm("reduce_bn")(hidden, relu=True)
        logits = _layer(paths * self.features, hidden.dtype, "expand")(hidden)
        gate = self.expose_gate(
            jax.nn.softmax(logits.reshape(-1, 1, 1, paths, self.features), axis=3)
        )
        return (outputs * gate.astype(outputs.dtype)).sum(axis=3)


class _Path(nn.Module):
    """A 3x3 convolution with batch norm and ReLU."""

    features: int
    compute: Compute
    stride: int
    dilation: int
    groups: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], drop_rate: Rate | None
    ) -> Float[Array, "n h2 w2 c2"]:
        x = self.compute.conv(
            self.features,
            3,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
            name="conv",
        )(x)
        return norm_and_drop(self.compute.norm("bn"), x, drop_rate, relu=True)


def _layer(features: int, dtype: DTypeLike, name: str) -> nn.Dense:
    init = nn.initializers.he_normal()
    return nn.Dense(features, use_bias=False, kernel_init=init, dtype=dtype, name=name)
