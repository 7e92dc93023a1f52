"""Residual blocks: basic and bottleneck, with a place for attention and a choice of shortcut."""

import dataclasses
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from senet_jax.attention import Attention, ConvAttention, Mechanism
from senet_jax.attention.base import check_mechanism, rescale
from senet_jax.errors import UsageError
from senet_jax.fields.models import Placement, ShortcutOption, StrideBy, StrideOn, Width
from senet_jax.ops.conv import conv
from senet_jax.ops.drop import DropBlock, Rate, StochasticDepth
from senet_jax.ops.norm import batch_norm
from senet_jax.ops.pooling import avg_pool
from senet_jax.ops.relu import relu_of_sum
from senet_jax.ranges import KERNEL, MOST_WIDTH, check_fields


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a block samples its input: stride, or dilation where the stride was given up for it."""

    stride: int = 1
    """Stride of the block."""
    dilation: int = 1
    """Dilation of the block's first 3x3 convolution."""
    next_dilation: int = 1
    """Dilation of what follows: the second 3x3 of a basic block and the later blocks."""

    @property
    def reduces(self) -> bool:
        """Whether the resolution falls here, or would but for the dilation."""
        return self.stride > 1 or self.dilation != self.next_dilation


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """What all residual blocks of a network have in common, fields of ``ResNet``.

    Raises:
        UsageError: An unknown placement, shortcut or way to stride, a number below one, an
            attention that is no description, a placement for attention that has its own, or what
            a block without a shortcut cannot have.
    """

    attention: Mechanism | None = None
    placement: Placement = "standard"
    shortcut: ShortcutOption = "B"
    residual: bool = True
    projection_kernel: Annotated[int, KERNEL] = 1
    cardinality: Width = 1
    base_width: Width = 64
    reduce_first: Width = 1
    stride_on: StrideOn = "conv2"
    stride_by: StrideBy = "conv"
    zero_init_last: bool = False
    relu_before_attention: bool = False
    fused: bool = True
    norm_group: int | None = None
    dtype: Any = None

    def __post_init__(self) -> None:
        check_mechanism(self.attention)
        check_fields(self)
        if isinstance(self.attention, ConvAttention) and self.placement != "standard":
            raise UsageError(
                f"{type(self.attention).__name__} replaces the 3x3 convolution and cannot be "
                f'placed at {self.placement!r}: leave placement at "standard".'
            )
        if not self.residual and self.placement == "identity":
            raise UsageError(
                'placement "identity" is on the shortcut, which residual=False takes away: choose '
                "another placement."
            )
        if not self.residual and self.zero_init_last:
            raise UsageError(
                "zero_init_last starts the branch of a block at zero, and without a shortcut "
                "nothing would pass: leave it out, or residual=False."
            )

    def inner_width(self, width: int) -> int:
        """Channels of the 3x3 convolution of a bottleneck in a stage of this width.

        Raises:
            UsageError: There are none, or more than any memory holds the weights of.
        """
        channels = int(width * self.base_width / 64) * self.cardinality
        if not self.reduce_first <= channels <= MOST_WIDTH:
            raise UsageError(
                f"base_width {self.base_width} and cardinality {self.cardinality} give a "
                f"bottleneck of width {width} {channels:,} channels, which must be at least "
                f"{self.reduce_first:,} and at most {MOST_WIDTH:,}: choose others."
            )
        return channels

    def attend(
        self, x: Float[Array, "n h w c"], placement: Placement, train: bool
    ) -> Float[Array, "n h w c"]:
        """Applies the attention if it rescales and this is its placement; called inside a block."""
        if self.placement != placement:
            return x
        return rescale(self.attention, x, train, self.norm_group, self.dtype)

    def bypass(
        self, x: Float[Array, "n h w c"], features: int, sampling: Sampling, train: bool
    ) -> Float[Array, "n h2 w2 c2"] | None:
        """Applies the shortcut and attention on it, if the block has one; called inside a block."""
        if not self.residual:
            return None
        shortcut = Shortcut(self, features, sampling, name="shortcut")(x, train)
        return self.attend(shortcut, "identity", train)

    def join(
        self,
        branch: Float[Array, "n h w c"],
        shortcut: Float[Array, "n h w c"] | None,
        train: bool,
    ) -> Float[Array, "n h w c"]:
        """Adds the shortcut if there is one; ReLU and attention after it; called inside a block."""
        total = branch if shortcut is None else branch + shortcut
        return self.attend(relu_of_sum(total), "post", train)

    def normalise(
        self,
        x: Float[Array, "n h w c"],
        name: str,
        placement: Placement | None = None,
        *,
        zero_scale: bool = False,
        train: bool,
        drop_rate: Rate | None,
        relu: bool = False,
    ) -> Float[Array, "n h w c"]:
        """Applies a batch norm, DropBlock, the attention whose placement is here, and a ReLU.

        Called inside a block; ``drop_rate`` is the rate of DropBlock, ``relu`` whether there is a
        ReLU.
        """
        norm = batch_norm(
            train, zero_scale=zero_scale, group=self.norm_group, dtype=self.dtype, name=name
        )
        attention = self.attention if placement == self.placement else None
        possible = self.fused and train and drop_rate is None
        if possible and isinstance(attention, Attention) and attention.averages:
            return norm(x, attention.build(train=train).excite, relu=relu)
        if drop_rate is None and not isinstance(attention, Attention):
            return norm(x, relu=relu)
        x = DropBlock()(norm(x), drop_rate)
        x = rescale(attention, x, train, self.norm_group, self.dtype)
        return nn.relu(x) if relu else x

    def conv3x3(
        self,
        x: Float[Array, "n h w c"],
        features: int,
        index: int,
        *,
        stride: int,
        dilation: int,
        groups: int,
        train: bool,
        drop_rate: Rate | None,
    ) -> Float[Array, "n h2 w2 c2"]:
        """Applies ``conv{index}``, batch norm and ReLU, or the attention in place of the three.

        Called inside a block; ``drop_rate`` is the rate of DropBlock.
        """
        pool = stride if self.stride_by != "conv" else 1
        if pool > 1:
            stride = 1
        if pool > 1 and self.stride_by == "pool_before":
            x = avg_pool(x, 3, pool, pad=1)
        name = f"conv{index}"
        if isinstance(self.attention, ConvAttention) and self.attention.replaces:
            x = self.attention.build_conv(
                features,
                stride=stride,
                dilation=dilation,
                groups=groups,
                norm_group=self.norm_group,
                dtype=self.dtype,
                name=name,
            )(x, train, drop_rate)
        else:
            x = conv(
                features,
                3,
                stride=stride,
                dilation=dilation,
                groups=groups,
                dtype=self.dtype,
                name=name,
            )(x)
            x = self.normalise(
                x, f"bn{index}", "conv3x3", train=train, drop_rate=drop_rate, relu=True
            )
        if pool > 1 and self.stride_by == "pool_after":
            x = avg_pool(x, 3, pool, pad=1)
        return x


class Shortcut(nn.Module):
    """The parallel path of a residual block."""

    config: BlockConfig
    features: int
    """Channels of the block's output."""
    sampling: Sampling = Sampling()

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        option, channels = self.config.shortcut, x.shape[-1]
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
        kernel = self.config.projection_kernel if reduces else 1
        dilation = self.sampling.dilation
        if option == "D" and reduces:
            if stride > 1:
                x = avg_pool(x, 2, stride, ceil_mode=True, count_pad=False)
            else:
                # Where dilation took the stride's place timm pads the far side and counts it.
                x = avg_pool(jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))), 2, 1)
            stride, kernel = 1, 1
        dtype = self.config.dtype
        x = conv(self.features, kernel, stride=stride, dilation=dilation, dtype=dtype, name="conv")(
            x
        )
        return batch_norm(train, group=self.config.norm_group, dtype=dtype, name="bn")(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet, Figure 5 left)."""

    expansion: ClassVar[int] = 1

    config: BlockConfig
    width: int
    """Width of the stage; the output has ``expansion`` times as many channels."""
    sampling: Sampling = Sampling()
    stochastic_depth: float = 0.0
    """Probability to drop the residual branch in training."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, drop_rate: Rate | None = None
    ) -> Float[Array, "n h2 w2 c2"]:
        c, s = self.config, self.sampling
        shortcut = c.bypass(x, self.width, s, train)
        x = c.attend(x, "pre", train)
        x = c.conv3x3(
            x,
            self.width,
            1,
            stride=s.stride,
            dilation=s.dilation,
            groups=1,
            train=train,
            drop_rate=drop_rate,
        )
        x = conv(self.width, 3, dilation=s.next_dilation, dtype=c.dtype, name="conv2")(x)
        x = c.normalise(
            x,
            "bn2",
            None if c.relu_before_attention else "standard",
            zero_scale=c.zero_init_last,
            train=train,
            drop_rate=drop_rate,
        )
        if c.relu_before_attention:
            x = c.attend(nn.relu(x), "standard", train)
        x = StochasticDepth(self.stochastic_depth)(x, train)
        return c.join(x, shortcut, train)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions (ResNet, Figure 5 right; ResNeXt, Figure 3c)."""

    expansion: ClassVar[int] = 4

    config: BlockConfig
    width: int
    """Width of the stage; the output has ``expansion`` times as many channels."""
    sampling: Sampling = Sampling()
    stochastic_depth: float = 0.0
    """Probability to drop the residual branch in training."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, drop_rate: Rate | None = None
    ) -> Float[Array, "n h2 w2 c2"]:
        c, s = self.config, self.sampling
        inner = c.inner_width(self.width)
        outer = self.width * self.expansion
        stride1, stride2 = (s.stride, 1) if c.stride_on == "conv1" else (1, s.stride)

        shortcut = c.bypass(x, outer, s, train)
        x = c.attend(x, "pre", train)
        x = conv(inner // c.reduce_first, 1, stride=stride1, dtype=c.dtype, name="conv1")(x)
        x = c.normalise(x, "bn1", train=train, drop_rate=drop_rate, relu=True)
        x = c.conv3x3(
            x,
            inner,
            2,
            stride=stride2,
            dilation=s.dilation,
            groups=c.cardinality,
            train=train,
            drop_rate=drop_rate,
        )
        x = conv(outer, 1, dtype=c.dtype, name="conv3")(x)
        x = c.normalise(
            x,
            "bn3",
            "standard",
            zero_scale=c.zero_init_last,
            train=train,
            drop_rate=drop_rate,
        )
        x = StochasticDepth(self.stochastic_depth)(x, train)
        return c.join(x, shortcut, train)
