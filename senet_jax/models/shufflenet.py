"""ShuffleNet-v1 with attention on the branch.

Source: ShuffleNet (arXiv 1707.01083), Table 1; attention as in SENet (arXiv 1709.01507), Table 3.
Stages are numbered as in the paper: convolution and pool are stage 1, the units stages 2 to 4.
"""

import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Mechanism, SqueezeExciteConfig
from senet_jax.attention.base import apply_attention
from senet_jax.errors import UsageError
from senet_jax.fields.models import Groups, ShuffleNetV1Fields
from senet_jax.models.backbone import STEM, Backbone, FeatureMaps, Stage, check_images
from senet_jax.models.mobilenet import Stem
from senet_jax.ops.compute import Compute
from senet_jax.ops.pooling import avg_pool, max_pool
from senet_jax.ops.relu import relu_of_sum

WIDTHS: dict[Groups, int] = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Channels of stage 2 at width multiplier 1 by the number of groups (Table 1); they double from
stage to stage."""


def channel_shuffle(x: Float[Array, "n h w c"], groups: int) -> Float[Array, "n h w c"]:
    """Deals the channels of each group out to all groups (section 3.1).

    Of g groups of k channels, channel i of group j becomes channel i g + j.

    Args:
        x: Feature maps.
        groups: Number of groups; divides the channels.
    """
    split = x.reshape(*x.shape[:-1], groups, -1)
    return jnp.swapaxes(split, -1, -2).reshape(x.shape)


class Unit(nn.Module):
    """Grouped 1x1, shuffle, 3x3 depthwise, grouped 1x1 (Figure 2b and, with a stride, 2c).

    A unit with a stride has for its shortcut an average pool, which is concatenated with the
    branch rather than added to it. Attention rescales the branch.
    """

    width: int
    """Output channels, those of the shortcut among them."""
    groups: int
    """Groups of the 1x1 convolutions."""
    first_groups: int
    """Groups of the first 1x1, before the shuffle into ``groups``."""
    stride: int
    """Stride of the depthwise convolution, 1 or 2."""
    attention: Mechanism | None
    """The attention that rescales the branch."""
    compute: Compute
    """Precision and norms of its layers."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        conv, norm, inner = self.compute.conv, self.compute.norm, self.width // 4
        outer = self.width - x.shape[-1] if self.stride > 1 else self.width
        shortcut = avg_pool(x, 3, self.stride, pad=1) if self.stride > 1 else x

        x = conv(inner, 1, groups=self.first_groups, name="conv1")(x)
        x = norm("bn1")(x, relu=True)
        x = channel_shuffle(x, self.groups)
        x = conv(inner, 3, stride=self.stride, groups=inner, name="conv2")(x)
        x = norm("bn2")(x)
        x = conv(outer, 1, groups=self.groups, name="conv3")(x)
        x = norm("bn3")(x)
        x = apply_attention(self.attention, x, self.compute)
        x = x + shortcut if self.stride == 1 else jnp.concatenate([shortcut, x], axis=-1)
        return relu_of_sum(x)


class ShuffleNetV1(ShuffleNetV1Fields, Backbone):
    """Units of grouped 1x1 convolutions and channel shuffles, with attention on the branch.

    The feature maps of stride 2 and 4 are the stem's before and after its pool, or, of the stem
    for small images, those of stride 1 its only ones.

    Raises:
        UsageError: As ``Backbone``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._channels <= self._stem_channels:
            raise UsageError(
                f"width {self.width:g} with {self.groups} groups leaves stage 2 {self._channels} "
                f"channels, which must be more than the {self._stem_channels} of the stem: use a "
                "larger width."
            )

    @property
    def _channels(self) -> int:
        """Channels of stage 2: a bottleneck is a quarter of them, and the groups divide it."""
        multiple = 4 * self.groups
        return multiple * int(self.width * WIDTHS[self.groups] / multiple + 0.5)

    @property
    def _stem_channels(self) -> int:
        if self.width < 1:
            return 16 if self.groups == 8 else 12
        return 24 if self.width < 2 else 48

    @property
    def stage_numbers(self) -> Sequence[int]:
        return range(2, len(self.blocks) + 2)

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
        unit, compute = self.rematerialized(Unit), self.compute(train)
        stride = 2 if self.stem == "imagenet" else 1
        x = Stem(self._stem_channels, stride, compute, name="stem")(images)
        features = FeatureMaps()
        features.add(x, stride=stride, stage=STEM)
        if self.stem == "imagenet":
            stride = 4
            x = max_pool(x, 3, 2, pad=1)
            features.add(x, stride=stride)
        for stage, blocks in enumerate(self.blocks, 2):
            build = functools.partial(
                unit,
                self._channels * 2 ** (stage - 2),
                self.groups,
                attention=self.attention_of(stage),
                compute=compute,
            )
            first = functools.partial(
                build, first_groups=1 if stage == 2 else self.groups, stride=2
            )
            rest = [functools.partial(build, first_groups=self.groups, stride=1)] * (blocks - 1)
            x = Stage((first, *rest), name=f"stage{stage}")(x)
            stride *= 2
            features.add(x, stride=stride, stage=stage)
        return self.outputs(features, train)


SHUFFLENETS: dict[str, Callable[..., ShuffleNetV1]] = {
    "shufflenet_v1": ShuffleNetV1,
    **{
        f"shufflenet_v1_g{groups}": functools.partial(ShuffleNetV1, groups=groups)
        for groups in WIDTHS
        if groups != 3
    },
    **{
        f"shufflenet_v1_x{width:g}".replace(".", "_"): functools.partial(ShuffleNetV1, width=width)
        for width in (0.25, 0.5, 1.5, 2)
    },
    "se_shufflenet_v1": functools.partial(ShuffleNetV1, attention=SqueezeExciteConfig()),
}
"""3 groups and width 1 but where the name says otherwise (Tables 2 and 5), and SENet's."""
