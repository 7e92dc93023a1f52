"""MobileNet-v1 with attention after the pointwise convolutions.

Source: MobileNet (arXiv 1704.04861), Table 1; attention as in SENet (arXiv 1709.01507), Table 3.
Stages are numbered by resolution, as the ResNets': the maps of stage s have stride 2^s, and each
stage but the first begins with the block that halves the resolution. The stem and the one block of
its resolution are stage 1.
"""

import functools
from collections.abc import Callable, Sequence

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Mechanism, SqueezeExciteConfig
from senet_jax.attention.base import apply_attention
from senet_jax.errors import UsageError
from senet_jax.fields.models import MobileNetV1Fields
from senet_jax.models.backbone import Backbone, FeatureMaps, Stage, check_images
from senet_jax.ops.compute import Compute

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
    """The attention that rescales the output."""
    compute: Compute
    """Precision and norms of its layers."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        conv, norm, channels = self.compute.conv, self.compute.norm, x.shape[-1]
        x = conv(channels, 3, stride=self.stride, groups=channels, name="depthwise")(x)
        x = norm("depthwise_bn")(x, relu=True)
        x = conv(self.width, 1, name="pointwise")(x)
        x = norm("pointwise_bn")(x, relu=True)
        return apply_attention(self.attention, x, self.compute)


class Stem(nn.Module):
    """3x3 convolution, batch norm and ReLU."""

    width: int
    stride: int
    compute: Compute

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        x = self.compute.conv(self.width, 3, stride=self.stride, name="conv")(x)
        return self.compute.norm("bn")(x, relu=True)


class MobileNetV1(MobileNetV1Fields, Backbone):
    """Depthwise separable convolutions, with attention on each block's output.

    The second depthwise convolution of the last stage has stride 1: the last "s2" of Table 1 is a
    misprint, as the sizes beside it show (7x7 in, 7x7 out) and the published count of operations.
    The paper's resolution multiplier is the size of the images.

    Raises:
        UsageError: As ``Backbone``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.blocks) > len(WIDTHS):
            raise UsageError(f"blocks {self.blocks} are of more than {len(WIDTHS)} stages.")

    @property
    def stage_numbers(self) -> Sequence[int]:
        return range(1, len(self.blocks) + 1)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], train: bool
    ) -> Float[Array, "n classes"] | dict[int, Float[Array, "n h2 w2 c2"]]:
        """Applies the network.

        Args:
            images: Normalized images.
            train: Normalize with the batch's statistics and apply dropout.
        """
        check_images(images)
        block, compute = self.rematerialized(Block), self.compute(train)
        stem_width, stride = int(self.width * STEM_WIDTH), 2 if self.stem == "imagenet" else 1
        x = Stem(stem_width, stride, compute, name="stem")(images)
        features = FeatureMaps()
        for stage, (blocks, width) in enumerate(zip(self.blocks, WIDTHS, strict=False), 1):
            build = functools.partial(
                block,
                int(self.width * width),
                attention=self.attention_of(stage),
                compute=compute,
            )
            first = functools.partial(build, stride=1 if stage == 1 else 2)
            rest = [functools.partial(build, stride=1)] * (blocks - 1)
            x = Stage((first, *rest), name=f"stage{stage}")(x)
            features.add(x, stride=stride * 2 ** (stage - 1), stage=stage)
        return self.outputs(features, train)


MOBILENETS: dict[str, Callable[..., MobileNetV1]] = {
    "mobilenet_v1": MobileNetV1,
    **{
        f"mobilenet_v1_{percent:03}": functools.partial(MobileNetV1, width=percent / 100)
        for percent in (75, 50, 25)
    },
    "se_mobilenet_v1": functools.partial(MobileNetV1, attention=SqueezeExciteConfig()),
}
"""The widths of Table 6, and SENet's."""
