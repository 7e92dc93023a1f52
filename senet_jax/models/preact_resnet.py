"""Pre-activation and wide residual networks with attention, for CIFAR.

Sources: pre-activation ResNet (arXiv 1603.05027), wide ResNet (arXiv 1605.07146) and the authors'
Torch code of both; SENet (arXiv 1709.01507), Tables 4 and 5. Stages are numbered as in ``resnet``:
the stem is stage 1, the blocks stand in stages 2 to 4.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Mechanism
from senet_jax.attention.base import apply_attention
from senet_jax.errors import UsageError
from senet_jax.fields.models import PreactResNetFields
from senet_jax.models.backbone import Backbone, FeatureMaps, Stage, check_images
from senet_jax.models.resnet import SE
from senet_jax.ops.compute import Compute


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
    compute: Compute
    """Precision and norms of its layers."""
    stride: int = 1
    """Stride of the block."""
    leads: bool = False
    """This is the network's first unit: the shortcut, too, starts after the first ReLU
    (1603.05027, appendix)."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        conv, norm = self.compute.conv, self.compute.norm
        width, stride = self.width, self.stride
        if self.bottleneck:
            first, second = (stride, 1) if self.stride_on == "conv1" else (1, stride)
            layers = [(width, 1, first), (width, 3, second), (4 * width, 1, 1)]
        else:
            layers = [(width, 3, stride), (width, 3, 1)]
        features = layers[-1][0]

        y = norm("bn1")(x, relu=True)
        shortcut = y if self.leads else x
        if stride > 1 or x.shape[-1] != features:
            shortcut = conv(features, 1, stride=stride, name="shortcut")(y)
        for index, (channels, kernel_size, step) in enumerate(layers, 1):
            if index > 1:
                y = norm(f"bn{index}")(y, relu=True)
            if index == len(layers):
                y = nn.Dropout(self.dropout, deterministic=not self.compute.train)(y)
            y = conv(channels, kernel_size, stride=step, name=f"conv{index}")(y)
        return shortcut + apply_attention(self.attention, y, self.compute)


class PreactResNet(PreactResNetFields, Backbone):
    """A pre-activation or wide residual network for images of about 32x32 pixels.

    Where a block changes the shape, a 1x1 projection without batch norm takes its activated input.
    The stem is a bare convolution; a last batch norm and ReLU stand before the head. Of
    ``features_only`` the last map comes after them, the others are the sums that the stages end in.
    In training, ``dropout`` and ``block_dropout`` need the random key "dropout".

    Raises:
        UsageError: As ``Backbone``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.blocks) != len(self.widths):
            raise UsageError(f"blocks {self.blocks} and widths {self.widths} differ in length.")

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
            images: Normalized images.
            train: Normalize with the batch's statistics and drop what the fields say.
        """
        check_images(images)
        block, compute = self.rematerialized(PreactBlock), self.compute(train)
        features = FeatureMaps()
        x = compute.conv(self.stem_width, 3, name="stem")(images)
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True), 2):
            build = functools.partial(
                block,
                width,
                self.bottleneck,
                self.stride_on,
                self.attention_of(stage),
                self.block_dropout,
                compute,
            )
            first = functools.partial(build, stride=1 if stage == 2 else 2, leads=stage == 2)
            x = Stage((first, *[build] * (blocks - 1)), name=f"stage{stage}")(x)
            stride = 2 ** (stage - 2)
            features.add(x, stride=stride, stage=stage)
        features.add(compute.norm("bn")(x, relu=True), stride=stride, stage=stage)
        return self.outputs(features, train)


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
