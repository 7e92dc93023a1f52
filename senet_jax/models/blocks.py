"""Residual blocks: basic and bottleneck, with a place for attention and a choice of shortcut."""

import dataclasses
from typing import Any, ClassVar, Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from senet_jax.attention import Attention, ConvAttention, Mechanism
from senet_jax.attention.base import check_mechanism, rescale
from senet_jax.errors import UsageError, choose
from senet_jax.ops.conv import conv
from senet_jax.ops.drop import DropBlock, Rate, StochasticDepth
from senet_jax.ops.norm import batch_norm
from senet_jax.ops.pooling import avg_pool
from senet_jax.ops.relu import relu_of_sum
from senet_jax.ranges import MOST_WIDTH, check_fields

Placement = Literal["standard", "pre", "post", "identity", "conv3x3"]
ShortcutOption = Literal["A", "B", "C", "D"]
StrideBy = Literal["conv", "pool_before", "pool_after"]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a block samples its input: stride, or dilation where the stride was given up for it."""

    stride: int = 1
    """Stride of the block."""
    dilation: int = 1
    """Dilation of the block's first 3x3 convolution."""
    next_dilation: int = 1
    """Dilation of what follows: the second 3x3 of a basic block and the later blocks."""
    keeps_pool: bool = False
    """Where dilation took the stride's place: a pool that strides stays, with stride 1, and the
    shortcut takes its input as it is. See ``ResNet.dilated``."""

    @property
    def reduces(self) -> bool:
        """Whether the resolution falls here, or would but for the dilation."""
        return self.stride > 1 or self.dilation != self.next_dilation


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """What all residual blocks of a network have in common.

    Raises:
        UsageError: An unknown placement, shortcut or way to stride, a number below one, an
            attention that is no description, a placement for attention that has its own, or what
            a block without a shortcut cannot have.
    """

    attention: Mechanism | None = None
    """The attention of the block, if it has one. A ``ConvAttention`` replaces the 3x3 convolution
    of a bottleneck and the first one of a basic block."""
    placement: Placement = "standard"
    """Where the attention stands (SENet, section 6.5 and Figure 5): "standard", after the last
    batch norm and before the addition; "pre", before the residual unit, on its input; "post",
    after the addition and its ReLU; "identity", on the shortcut, after any projection; "conv3x3",
    after the 3x3 convolution and its batch norm, before the ReLU (in a basic block, the first)."""
    shortcut: ShortcutOption = "B"
    """The shortcut where shapes change (ResNet, arXiv 1512.03385, section 4.1): "A" subsamples
    and pads with zero channels; "B" is a 1x1 projection; "C" projects in every block; "D" averages
    2x2 before a projection of stride 1 (ResNet-D, arXiv 1812.01187, section 4)."""
    residual: bool = True
    """Whether blocks have shortcuts; without them their branch is all there is, as in the plain
    networks (ResNet, section 3.3)."""
    projection_kernel: int = 1
    """Side of the projection's kernel where the block has a stride (SENet-154: 3)."""
    cardinality: int = 1
    """Groups of the 3x3 convolution of a bottleneck (ResNeXt, arXiv 1611.05431)."""
    base_width: int = 64
    """Width of a group where the stage's width is 64 (ResNeXt-50 32x4d: 4)."""
    reduce_first: int = 1
    """Divides the width of the first 1x1 of a bottleneck (SENet-154: 2)."""
    stride_on: Literal["conv1", "conv2"] = "conv2"
    """Which convolution of a bottleneck has the stride: the first 1x1 (the paper's, Caffe's) or
    the 3x3 (torchvision's). The parameters are the same, the network is not."""
    stride_by: StrideBy = "conv"
    """What strides where a 3x3 would: itself, or a 3x3 average pool of that stride after it
    (ResNeSt, arXiv 2004.08955, section 4.1) or before it (its fast variants)."""
    zero_init_last: bool = False
    """Start the scale of the last batch norm of the residual branch at zero."""
    relu_before_attention: bool = False
    """A ReLU after the last batch norm of a basic block, before its attention, which the networks
    released as ``legacy_seresnet18`` and ``34`` have."""
    fused: bool = True
    """In training, join attention that stands right behind a batch norm to it where it can be: see
    ``Attention.averages``. The result is the same to rounding, with fewer passes over the maps."""
    norm_group: int | None = None
    """See ``Backbone.norm_group``."""
    dtype: Any = None
    """Compute precision; parameters and statistics stay float32."""

    def __post_init__(self) -> None:
        check_mechanism(self.attention)
        choose("placement", self.placement, get_args(Placement))
        choose("shortcut", self.shortcut, get_args(ShortcutOption))
        choose("stride_on", self.stride_on, ("conv1", "conv2"))
        choose("stride_by", self.stride_by, get_args(StrideBy))
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
        keeps_pool: bool = False,
    ) -> Float[Array, "n h2 w2 c2"]:
        """Applies ``conv{index}``, batch norm and ReLU, or the attention in place of the three.

        Called inside a block; ``drop_rate`` is the rate of DropBlock, ``keeps_pool`` that of the
        block's ``Sampling``.
        """
        pool = stride
        pools = self.stride_by != "conv" and (stride > 1 or keeps_pool)
        if pools:
            stride = 1
        if pools and self.stride_by == "pool_before":
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
        if pools and self.stride_by == "pool_after":
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
            elif not self.sampling.keeps_pool:
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
            keeps_pool=s.keeps_pool,
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
            keeps_pool=s.keeps_pool,
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
