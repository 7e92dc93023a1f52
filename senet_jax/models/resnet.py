"""ResNet, ResNeXt and their kin with attention, for ImageNet and CIFAR.

Sources: ResNet (arXiv 1512.03385), ResNeXt (arXiv 1611.05431), wide ResNet (arXiv 1605.07146),
ResNet-D (arXiv 1812.01187), SENet (arXiv 1709.01507). Stages are numbered as in the
papers: the stem is stage 1, the first stage of blocks is conv2_x, so stage 2.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import ECAConfig, SqueezeExciteConfig
from senet_jax.errors import UsageError, choose
from senet_jax.models.backbone import Backbone, FeatureMaps, check_images
from senet_jax.models.blocks import (
    BasicBlock,
    BlockConfig,
    Bottleneck,
    Placement,
    Sampling,
    ShortcutOption,
    StrideBy,
)
from senet_jax.models.stem import Stem, StemKind, StemWidth
from senet_jax.ops.drop import Rate
from senet_jax.ranges import WIDTHS, check_fields

DilatedForm = Literal["timm", "authors"]


class Stage(nn.Module):
    """Blocks of one width."""

    block: Callable[..., nn.Module]
    config: BlockConfig
    width: int
    samplings: tuple[Sampling, ...]
    """Sampling of each block."""
    stochastic_depth: tuple[float, ...]
    """Probability of each block's residual branch to be dropped in training."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], train: bool, drop_rate: Rate | None
    ) -> Float[Array, "n h2 w2 c2"]:
        blocks = zip(self.samplings, self.stochastic_depth, strict=True)
        for index, (sampling, depth_rate) in enumerate(blocks, 1):
            block = self.block(self.config, self.width, sampling, depth_rate, name=f"block{index}")
            x = block(x, train, drop_rate)
        return x


class ResNet(Backbone):
    """A residual network, with attention in the stages and at the place that its fields say.

    In training, ``dropout``, ``stochastic_depth`` and ``drop_block`` need the random key "dropout".
    Of ``features_only`` the first map is the stem's before its pool.

    Raises:
        UsageError: As ``Backbone``.
    """

    blocks: tuple[int, ...]
    """Blocks of each stage."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Width of each stage; a bottleneck's output has four times as many channels."""
    bottleneck: bool = True
    """Bottleneck blocks; otherwise basic ones."""
    stem: StemKind = "imagenet"
    """"imagenet": a convolution of stride 2 and a 3x3 max pool of stride 2, padded on all sides;
    "caffe": the same with the pool unpadded in ceil mode; "strided": the same with a 3x3
    convolution of stride 2 for a pool (ResNet-RS, arXiv 2103.07579); "cifar": a 3x3 convolution of
    stride 1 and no pool, for images of 32x32 pixels and smaller."""
    stem_width: StemWidth = 64
    """Channels of the stem: of its 7x7 convolution or, if three, of the 3x3 convolutions that
    stand for it (the deep stem of ResNet-C, arXiv 1812.01187, section 4)."""
    placement: Placement = "standard"
    """See ``BlockConfig.placement``."""
    shortcut: ShortcutOption = "B"
    """See ``BlockConfig.shortcut``."""
    residual: bool = True
    """See ``BlockConfig.residual``."""
    projection_kernel: int = 1
    """See ``BlockConfig.projection_kernel``."""
    cardinality: int = 1
    """See ``BlockConfig.cardinality``."""
    base_width: int = 64
    """See ``BlockConfig.base_width``."""
    reduce_first: int = 1
    """See ``BlockConfig.reduce_first``."""
    stride_on: Literal["conv1", "conv2"] = "conv2"
    """See ``BlockConfig.stride_on``."""
    stride_by: StrideBy = "conv"
    """See ``BlockConfig.stride_by``."""
    relu_before_attention: bool = False
    """See ``BlockConfig.relu_before_attention``."""
    fused: bool = True
    """See ``BlockConfig.fused``."""
    zero_init_last: bool = False
    """See ``BlockConfig.zero_init_last``."""
    output_stride: int = 32
    """Largest stride, 8, 16 or 32: where a stage would pass it, its convolutions are dilated
    instead (DeepLab, arXiv 1706.05587). The parameters stay the same."""
    dilated: DilatedForm = "timm"
    """The first block of such a stage, where its stride would be a pool: "timm" leaves that pool
    out, and the shortcut D averages 2x2 with stride 1; "authors" keeps the 3x3 pool with stride 1,
    and the shortcut D does not average (ResNeSt's authors, for segmentation)."""
    stochastic_depth: float = 0.0
    """Probability to drop the residual branch of the last block; it grows linearly with depth
    from the first block's, 1 / blocks of it (arXiv 1603.09382, eq. 4)."""
    drop_block: float = 0.0
    """Rate of DropBlock after each batch norm of the residual branches of the last two stages."""

    def __post_init__(self) -> None:
        check_fields(self)
        widths = self.stem_width if isinstance(self.stem_width, tuple) else (self.stem_width,)
        WIDTHS.check("stem_width", widths)
        choose("stem", self.stem, get_args(StemKind))
        choose("dilated", self.dilated, get_args(DilatedForm))
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
        if self.output_stride not in (8, 16, 32):
            raise UsageError(f"output_stride must be 8, 16 or 32, not {self.output_stride}.")
        config = self._block_config()
        for width in self.widths if self.bottleneck else ():
            config.inner_width(width)
        if not self.bottleneck:
            for field, only in (("cardinality", 1), ("base_width", 64), ("reduce_first", 1)):
                if getattr(config, field) != only:
                    raise UsageError(
                        f"basic blocks have no {field}: leave it at {only} or set bottleneck=True."
                    )
        super().__post_init__()

    @property
    def replaces_convolutions(self) -> bool:
        return True

    @property
    def stage_numbers(self) -> Sequence[int]:
        return range(2, len(self.blocks) + 2)

    def _block_config(self) -> BlockConfig:
        fields = dataclasses.fields(BlockConfig)
        return BlockConfig(**{field.name: getattr(self, field.name) for field in fields})

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], train: bool, drop_block_scale: Rate = 1.0
    ) -> Float[Array, "n classes"] | dict[int, Float[Array, "n h2 w2 c2"]]:
        """Applies the network.

        Args:
            images: Normalised images.
            train: Normalise with the batch's statistics and drop what the fields say.
            drop_block_scale: Multiplies ``drop_block``: an array that rises from 0 to 1 ramps the
                rate from step to step in one compiled function.
        """
        check_images(images)
        config = self._block_config()
        plain = dataclasses.replace(config, attention=None, placement="standard")
        block: Any = Bottleneck if self.bottleneck else BasicBlock
        if self.remat:
            block = nn.remat(block, static_argnums=(2,))
        total, done = sum(self.blocks), 0
        drop_rate = self.drop_block * drop_block_scale if train and self.drop_block else None

        stem = Stem(self.stem, self.stem_width, self.dtype, self.norm_group, name="stem")
        before, stride = stem.strides
        features = FeatureMaps(self.features_by)
        unpooled, x = stem(images, train)
        features.add(unpooled, stride=before)
        dilation = 1
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True), 2):
            chosen = config if self.attention_of(stage) else plain
            factor = 1 if stage == 2 else 2
            dilated = stride * factor > self.output_stride
            following = dilation * factor if dilated else dilation
            keeps_pool = dilated and self.dilated == "authors"
            first = Sampling(1 if dilated else factor, dilation, following, keeps_pool)
            dilation, stride = following, stride * first.stride
            x = Stage(
                block,
                chosen,
                width,
                samplings=(first, *[Sampling(1, dilation, dilation)] * (blocks - 1)),
                stochastic_depth=tuple(
                    self.stochastic_depth * (done + index) / total for index in range(1, blocks + 1)
                ),
                name=f"stage{stage}",
            )(x, train, drop_rate if stage >= len(self.blocks) else None)
            done += blocks
            features.add(x, stride=stride, stage=stage)
        if self.features_only:
            return features.found
        return self.classify(x, train)


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
