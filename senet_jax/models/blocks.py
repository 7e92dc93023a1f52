"""Residual blocks: basic and bottleneck, with a place for attention and a choice of shortcut."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from senet_jax.attention import ConvAttention, Mechanism
from senet_jax.attention.base import apply_attention
from senet_jax.attention.joined import norm_with_attention
from senet_jax.errors import UsageError
from senet_jax.fields.models import (
    Placement,
    ResNetFields,
)
from senet_jax.ops.compute import Compute
from senet_jax.ops.drop import Rate, StochasticDepth, norm_and_drop
from senet_jax.ops.norm import BatchNorm
from senet_jax.ops.pooling import avg_pool
from senet_jax.ops.relu import relu_of_sum
from senet_jax.ranges import MOST_WIDTH


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The sampling of a block's input: stride, or dilation in place of a stride."""

    stride: int = 1
    """Stride of the block."""
    dilation: int = 1
    """Dilation of the block's first 3x3 convolution."""
    next_dilation: int = 1
    """Dilation of what follows: the second 3x3 of a basic block and the later blocks."""
    keeps_pool: bool = False
    """If dilation took the stride's place: a pool that strides stays, with stride 1, and the
    shortcut takes its input as it is. See ``ResNetFields.dilated``."""

    @property
    def reduces(self) -> bool:
        """Tells whether the resolution falls here, or would but for the dilation."""
        return self.stride > 1 or self.dilation != self.next_dilation


class Shortcut(nn.Module):
    """The parallel path of a residual block."""

    fields: ResNetFields
    """The fields of the network."""
    compute: Compute
    """Precision and norms of its layers."""
    features: int
    """Channels of the block's output."""
    sampling: Sampling = Sampling()

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        option, channels = self.fields.shortcut, x.shape[-1]
        stride, reduces = self.sampling.stride, self.sampling.reduces
        if not reduces and channels == self.features and option != "C":
            return x
        if option == "A":
            added = self.features - channels
            if added < 0:
                raise UsageError(
                    f"shortcut A pads channels and cannot go from {channels} to {self.features}."
                )
            for axis in (1, 2):
                x = lax.slice_in_dim(x, 0, None, stride, axis)
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (added // 2, added - added // 2)))
        kernel = self.fields.projection_kernel if reduces else 1
        dilation = self.sampling.dilation
        if option == "D" and reduces:
            if stride > 1:
                x = avg_pool(x, 2, stride, ceil_mode=True, count_pad=False)
            elif not self.sampling.keeps_pool:
                # If dilation took the stride's place, timm pads the far side and counts it.
                x = avg_pool(jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))), 2, 1)
            stride, kernel = 1, 1
        conv = self.compute.conv(
            self.features, kernel, stride=stride, dilation=dilation, name="conv"
        )
        return self.compute.norm("bn")(conv(x))


def inner_width(fields: ResNetFields, width: int) -> int:
    """Channels of the 3x3 convolution of a bottleneck in a stage of this width.

    Raises:
        UsageError: There are none, or more than any memory holds the weights of.
    """
    channels = int(width * fields.base_width / 64) * fields.cardinality
    if not fields.reduce_first <= channels <= MOST_WIDTH:
        raise UsageError(
            f"base_width {fields.base_width} and cardinality {fields.cardinality} give a "
            f"bottleneck of width {width} {channels:,} channels, which must be at least "
            f"{fields.reduce_first:,} and at most {MOST_WIDTH:,}: choose others."
        )
    return channels


class ResidualBlock(nn.Module):
    """A basic block or a bottleneck; a subclass says which layers its branch has."""

    expansion: ClassVar[int]
    """The output has this many times as many channels as the width of the stage."""

    fields: ResNetFields
    """The fields of the network."""
    attention: Mechanism | None
    """Stands where ``fields.placement`` says. A ``ConvAttention`` replaces the 3x3 convolution of a
    bottleneck and the first one of a basic block."""
    compute: Compute
    """Precision and norms of its layers."""
    width: int
    """Width of the stage."""
    sampling: Sampling = Sampling()
    stochastic_depth: float = 0.0
    """Probability to drop the residual branch in training."""

    def attend(self, x: Float[Array, "n h w c"], placement: Placement) -> Float[Array, "n h w c"]:
        """Applies the attention if it has this placement."""
        return apply_attention(self._attention_at(placement), x, self.compute)

    def norm_attend(
        self,
        x: Float[Array, "n h w c"],
        norm: BatchNorm,
        placement: Placement,
        drop_rate: Rate | None,
        *,
        relu: bool = False,
    ) -> Float[Array, "n h w c"]:
        """Applies a batch norm, DropBlock, the attention if it has this placement, and a ReLU."""
        return norm_with_attention(
            norm,
            self._attention_at(placement),
            x,
            self.compute,
            drop_rate=drop_rate,
            relu=relu,
            fused=self.fields.fused,
        )

    def conv3x3(
        self,
        x: Float[Array, "n h w c"],
        features: int,
        index: int,
        drop_rate: Rate | None,
        *,
        stride: int,
        groups: int = 1,
    ) -> Float[Array, "n h2 w2 c2"]:
        """Applies ``conv{index}``, batch norm, attention and ReLU, or a ``ConvAttention`` instead.

        With ``fields.stride_by``, a 3x3 average pool before or after them has the stride.
        """
        pools = stride > 1 or self.sampling.keeps_pool
        pool = self.fields.stride_by if pools else "conv"
        if pool == "pool_before":
            x = avg_pool(x, 3, stride, pad=1)
        attention, dilation = self.attention, self.sampling.dilation
        step, name = stride if pool == "conv" else 1, f"conv{index}"
        if isinstance(attention, ConvAttention) and attention.is_active:
            x = attention.build_conv(
                features, self.compute, stride=step, dilation=dilation, groups=groups, name=name
            )(x, drop_rate)
        else:
            x = self.compute.conv(
                features, 3, stride=step, dilation=dilation, groups=groups, name=name
            )(x)
            norm = self.compute.norm(f"bn{index}")
            x = self.norm_attend(x, norm, "conv3x3", drop_rate, relu=True)
        return avg_pool(x, 3, stride, pad=1) if pool == "pool_after" else x

    def shortcut(
        self, x: Float[Array, "n h w c"], features: int
    ) -> Float[Array, "n h2 w2 c2"] | None:
        """The shortcut and the attention on it; None if the network has no shortcuts."""
        if not self.fields.residual:
            return None
        shortcut = Shortcut(self.fields, self.compute, features, self.sampling, name="shortcut")
        return self.attend(shortcut(x), "identity")

    def _attention_at(self, placement: Placement) -> Mechanism | None:
        return self.attention if self.fields.placement == placement else None


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (ResNet, Figure 5 left)."""

    expansion: ClassVar[int] = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], drop_rate: Rate | None = None
    ) -> Float[Array, "n h2 w2 c2"]:
        """Applies the block; ``drop_rate`` is the rate of DropBlock after each batch norm."""
        fields, sampling, compute = self.fields, self.sampling, self.compute

        shortcut = self.shortcut(x, self.width)
        x = self.attend(x, "pre")

        # conv1, bn1, attention if it is placed there, ReLU; or an attention instead of the four.
        x = self.conv3x3(x, self.width, 1, drop_rate, stride=sampling.stride)

        x = compute.conv(self.width, 3, dilation=sampling.next_dilation, name="conv2")(x)
        norm = compute.norm("bn2", zero_scale=fields.zero_init_last)
        if fields.relu_before_attention:
            x = nn.relu(norm_and_drop(norm, x, drop_rate))
            x = self.attend(x, "standard")
        else:
            x = self.norm_attend(x, norm, "standard", drop_rate)

        x = StochasticDepth(self.stochastic_depth)(x, compute.train)
        x = relu_of_sum(x if shortcut is None else x + shortcut)
        return self.attend(x, "post")


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (ResNet, Figure 5 right; ResNeXt, Figure 3c)."""

    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], drop_rate: Rate | None = None
    ) -> Float[Array, "n h2 w2 c2"]:
        """Applies the block; ``drop_rate`` is the rate of DropBlock after each batch norm."""
        fields, stride, compute = self.fields, self.sampling.stride, self.compute
        inner, outer = inner_width(fields, self.width), self.width * self.expansion
        stride1, stride2 = (stride, 1) if fields.stride_on == "conv1" else (1, stride)

        shortcut = self.shortcut(x, outer)
        x = self.attend(x, "pre")

        x = compute.conv(inner // fields.reduce_first, 1, stride=stride1, name="conv1")(x)
        x = norm_and_drop(compute.norm("bn1"), x, drop_rate, relu=True)

        # conv2, bn2, attention if it is placed there, ReLU; or an attention instead of the four.
        x = self.conv3x3(x, inner, 2, drop_rate, stride=stride2, groups=fields.cardinality)

        x = compute.conv(outer, 1, name="conv3")(x)
        norm = compute.norm("bn3", zero_scale=fields.zero_init_last)
        x = self.norm_attend(x, norm, "standard", drop_rate)

        x = StochasticDepth(self.stochastic_depth)(x, compute.train)
        x = relu_of_sum(x if shortcut is None else x + shortcut)
        return self.attend(x, "post")
