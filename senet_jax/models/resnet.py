"""ResNet and SE-ResNet for ImageNet and CIFAR.

Sources: ResNet (arXiv 1512.03385), SENet (arXiv 1709.01507). Stages are numbered as in the
papers: the stem is stage 1, the first stage of blocks is conv2_x, so stage 2.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Attention, SqueezeExciteConfig
from senet_jax.errors import UsageError, choose
from senet_jax.models.blocks import (
    BasicBlock,
    BlockConfig,
    Bottleneck,
    Placement,
    ShortcutOption,
)
from senet_jax.ops.conv import conv
from senet_jax.ops.norm import batch_norm
from senet_jax.ops.pooling import max_pool

StemKind = Literal["imagenet", "caffe", "cifar"]


class Stem(nn.Module):
    """What stands before the first residual block."""

    kind: StemKind
    width: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        if self.kind == "cifar":
            x = conv(self.width, 3, dtype=self.dtype, name="conv")(x)
            return nn.relu(batch_norm(train, dtype=self.dtype, name="bn")(x))
        x = conv(self.width, 7, stride=2, dtype=self.dtype, name="conv")(x)
        x = nn.relu(batch_norm(train, dtype=self.dtype, name="bn")(x))
        if self.kind == "caffe":
            return max_pool(x, 3, 2, ceil_mode=True)
        return max_pool(x, 3, 2, pad=1)


class Stage(nn.Module):
    """Blocks of one width; the first has the stride."""

    block: Callable[..., nn.Module]
    config: BlockConfig
    blocks: int
    width: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        for index in range(1, self.blocks + 1):
            stride = self.stride if index == 1 else 1
            x = self.block(self.config, self.width, stride, name=f"block{index}")(x, train)
        return x


class ResNet(nn.Module):
    """A residual network, with attention in the stages and at the place that its fields say.

    Called as ``model.apply(variables, images, train=False)`` on float images (n, h, w, c); gives
    float32 logits (n, num_classes). Variables are ``params`` and ``batch_stats``.

    Raises:
        UsageError: A field that does not fit, a stage that does not exist, or images that are not
            float (n, h, w, c) or too small.
    """

    blocks: tuple[int, ...]
    """Blocks of each stage."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Width of each stage; a bottleneck's output has four times as many channels."""
    bottleneck: bool = True
    """Bottleneck blocks; otherwise basic ones."""
    stem: StemKind = "imagenet"
    """"imagenet": a 7x7 convolution of stride 2 and a 3x3 max pool of stride 2, padded on all
    sides; "caffe": the same with the pool unpadded in ceil mode; "cifar": a 3x3 convolution of
    stride 1 and no pool, for images of 32x32 pixels and smaller."""
    stem_width: int = 64
    """Channels of the stem."""
    num_classes: int = 1000
    """Number of logits."""
    attention: Attention | None = None
    """The attention of the blocks, a description such as ``SqueezeExciteConfig()``."""
    placement: Placement = "standard"
    """See ``BlockConfig.placement``."""
    stages: tuple[int, ...] | None = None
    """Stages that carry the attention, numbered from 2; None means all."""
    shortcut: ShortcutOption = "B"
    """See ``BlockConfig.shortcut``."""
    stride_on: Literal["conv1", "conv2"] = "conv2"
    """See ``BlockConfig.stride_on``."""
    zero_init_last: bool = False
    """See ``BlockConfig.zero_init_last``."""
    dropout: float = 0.0
    """Rate of dropout before the classifier; training then needs the random key "dropout"."""
    dtype: Any = None
    """Compute precision, for instance ``jnp.bfloat16``; None means that of the parameters, float32,
    whatever the images are. Statistics and the attention's gate stay float32."""

    def __post_init__(self) -> None:
        choose("stem", self.stem, get_args(StemKind))
        if len(self.blocks) != len(self.widths):
            raise UsageError(f"blocks {self.blocks} and widths {self.widths} differ in length.")
        last = len(self.blocks) + 1
        for stage in self.stages or ():
            if not 2 <= stage <= last:
                raise UsageError(f"stage {stage} does not exist: the stages are 2 to {last}.")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must be at least 0 and below 1, not {self.dropout}.")
        if self.num_classes < 1:
            raise UsageError(f"num_classes must be at least 1, not {self.num_classes}.")
        self._block_config()
        super().__post_init__()

    def _block_config(self) -> BlockConfig:
        return BlockConfig(
            attention=self.attention,
            placement=self.placement,
            shortcut=self.shortcut,
            stride_on=self.stride_on,
            zero_init_last=self.zero_init_last,
            dtype=self.dtype,
        )

    @nn.compact
    def __call__(self, images: Float[Array, "n h w c"], train: bool) -> Float[Array, "n classes"]:
        check_images(images)
        config = self._block_config()
        plain = dataclasses.replace(config, attention=None)
        block = Bottleneck if self.bottleneck else BasicBlock

        x = Stem(self.stem, self.stem_width, self.dtype, name="stem")(images, train)
        if 0 in x.shape:
            raise UsageError(f"images of {images.shape[1:3]} pixels are too small for the stem.")
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True), 2):
            chosen = config if self.stages is None or stage in self.stages else plain
            stride = 1 if stage == 2 else 2
            x = Stage(block, chosen, blocks, width, stride, name=f"stage{stage}")(x, train)
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        self.sow("intermediates", "features", x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        init = nn.initializers.normal(0.01)
        return nn.Dense(self.num_classes, kernel_init=init, dtype=jnp.float32, name="head")(x)


def check_images(images: Array) -> None:
    """Refuses what is not a batch of float images.

    Raises:
        UsageError: The array is not (n, h, w, c) or not floating.
    """
    if images.ndim != 4 or 0 in images.shape:
        raise UsageError(f"images must be (n, h, w, c), not {images.shape}.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise UsageError(f"images must be float, not {images.dtype}: normalise them first.")


SE = SqueezeExciteConfig()
"""C // r hidden channels, as in the paper, Caffe and Cadene's ``legacy_*``."""
SE_ROUNDED = SqueezeExciteConfig(divisor=8)
"""Hidden channels rounded to a multiple of 8, as in timm's ``seresnet*``."""

_IMAGENET = {
    "18": functools.partial(ResNet, blocks=(2, 2, 2, 2), bottleneck=False),
    "34": functools.partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=False),
    "50": functools.partial(ResNet, blocks=(3, 4, 6, 3)),
    "101": functools.partial(ResNet, blocks=(3, 4, 23, 3)),
    "152": functools.partial(ResNet, blocks=(3, 8, 36, 3)),
}

IMAGENET_RESNETS: dict[str, Callable[..., ResNet]] = {
    **{f"resnet{depth}": build for depth, build in _IMAGENET.items()},
    **{
        f"seresnet{depth}": functools.partial(build, attention=SE_ROUNDED)
        for depth, build in _IMAGENET.items()
    },
    **{
        f"legacy_seresnet{depth}": functools.partial(
            build, attention=SE, stem="caffe", stride_on="conv1"
        )
        for depth, build in _IMAGENET.items()
    },
}
"""Names and networks as in timm: ``seresnet*`` have the stride on the 3x3 and a padded pool,
``legacy_seresnet*`` (the networks released with the paper) have it on the first 1x1."""


def _cifar(depth: int, **fields: Any) -> Callable[..., ResNet]:
    blocks = (depth - 2) // 6
    return functools.partial(
        ResNet,
        blocks=(blocks,) * 3,
        widths=(16, 32, 64),
        bottleneck=False,
        stem="cifar",
        stem_width=16,
        shortcut="A",
        num_classes=10,
        **fields,
    )


CIFAR_DEPTHS = (8, 20, 32, 44, 56, 110)
CIFAR_RESNETS: dict[str, Callable[..., ResNet]] = {
    **{f"cifar_resnet{depth}": _cifar(depth) for depth in CIFAR_DEPTHS},
    **{f"cifar_seresnet{depth}": _cifar(depth, attention=SE) for depth in CIFAR_DEPTHS},
}
"""ResNet, section 4.2: 6n + 2 layers in three stages of 16, 32 and 64 channels, shortcut A."""
