"""ResNet, ResNeXt and related networks with attention, for ImageNet and CIFAR.

Sources: ResNet (arXiv 1512.03385), ResNeXt (arXiv 1611.05431), wide ResNet (arXiv 1605.07146),
ResNet-D (arXiv 1812.01187), SENet (arXiv 1709.01507). Stages are numbered as in the
papers: the stem is stage 1, the first stage of blocks is conv2_x, so stage 2.
"""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import ConvAttention, ECAConfig, SqueezeExciteConfig
from senet_jax.errors import UsageError
from senet_jax.fields.models import ResNetFields
from senet_jax.models.backbone import (
    STEM,
    Backbone,
    FeatureMaps,
    Stage,
    check_images,
    declared_values,
)
from senet_jax.models.blocks import BasicBlock, Bottleneck, Sampling, inner_width
from senet_jax.models.stem import Stem
from senet_jax.ops.drop import Rate


class ResNet(ResNetFields, Backbone):
    """A residual network, with attention in the stages and at the place that its fields say.

    In training, ``dropout``, ``stochastic_depth`` and ``drop_block`` need the random key "dropout".
    Of ``features_only`` the first map is the stem's before its pool.

    Raises:
        UsageError: As ``Backbone``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stem == "cifar" and isinstance(self.stem_width, tuple):
            raise UsageError(
                f"the cifar stem has one convolution: stem_width must be a number, "
                f"not {self.stem_width}."
            )
        if len(self.blocks) != len(self.widths):
            raise UsageError(f"blocks {self.blocks} and widths {self.widths} differ in length.")
        if self.stochastic_depth and not self.residual:
            raise UsageError(
                "stochastic_depth drops branches, and without shortcuts nothing would be left: "
                "leave it at 0, or residual at True."
            )
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
        for width in self.widths if self.bottleneck else ():
            inner_width(self, width)
        if not self.bottleneck:
            for field, only in (("cardinality", 1), ("base_width", 64), ("reduce_first", 1)):
                if getattr(self, field) != only:
                    raise UsageError(
                        f"basic blocks have no {field}: leave it at {only} or set bottleneck=True."
                    )

    @property
    def replaces_convolutions(self) -> bool:
        return True

    @property
    def stage_numbers(self) -> Sequence[int]:
        return range(2, len(self.blocks) + 2)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], train: bool, drop_block_scale: Rate = 1.0
    ) -> Float[Array, "n classes"] | dict[int, Float[Array, "n h2 w2 c2"]]:
        """Applies the network.

        Args:
            images: Normalized images.
            train: Normalize with the batch's statistics and drop what the fields say.
            drop_block_scale: Multiplies ``drop_block``: an array that rises from 0 to 1 ramps the
                rate from step to step in one compiled function.
        """
        check_images(images)
        compute, fields = self.compute(train), declared_values(ResNetFields, self)
        block = self.rematerialized(Bottleneck if self.bottleneck else BasicBlock)
        drop_rate = self.drop_block * drop_block_scale if train and self.drop_block else None
        total = sum(self.blocks)
        depth_rates = (self.stochastic_depth * n / total for n in range(1, total + 1))

        stem = Stem(self.stem, self.stem_width, compute, name="stem")
        before, stride = stem.strides
        features = FeatureMaps()
        unpooled, x = stem(images)
        features.add(unpooled, stride=before, stage=STEM)
        stages = zip(self.widths, self._samplings(stride), strict=True)
        for stage, (width, (stride, samplings)) in enumerate(stages, 2):
            build = functools.partial(block, fields, self.attention_of(stage), compute, width)
            blocks = tuple(functools.partial(build, each, next(depth_rates)) for each in samplings)
            rate = drop_rate if stage >= len(self.blocks) else None
            x = Stage(blocks, name=f"stage{stage}")(x, rate)
            features.add(x, stride=stride, stage=stage)
        return self.outputs(features, train)

    def _samplings(self, stride: int) -> Iterator[tuple[int, tuple[Sampling, ...]]]:
        """Yields, for each stage, the stride of its output and the sampling of each block.

        Args:
            stride: That of the stem.
        """
        dilation = 1
        for stage, blocks in enumerate(self.blocks, 2):
            factor = 1 if stage == 2 else 2
            dilated = stride * factor > self.output_stride
            following = dilation * factor if dilated else dilation
            keeps_pool = dilated and self.dilated == "authors"
            first = Sampling(1 if dilated else factor, dilation, following, keeps_pool)
            dilation, stride = following, stride * first.stride
            yield stride, (first, *[Sampling(1, dilation, dilation)] * (blocks - 1))


SE = SqueezeExciteConfig()
"""C // r hidden channels, as in the paper, Caffe and Cadene's ``legacy_*``."""
SE_ROUNDED = SqueezeExciteConfig(divisor=8)
"""Hidden channels rounded to a multiple of 8, as in timm's ``seresnet*``."""

ECA = ECAConfig()
"""Kernels that grow with the channels, as in the paper and timm's ``ecaresnet*``."""

_DEPTHS: dict[int, dict[str, Any]] = {
    10: {"blocks": (1, 1, 1, 1), "bottleneck": False},
    14: {"blocks": (1, 1, 1, 1)},
    18: {"blocks": (2, 2, 2, 2), "bottleneck": False},
    26: {"blocks": (2, 2, 2, 2)},
    34: {"blocks": (3, 4, 6, 3), "bottleneck": False},
    50: {"blocks": (3, 4, 6, 3)},
    101: {"blocks": (3, 4, 23, 3)},
    152: {"blocks": (3, 8, 36, 3)},
    200: {"blocks": (3, 24, 36, 3)},
    269: {"blocks": (3, 30, 48, 8)},
    270: {"blocks": (4, 29, 53, 4)},
    350: {"blocks": (4, 36, 72, 4)},
    420: {"blocks": (4, 44, 87, 4)},
}

_VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "c": {"stem_width": (32, 32, 64)},
    "s": {"stem_width": (64, 64, 128)},
    "d": {"stem_width": (32, 32, 64), "shortcut": "D"},
    "t": {"stem_width": (24, 32, 64), "shortcut": "D"},
    "e": {"stem_width": (64, 64, 128), "shortcut": "D"},
}
"""Stems and shortcuts by their letter: "c" and "d" as in the bag of tricks (arXiv 1812.01187),
"s" and "e" as in GluonCV, "t" as in timm."""


def named(spec: str, **fields: Any) -> Callable[..., ResNet]:
    """Constructor of a network by the tail of its name.

    Args:
        spec: Depth, letter and groups, the last two if any: "50", "101d", "50_32x4d".
        **fields: Further fields.
    """
    match = re.fullmatch(r"(\d+)([a-z]?)(?:_(\d+)x(\d+)d)?", spec)
    assert match, spec
    depth, letter, cardinality, base_width = match.groups()
    if cardinality:
        fields = {"cardinality": int(cardinality), "base_width": int(base_width), **fields}
    return functools.partial(ResNet, **_DEPTHS[int(depth)], **_VARIANTS[letter], **fields)


def _family(prefix: str, specs: str, **fields: Any) -> dict[str, Callable[..., ResNet]]:
    return {f"{prefix}{spec}": named(spec, **fields) for spec in specs.split()}


IMAGENET_RESNETS: dict[str, Callable[..., ResNet]] = {
    **_family(
        "resnet",
        "10t 14t 18 18d 26 26d 26t 34 34d 50 50c 50d 50s 50t 101 101c 101d 101s "
        "152 152c 152d 152s 200 200d",
    ),
    "wide_resnet50_2": named("50", base_width=128),
    "wide_resnet101_2": named("101", base_width=128),
    **_family(
        "resnext",
        "50_32x4d 50d_32x4d 101_32x4d 101_32x8d 101_32x16d 101_32x32d 101_64x4d 152_64x4d",
    ),
    **_family("seresnet", "18 34 50 50t 101 152 152d 200d 269d", attention=SE_ROUNDED),
    **_family(
        "seresnext",
        "26d_32x4d 26t_32x4d 50_32x4d 101_32x4d 101_32x8d 101d_32x8d 101_64x4d",
        attention=SE_ROUNDED,
    ),
    **_family("legacy_seresnet", "18 34", attention=SE, stem="caffe", relu_before_attention=True),
    **_family("legacy_seresnet", "50 101 152", attention=SE, stem="caffe", stride_on="conv1"),
    **_family("legacy_seresnext", "26_32x4d 50_32x4d 101_32x4d", attention=SE, stem="caffe"),
    **_family("ecaresnet", "26t 50d 50t 101d 200d 269d", attention=ECA),
    "ecaresnetlight": functools.partial(ResNet, blocks=(1, 1, 11, 3), shortcut="D", attention=ECA),
    **_family("ecaresnext", "26t_32x4d 50t_32x4d", attention=ECA),
    **{
        f"resnetrs{depth}": named(
            f"{depth}d",
            stem="strided",
            attention=SqueezeExciteConfig(reduction=4, divisor=8),
        )
        for depth in (50, 101, 152, 200, 270, 350, 420)
    },
}
"""Names and networks as in timm (which lacks ``resnext152_64x4d``): ``seresnet*`` have the stride
on the 3x3 and a padded pool, ``legacy_*`` (the networks released with the paper) an unpadded pool
and, but for ResNeXt, the stride on the first 1x1."""

RESNET_SIZES = {
    "resnetrs50": 160,
    **dict.fromkeys(("resnet10t", "resnet14t"), 176),
    "resnetrs101": 192,
    **dict.fromkeys(("resnet26t", "resnet101d", "resnet152d", "resnet200d"), 256),
    **dict.fromkeys(("resnetrs152", "resnetrs200", "resnetrs270"), 256),
    **dict.fromkeys(("seresnet152d", "seresnet200d", "seresnet269d"), 256),
    **dict.fromkeys(("ecaresnet26t", "ecaresnet50t", "ecaresnet200d"), 256),
    "resnetrs350": 288,
    "ecaresnet269d": 320,
    "resnetrs420": 320,
}
"""Sides of the images where timm's weights are not for 224 pixels."""

_senet154 = named("152_64x4d", stem_width=(64, 64, 128), projection_kernel=3, reduce_first=2)

SENETS: dict[str, Callable[..., ResNet]] = {
    "senet154": functools.partial(_senet154, attention=SE_ROUNDED),
    "legacy_senet154": functools.partial(_senet154, attention=SE, stem="caffe"),
}
"""SENet, section 6.2 and appendix: the winner of ILSVRC 2017. It was trained with ``dropout=0.2``,
which is left to the recipe, so that every network of the zoo trains without a random key."""


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


def _resnext29(cardinality: int) -> Callable[..., ResNet]:
    return functools.partial(
        ResNet,
        blocks=(3,) * 3,
        widths=(64, 128, 256),
        stem="cifar",
        cardinality=cardinality,
        num_classes=10,
    )


CIFAR_DEPTHS = (8, 20, 32, 44, 56, 110)
CIFAR_RESNETS: dict[str, Callable[..., ResNet]] = {
    **{f"cifar_resnet{depth}": _cifar(depth) for depth in CIFAR_DEPTHS},
    **{f"cifar_seresnet{depth}": _cifar(depth, attention=SE) for depth in CIFAR_DEPTHS},
    **{f"cifar_resnext29_{groups}x64d": _resnext29(groups) for groups in (8, 16)},
}
"""ResNet, section 4.2: 6n + 2 layers in three stages of 16, 32 and 64 channels, shortcut A.
ResNeXt, section 5.3 and Table 7: 29 layers in three stages of three bottlenecks."""
