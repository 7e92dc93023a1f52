"""Split attention (ResNeSt, arXiv 2004.08955, section 3)."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention.base import ConvAttention, Gated
from senet_jax.attention.squeeze import SQUEEZES
from senet_jax.errors import UsageError, choose
from senet_jax.fields.attention import SplitAttentionFields
from senet_jax.ops.compute import Compute
from senet_jax.ops.conv import HE_NORMAL
from senet_jax.ops.drop import Rate, norm_and_drop
from senet_jax.ops.moments import scale
from senet_jax.ops.precision import accurate
from senet_jax.ops.splits import add_splits


@dataclasses.dataclass(frozen=True)
class SplitAttentionConfig(SplitAttentionFields, ConvAttention):
    """Description of a split-attention convolution.

    The cardinality is the convolution's number of groups, so a field of the backbone.

    Raises:
        UsageError: An unknown squeeze, or a number out of range.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("squeeze", self.squeeze, SQUEEZES)

    @property
    def is_active(self) -> bool:
        return self.radix > 0

    def hidden_width(self, channels: int, groups: int) -> int:
        """Hidden width, rounded up to whole groups (no published network needs the rounding).

        Args:
            channels: Channels that the convolution takes.
            groups: Its cardinal groups.
        """
        width = max(channels * self.radix // self.reduction, self.min_width)
        return -(-width // groups) * groups

    def build_conv(
        self,
        features: int,
        compute: Compute,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        name: str | None = None,
    ) -> "SplitAttention":
        return SplitAttention(self, features, compute, stride, dilation, groups, name=name)


class SplitAttention(Gated):
    """A grouped 3x3 convolution to ``radix`` splits, and their sum weighted by attention.

    The parameters are ``conv`` and ``bn`` (radix * features outputs, radix-major, in
    radix * groups groups) and the 1x1 convolutions ``reduce`` with its ``reduce_bn`` and
    ``expand``, in ``groups`` groups. The weights (n, 1, 1, radix, features) are sown as the
    intermediate ``gate``.

    Raises:
        UsageError: Channels that the groups and splits do not divide.
    """

    config: SplitAttentionConfig
    """The fields of the mechanism."""
    features: int
    """Output channels."""
    compute: Compute
    """Precision and norms of the convolutions; the attention is float32."""
    stride: int = 1
    """Stride of the convolution."""
    dilation: int = 1
    """Dilation of the convolution."""
    groups: int = 1
    """Cardinal groups."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], drop_rate: Rate | None = None
    ) -> Float[Array, "n h2 w2 c2"]:
        n, _, _, channels = x.shape
        radix, groups, features = self.config.radix, self.groups, self.features
        if channels % (radix * groups) or features % groups:
            raise UsageError(
                f"split attention from {channels} to {features} channels cannot have {groups} "
                f"groups of {radix} splits: choose a cardinality and a radix whose product divides "
                f"{channels}, or another width."
            )
        x = self.compute.conv(
            radix * features,
            3,
            stride=self.stride,
            dilation=self.dilation,
            groups=radix * groups,
            name="conv",
        )(x)
        x = norm_and_drop(self.compute.norm("bn"), x, drop_rate, relu=True)

        total = add_splits(x.astype(accurate(x.dtype)), radix)
        hidden = SQUEEZES[self.config.squeeze](total)
        width = self.config.hidden_width(channels, groups)
        hidden = _GroupedDense(width, groups, name="reduce")(hidden)
        hidden = self.compute.within(hidden.dtype).norm("reduce_bn")(hidden, relu=True)
        logits = _GroupedDense(radix * features, groups, name="expand")(hidden)
        # The layer leaves the splits of a cardinal group next to each other.
        parts = jnp.split(logits, groups * radix, axis=-1)
        splits = [jnp.concatenate(parts[index::radix], axis=-1) for index in range(radix)]
        stacked = jnp.stack(splits, axis=1)
        gate = jax.nn.softmax(stacked, axis=1) if radix > 1 else jax.nn.sigmoid(stacked)
        gate = self.expose_gate(gate[:, None, None])
        weighted = scale(x, gate.reshape(n, radix * features))
        return add_splits(weighted, radix)


class _GroupedDense(nn.Module):
    """A 1x1 convolution of a single pixel, with biases, as matrix products."""

    features: int
    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "n c"]) -> Float[Array, "n {self.features}"]:
        shape = (1, 1, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", HE_NORMAL, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        inputs = jnp.split(x, self.groups, axis=-1)
        kernels = jnp.split(kernel[0, 0], self.groups, axis=-1)
        products = [a @ b for a, b in zip(inputs, kernels, strict=True)]
        return jnp.concatenate(products, axis=-1) + bias
