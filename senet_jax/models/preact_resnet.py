"""Pre-activation and wide residual networks with attention, for CIFAR.

Sources: pre-activation ResNet (arXiv 1603.05027), wide ResNet (arXiv 1605.07146) and the authors'
Torch code of both; SENet (arXiv 1709.01507), Tables 4 and 5. Stages are numbered as in ``resnet``:
the stem is stage 1, the blocks stand in stages 2 to 4.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Mechanism
from senet_jax.attention.base import rescale
from senet_jax.errors import UsageError, choose
from senet_jax.models.backbone import Backbone, FeatureMaps, Stage, check_images
from senet_jax.models.resnet import SE
from senet_jax.ops.conv import conv
from senet_jax.ops.norm import batch_norm
from senet_jax.ranges import check_fields


class PreactBlock(nn.Module):
    """A residual unit with batch norm and ReLU before each convolution (1603.05027, Figure 4e)."""

    width: int
    """Width of the stage; a bottleneck's output has four times as many channels."""
    bottleneck: bool
    """1x1, 3x3 and 1x1 convolutions; otherwise two 3x3."""
    stride_on: Literal["conv1", "conv2"]
    """See ``PreactResNet.stride_on``."""
    attention: Mechanism | None
    """Applied to the residual branch before the addition."""
    dropout: float
    """See ``PreactResNet.block_dropout``."""
    dtype: Any
    """Compute precision."""
    stride: int = 1
    """Stride of the block."""
    leads: bool = False
    """Whether this is the network's first unit: the shortcut, too, starts behind the first ReLU
    (1603.05027, appendix)."""
    norm_group: int | None = None
    """See ``Backbone.norm_group``."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h2 w2 c2"]:
        def activate(x: Array, index: int) -> Array:
            return batch_norm(train, group=self.norm_group, dtype=self.dtype, name=f"bn{index}")(
                x, relu=True
            )

        width, stride = self.width, self.stride
        if self.bottleneck:
            first, second = (stride, 1) if self.stride_on == "conv1" else (1, stride)
            layers = [(width, 1, first), (width, 3, second), (4 * width, 1, 1)]
        else:
            layers = [(width, 3, stride), (width, 3, 1)]
        features = layers[-1][0]

        y = activate(x, 1)
        shortcut = y if self.leads else x
        if stride > 1 or x.shape[-1] != features:
            shortcut = conv(features, 1, stride=stride, dtype=self.dtype, name="shortcut")(y)
        for index, (channels, kernel_size, step) in enumerate(layers, 1):
            if index > 1:
                y = activate(y, index)
            if index == len(layers):
                y = nn.Dropout(self.dropout, deterministic=not train)(y)
            y = conv(channels, kernel_size, stride=step, dtype=self.dtype, name=f"conv{index}")(y)
        y = rescale(self.attention, y, train, self.norm_group, self.dtype)
        return shortcut + y


class PreactResNet(Backbone):
    """A pre-activation or wide residual network for images of about 32x32 pixels.

    Where a block changes the shape, a 1x1 projection without batch norm takes its activated input.
    The stem is a bare convolution; a last batch norm and ReLU stand before the head. Of
    ``features_only`` the last map is behind them, the others are the sums that the stages end in.
    In training, ``dropout`` and ``block_dropout`` need the random key "dropout".

    Raises:
        UsageError: As ``Backbone``.
    """

    blocks: tuple[int, ...]
    """Blocks of each stage."""
    widths: tuple[int, ...] = (16, 32, 64)
    """Width of each stage; a bottleneck's output has four times as many channels."""
    stem_width: int = 16
    """Channels of the stem."""
    bottleneck: bool = False
    """Bottleneck blocks; otherwise basic ones."""
    stride_on: Literal["conv1", "conv2"] = "conv1"
    """Which convolution of a bottleneck has the stride: the first 1x1 (the authors' code) or the
    3x3. The parameters are the same, the network is not."""
    block_dropout: float = 0.0
    """Rate of dropout before the last convolution of each block: in a wide ResNet between its two
    3x3, after the ReLU (1605.07146, section 2.4)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.blocks) != len(self.widths):
            raise UsageError(f"blocks {self.blocks} and widths {self.widths} differ in length.")
        choose("stride_on", self.stride_on, ("conv1", "conv2"))
        super().__post_init__()

    @property
    def stage_numbers(self) -> Sequence[int]:
        return range(2, len(self.blocks) + 2)

    def stage_of(self, module: str) -> int:
        return self.stage_numbers[-1] if module == "bn" else super().stage_of(module)

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], train: bool
    ) -> Float[Array, "n classes"] | dict[int, Float[Array, "n h2 w2 c2"]]:
        """Applies the network.

        Args:
            images: Normalised images.
            train: Normalise with the batch's statistics and drop what the fields say.
        """
        check_images(images)
        block: Any = nn.remat(PreactBlock, static_argnums=(2,)) if self.remat else PreactBlock
        features = FeatureMaps(self.features_by)
        x = conv(self.stem_width, 3, dtype=self.dtype, name="stem")(images)
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True), 2):
            build = functools.partial(
                block,
                width,
                self.bottleneck,
                self.stride_on,
                self.attention_of(stage),
                self.block_dropout,
                self.dtype,
                norm_group=self.norm_group,
            )
            first = functools.partial(build, stride=1 if stage == 2 else 2, leads=stage == 2)
            x = Stage((first, *[build] * (blocks - 1)), name=f"stage{stage}")(x, train)
            features.add(x, stride=2 ** (stage - 2), stage=stage)
        x = batch_norm(train, group=self.norm_group, dtype=self.dtype, name="bn")(x, relu=True)
        if self.features_only:
            features.add(x, stride=2 ** (stage - 2), stage=stage)
            return features.found
        return self.classify(x, train)


def _preact(depth: int, bottleneck: bool) -> Callable[..., PreactResNet]:
    blocks = (depth - 2) // (9 if bottleneck else 6)
    return functools.partial(
        PreactResNet, blocks=(blocks,) * 3, bottleneck=bottleneck, num_classes=10
    )


def _wide(depth: int, factor: int) -> Callable[..., PreactResNet]:
    widths = tuple(factor * width for width in (16, 32, 64))
    return functools.partial(
        PreactResNet, blocks=((depth - 4) // 6,) * 3, widths=widths, num_classes=10
    )


_PLAIN: dict[str, Callable[..., PreactResNet]] = {
    "preact_resnet110": _preact(110, bottleneck=False),
    "preact_resnet164": _preact(164, bottleneck=True),
    "preact_resnet1001": _preact(1001, bottleneck=True),
    "wrn16_8": _wide(16, 8),
    "wrn28_10": _wide(28, 10),
    "wrn40_4": _wide(40, 4),
}

PREACT_RESNETS: dict[str, Callable[..., PreactResNet]] = {
    **{f"cifar_{name}": build for name, build in _PLAIN.items()},
    **{
        f"cifar_se_{name}": functools.partial(_PLAIN[name], attention=SE)
        for name in ("preact_resnet110", "preact_resnet164", "wrn16_8", "wrn28_10")
    },
}
"""Depths of 6n + 2 (basic) and 9n + 2 (bottleneck), 1603.05027, Tables 2 to 4; WRN-d-k of depth
6n + 4 and k times the width, 1605.07146, Table 1."""
