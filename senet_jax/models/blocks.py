"""Residual blocks: basic and bottleneck, with a place for attention and a choice of shortcut."""

import dataclasses
from typing import Any, ClassVar, Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Attention
from senet_jax.errors import UsageError, choose
from senet_jax.ops.conv import conv
from senet_jax.ops.norm import batch_norm
from senet_jax.ops.pooling import avg_pool

Placement = Literal["standard", "pre", "post", "identity", "conv3x3"]
ShortcutOption = Literal["A", "B", "C", "D"]


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """What all residual blocks of a network have in common.

    Raises:
        UsageError: An unknown placement or shortcut, an attention that is no description, or a
            number below one.
    """

    attention: Attention | None = None
    """The attention of the block, if it has one."""
    placement: Placement = "standard"
    """Where the attention stands (SENet, section 6.5 and Figure 5): "standard", after the last
    batch norm and before the addition; "pre", before the residual unit, on its input; "post",
    after the addition and its ReLU; "identity", on the shortcut, after any projection; "conv3x3",
    after the 3x3 convolution and its batch norm, before the ReLU (in a basic block, the first)."""
    shortcut: ShortcutOption = "B"
    """The shortcut where shapes change (ResNet, arXiv 1512.03385, section 4.1): "A" subsamples
    and pads with zero channels; "B" is a 1x1 projection; "C" projects in every block; "D" averages
    2x2 before a projection of stride 1 (ResNet-D, arXiv 1812.01187, section 4)."""
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
    zero_init_last: bool = False
    """Start the scale of the last batch norm of the residual branch at zero."""
    dtype: Any = None
    """Compute precision; parameters and statistics stay float32."""

    def __post_init__(self) -> None:
        if not isinstance(self.attention, Attention | None):
            raise UsageError(
                "attention must be a description such as SqueezeExciteConfig(), "
                f"not a {type(self.attention).__name__}."
            )
        choose("placement", self.placement, get_args(Placement))
        choose("shortcut", self.shortcut, get_args(ShortcutOption))
        choose("stride_on", self.stride_on, ("conv1", "conv2"))
        for field in ("projection_kernel", "cardinality", "base_width", "reduce_first"):
            if getattr(self, field) < 1:
                raise UsageError(f"{field} must be at least 1, not {getattr(self, field)}.")

    def attend(self, x: Float[Array, "n h w c"], placement: Placement) -> Float[Array, "n h w c"]:
        """Applies the attention if this is its placement; called inside a block."""
        if self.attention is None or self.placement != placement:
            return x
        return self.attention.build(dtype=self.dtype)(x)


class Shortcut(nn.Module):
    """The parallel path of a residual block."""

    config: BlockConfig
    features: int
    """Channels of the block's output."""
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        option, channels = self.config.shortcut, x.shape[-1]
        if self.stride == 1 and channels == self.features and option != "C":
            return x
        if option == "A":
            added = self.features - channels
            if added < 0:
                raise UsageError(
                    f"shortcut A pads channels and cannot go from {channels} to {self.features}."
                )
            x = x[:, :: self.stride, :: self.stride]
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (added // 2, added - added // 2)))
        stride = self.stride
        if option == "D" and stride > 1:
            x = avg_pool(x, 2, stride, ceil_mode=True, count_pad=False)
            stride = 1
        kernel = self.config.projection_kernel if self.stride > 1 else 1
        dtype = self.config.dtype
        x = conv(self.features, kernel, stride=stride, dtype=dtype, name="conv")(x)
        return batch_norm(train, dtype=dtype, name="bn")(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet, Figure 5 left)."""

    expansion: ClassVar[int] = 1

    config: BlockConfig
    width: int
    """Width of the stage; the output has ``expansion`` times as many channels."""
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        c = self.config
        shortcut = Shortcut(c, self.width, self.stride, name="shortcut")(x, train)
        shortcut = c.attend(shortcut, "identity")
        x = c.attend(x, "pre")
        x = conv(self.width, 3, stride=self.stride, dtype=c.dtype, name="conv1")(x)
        x = batch_norm(train, dtype=c.dtype, name="bn1")(x)
        x = nn.relu(c.attend(x, "conv3x3"))
        x = conv(self.width, 3, dtype=c.dtype, name="conv2")(x)
        x = batch_norm(train, zero_scale=c.zero_init_last, dtype=c.dtype, name="bn2")(x)
        x = c.attend(x, "standard")
        return c.attend(nn.relu(x + shortcut), "post")


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions (ResNet, Figure 5 right; ResNeXt, Figure 3c)."""

    expansion: ClassVar[int] = 4

    config: BlockConfig
    width: int
    """Width of the stage; the output has ``expansion`` times as many channels."""
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        c = self.config
        inner = int(self.width * c.base_width / 64) * c.cardinality
        outer = self.width * self.expansion
        stride1, stride2 = (self.stride, 1) if c.stride_on == "conv1" else (1, self.stride)

        shortcut = Shortcut(c, outer, self.stride, name="shortcut")(x, train)
        shortcut = c.attend(shortcut, "identity")
        x = c.attend(x, "pre")
        x = conv(inner // c.reduce_first, 1, stride=stride1, dtype=c.dtype, name="conv1")(x)
        x = nn.relu(batch_norm(train, dtype=c.dtype, name="bn1")(x))
        x = conv(inner, 3, stride=stride2, groups=c.cardinality, dtype=c.dtype, name="conv2")(x)
        x = batch_norm(train, dtype=c.dtype, name="bn2")(x)
        x = nn.relu(c.attend(x, "conv3x3"))
        x = conv(outer, 1, dtype=c.dtype, name="conv3")(x)
        x = batch_norm(train, zero_scale=c.zero_init_last, dtype=c.dtype, name="bn3")(x)
        x = c.attend(x, "standard")
        return c.attend(nn.relu(x + shortcut), "post")
