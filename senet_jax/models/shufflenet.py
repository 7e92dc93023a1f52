"""ShuffleNet-v1 with attention on the branch.

Source: ShuffleNet (arXiv 1707.01083), Table 1; attention as in SENet (arXiv 1709.01507), Table 3.
Stages are numbered as in the paper: convolution and pool are stage 1, the units stages 2 to 4.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, get_args

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Mechanism, SqueezeExciteConfig
from senet_jax.attention.base import rescale
from senet_jax.errors import UsageError, choose
from senet_jax.models.backbone import Backbone, FeatureMaps, Stage, check_images
from senet_jax.models.mobilenet import Stem, StemKind
from senet_jax.ops.conv import conv
from senet_jax.ops.norm import batch_norm
from senet_jax.ops.pooling import avg_pool, max_pool
from senet_jax.ops.relu import relu_of_sum
from senet_jax.ranges import check_fields

WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
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
    """What rescales the branch."""
    dtype: Any = None
    """Compute precision."""
    norm_group: int | None = None
    """See ``Backbone.norm_group``."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        inner, dtype = self.width // 4, self.dtype
        outer = self.width - x.shape[-1] if self.stride > 1 else self.width
        shortcut = avg_pool(x, 3, self.stride, pad=1) if self.stride > 1 else x

        x = conv(inner, 1, groups=self.first_groups, dtype=dtype, name="conv1")(x)
        x = batch_norm(train, group=self.norm_group, dtype=dtype, name="bn1")(x, relu=True)
        x = channel_shuffle(x, self.groups)
        x = conv(inner, 3, stride=self.stride, groups=inner, dtype=dtype, name="conv2")(x)
        x = batch_norm(train, group=self.norm_group, dtype=dtype, name="bn2")(x)
        x = conv(outer, 1, groups=self.groups, dtype=dtype, name="conv3")(x)
        x = batch_norm(train, group=self.norm_group, dtype=dtype, name="bn3")(x)
        x = rescale(self.attention, x, train, self.norm_group, dtype)
        x = x + shortcut if self.stride == 1 else jnp.concatenate([shortcut, x], axis=-1)
        return relu_of_sum(x)


class ShuffleNetV1(Backbone):
    """Units of grouped 1x1 convolutions and channel shuffles, with attention on the branch.

    The feature maps of stride 2 and 4 are the stem's before and after its pool, or, of the stem
    for small images, those of stride 1 its only ones.

    Raises:
        UsageError: As ``Backbone``.
    """

    groups: int = 3
    """Groups of the 1x1 convolutions: 1, 2, 3, 4 or 8. The channels grow with them, so that the
    cost stays (Table 1). The first 1x1 of stage 2 has no groups, as its input is narrow."""
    width: float = 1.0
    """The width multiplier of the stages, whose channels are rounded to the nearest that groups and
    bottlenecks divide (2 and 4 groups need it at 0.5 and 0.25). The stem's 24 channels do not
    follow it but are 12 below 1 (16 with 8 groups, which must divide what they leave) and 48 from 2
    on. The authors' code has these for 0.5, 1.5 and 2 with 3 groups; with them, and not with 24 or
    24 times the width throughout, the networks cost the published 13 (0.25), 38, 292 and 524
    MFLOPs, and 40 (0.5) with 8 groups."""
    blocks: tuple[int, ...] = (4, 8, 4)
    """Units of each stage."""
    stem: StemKind = "imagenet"
    """"imagenet": a convolution and a pool of stride 2 each; "cifar": a convolution of stride 1 and
    no pool, for images of 32x32 pixels and smaller."""

    def __post_init__(self) -> None:
        check_fields(self)
        choose("stem", self.stem, get_args(StemKind))
        if self.groups not in WIDTHS:
            raise UsageError(
                f"groups must be one of {', '.join(map(str, WIDTHS))}, not {self.groups}."
            )
        if self._channels <= self._stem_channels:
            raise UsageError(
                f"width {self.width:g} with {self.groups} groups leaves stage 2 {self._channels} "
                f"channels, which must be more than the {self._stem_channels} of the stem: use a "
                "larger width."
            )
        super().__post_init__()

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
            images: Normalised images.
            train: Normalise with the batch's statistics and apply dropout.
        """
        check_images(images)
        unit: Any = nn.remat(Unit, static_argnums=(2,)) if self.remat else Unit
        stride = 2 if self.stem == "imagenet" else 1
        x = Stem(self._stem_channels, stride, self.dtype, self.norm_group, name="stem")(
            images, train
        )
        features = FeatureMaps(self.features_by)
        features.add(x, stride=stride)
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
                dtype=self.dtype,
                norm_group=self.norm_group,
            )
            first = functools.partial(
                build, first_groups=1 if stage == 2 else self.groups, stride=2
            )
            rest = [functools.partial(build, first_groups=self.groups, stride=1)] * (blocks - 1)
            x = Stage((first, *rest), name=f"stage{stage}")(x, train)
            stride *= 2
            features.add(x, stride=stride, stage=stage)
        return features.found if self.features_only else self.classify(x, train)


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
