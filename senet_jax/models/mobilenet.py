"""MobileNet-v1 with attention after the pointwise convolutions.

Source: MobileNet (arXiv 1704.04861), Table 1; attention as in SENet (arXiv 1709.01507), Table 3.
Stages are numbered by resolution, as the ResNets': the maps of stage s have stride 2^s, and each
stage but the first begins with the block that halves the resolution. The stem and the one block of
its resolution are stage 1.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Mechanism, SqueezeExciteConfig
from senet_jax.attention.base import rescale
from senet_jax.errors import UsageError, choose
from senet_jax.models.backbone import Backbone, FeatureMaps, Stage, check_images
from senet_jax.ops.conv import conv
from senet_jax.ops.norm import batch_norm
from senet_jax.ranges import check_fields

StemKind = Literal["imagenet", "cifar"]

STEM_WIDTH = 32
WIDTHS = (64, 128, 256, 512, 1024)
"""Channels of the stem and of each stage at width multiplier 1."""


class Block(nn.Module):
    """A depthwise separable convolution (Figure 3): 3x3 depthwise, then 1x1, then attention."""

    width: int
    """Output channels."""
    stride: int
    """Stride of the depthwise convolution."""
    attention: Mechanism | None
    """What rescales the output."""
    dtype: Any = None
    """Compute precision."""
    norm_group: int | None = None
    """See ``Backbone.norm_group``."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        channels, dtype = x.shape[-1], self.dtype
        x = conv(channels, 3, stride=self.stride, groups=channels, dtype=dtype, name="depthwise")(x)
        x = batch_norm(train, group=self.norm_group, dtype=dtype, name="depthwise_bn")(x, relu=True)
        x = conv(self.width, 1, dtype=dtype, name="pointwise")(x)
        x = batch_norm(train, group=self.norm_group, dtype=dtype, name="pointwise_bn")(x, relu=True)
        return rescale(self.attention, x, train, self.norm_group, dtype)


class Stem(nn.Module):
    """3x3 convolution, batch norm and ReLU."""

    width: int
    stride: int
    dtype: Any = None
    norm_group: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        x = conv(self.width, 3, stride=self.stride, dtype=self.dtype, name="conv")(x)
        return batch_norm(train, group=self.norm_group, dtype=self.dtype, name="bn")(x, relu=True)


class MobileNetV1(Backbone):
    """Depthwise separable convolutions, with attention on each block's output.

    The second depthwise convolution of the last stage has stride 1: the last "s2" of Table 1 is a
    misprint, as the sizes beside it show (7x7 in, 7x7 out) and the published count of operations.
    The paper's resolution multiplier is the size of the images.

    Raises:
        UsageError: As ``Backbone``.
    """

    width: float = 1.0
    """The width multiplier: the channels of every layer are multiplied by it and rounded down."""
    blocks: tuple[int, ...] = (1, 2, 2, 6, 2)
    """Blocks of each stage; at most five."""
    stem: StemKind = "imagenet"
    """"imagenet": of stride 2; "cifar": of stride 1, for images of 32x32 pixels and smaller."""

    def __post_init__(self) -> None:
        check_fields(self)
        choose("stem", self.stem, get_args(StemKind))
        if len(self.blocks) > len(WIDTHS):
            raise UsageError(f"blocks {self.blocks} are of more than {len(WIDTHS)} stages.")
        super().__post_init__()

    @property
    def stage_numbers(self) -> Sequence[int]:
        return range(1, len(self.blocks) + 1)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], train: bool
    ) -> Float[Array, "n classes"] | dict[int, Float[Array, "n h2 w2 c2"]]:
        """Applies the network.

        Args:
            images: Normalised images.
            train: Normalise with the batch's statistics and apply dropout.
        """
        check_images(images)
        block: Any = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        stem_width, stride = int(self.width * STEM_WIDTH), 2 if self.stem == "imagenet" else 1
        x = Stem(stem_width, stride, self.dtype, self.norm_group, name="stem")(images, train)
        features = FeatureMaps(self.features_by)
        for stage, (blocks, width) in enumerate(zip(self.blocks, WIDTHS, strict=False), 1):
            build = functools.partial(
                block,
                int(self.width * width),
                attention=self.attention_of(stage),
                dtype=self.dtype,
                norm_group=self.norm_group,
            )
            first = functools.partial(build, stride=1 if stage == 1 else 2)
            rest = [functools.partial(build, stride=1)] * (blocks - 1)
            x = Stage((first, *rest), name=f"stage{stage}")(x, train)
            features.add(x, stride=stride * 2 ** (stage - 1), stage=stage)
        return features.found if self.features_only else self.classify(x, train)


MOBILENETS: dict[str, Callable[..., MobileNetV1]] = {
    "mobilenet_v1": MobileNetV1,
    **{
        f"mobilenet_v1_{percent:03}": functools.partial(MobileNetV1, width=percent / 100)
        for percent in (75, 50, 25)
    },
    "se_mobilenet_v1": functools.partial(MobileNetV1, attention=SqueezeExciteConfig()),
}
"""The widths of Table 6, and SENet's."""
