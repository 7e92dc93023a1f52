"""Shake-Shake networks with attention, for CIFAR: two residual branches, mixed at random.

Sources: Shake-Shake (arXiv 1705.07485) and its author's Torch code; SENet (arXiv 1709.01507),
Tables 4 and 5, which train them with Cutout. Stages are numbered as in ``resnet``: the stem is
stage 1, the blocks stand in stages 2 to 4.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Mechanism
from senet_jax.attention.base import apply_attention
from senet_jax.errors import UsageError
from senet_jax.fields.models import Backward, Forward, ShakeShakeFields
from senet_jax.models.backbone import Backbone, FeatureMaps, Stage, check_images
from senet_jax.models.resnet import SE
from senet_jax.ops.compute import Compute
from senet_jax.ops.shake import Shake


class Layers(nn.Module):
    """Convolutions, each with its batch norm, and a ReLU between one and the next."""

    layers: tuple[tuple[int, int, int, int], ...]
    """Channels, side of the kernel, stride and groups of each convolution."""
    compute: Compute
    """Precision and norms of its layers."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        for index, (channels, kernel_size, stride, groups) in enumerate(self.layers, 1):
            x = nn.relu(x) if index > 1 else x
            conv = self.compute.conv(
                channels, kernel_size, stride=stride, groups=groups, name=f"conv{index}"
            )
            x = self.compute.norm(f"bn{index}")(conv(x))
        return x


class ShiftedShortcut(nn.Module):
    """Two 1x1 projections to half of the channels each, side by side, and one batch norm.

    The second sees the image one pixel further down and to the right, so that with a stride of 2
    the two see different pixels. The author's code does so at stride 1, too.
    """

    features: int
    """Channels of the output."""
    stride: int
    """Stride of the block."""
    compute: Compute
    """Precision and norms of its layers."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        height, width = x.shape[1:3]
        shifted = jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0)))[:, :height, :width]
        halves = [
            self.compute.conv(self.features // 2, 1, stride=self.stride, name=f"conv{n}")(half)
            for n, half in enumerate((x, shifted), 1)
        ]
        return self.compute.norm("bn")(jnp.concatenate(halves, axis=-1))


class ShakeBlock(nn.Module):
    """Two residual branches of equal shape and a shortcut (1705.07485, Figure 1).

    A basic block has its ReLU before the branches and none after the sum. A bottleneck is the
    ResNeXt's (arXiv 1611.05431, Figure 3c), with the ReLU after the sum and a 1x1 projection.
    """

    width: int
    """Width of the stage; a bottleneck's output has four times as many channels."""
    bottleneck: bool
    """1x1, 3x3 and 1x1 convolutions in each branch; otherwise two 3x3."""
    cardinality: int
    """Groups of a bottleneck's 3x3 convolution, each of the stage's width."""
    forward: Forward
    """See :func:`shake`."""
    backward: Backward
    """See :func:`shake`."""
    attention: Mechanism | None
    """Applied to the mixed branches before the addition."""
    compute: Compute
    """Precision and norms of its layers."""
    stride: int = 1
    """Stride of the block."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        width, stride, groups = self.width, self.stride, self.cardinality
        layers: tuple[tuple[int, int, int, int], ...]
        if self.bottleneck:
            inner = width * groups
            layers = (inner, 1, 1, 1), (inner, 3, stride, groups), (4 * width, 1, 1, 1)
        else:
            layers = (width, 3, stride, 1), (width, 3, 1, 1)
        features = layers[-1][0]

        inputs = x if self.bottleneck else nn.relu(x)
        shortcut = x
        if stride > 1 or x.shape[-1] != features:
            project = (
                Layers(((features, 1, stride, 1),), self.compute, name="shortcut")
                if self.bottleneck
                else ShiftedShortcut(features, stride, self.compute, name="shortcut")
            )
            shortcut = project(inputs)
        a, b = (Layers(layers, self.compute, name=f"branch{n}")(inputs) for n in (1, 2))
        y = Shake(self.forward, self.backward)(a, b, self.compute.train)
        y = shortcut + apply_attention(self.attention, y, self.compute)
        return nn.relu(y) if self.bottleneck else y


class ShakeShake(ShakeShakeFields, Backbone):
    """A residual network whose blocks mix two branches, for images of about 32x32 pixels.

    The papers do not say where the attention stands; here it rescales the mixed branches before
    the addition, as a residual branch is rescaled elsewhere. Of ``features_only`` the last map is
    what the head averages; a network of basic blocks has a ReLU there, and its other maps are the
    sums that the stages end in. Training needs the random key "dropout".

    Raises:
        UsageError: As ``Backbone``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.blocks) != len(self.widths):
            raise UsageError(f"blocks {self.blocks} and widths {self.widths} differ in length.")
        if not self.bottleneck and self.cardinality > 1:
            raise UsageError("basic blocks have no cardinality: leave it at 1 or set bottleneck.")
        if not self.bottleneck and any(width % 2 for width in self.widths):
            raise UsageError(
                f"the shortcuts of basic blocks have two halves: widths must be even, "
                f"not {self.widths}."
            )

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
            train: Normalize with the batch's statistics and mix and drop as the fields say.
        """
        check_images(images)
        block, compute = self.rematerialized(ShakeBlock), self.compute(train)
        features = FeatureMaps()
        x = Layers(((self.stem_width, 3, 1, 1),), compute, name="stem")(images)
        x = nn.relu(x) if self.bottleneck else x
        for stage, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True), 2):
            build = functools.partial(
                block,
                width,
                self.bottleneck,
                self.cardinality,
                self.forward,
                self.backward,
                self.attention_of(stage),
                compute,
            )
            first = functools.partial(build, stride=1 if stage == 2 else 2)
            x = Stage((first, *[build] * (blocks - 1)), name=f"stage{stage}")(x)
            stride = 2 ** (stage - 2)
            features.add(x, stride=stride, stage=stage)
        if not self.bottleneck:  # A bottleneck has had its ReLU.
            features.add(nn.relu(x), stride=stride, stage=stage)
        return self.outputs(features, train)


def _shake(width: int, **fields: Any) -> Callable[..., ShakeShake]:
    widths = (width, 2 * width, 4 * width)
    return functools.partial(ShakeShake, widths=widths, **fields)


_shake26 = functools.partial(_shake, blocks=(4, 4, 4), num_classes=10)
_even29 = _shake(
    64,
    blocks=(3, 3, 3),
    stem_width=64,
    bottleneck=True,
    cardinality=4,
    backward="even",
    num_classes=100,
)

SHAKE_SHAKES: dict[str, Callable[..., ShakeShake]] = {
    **{f"cifar_shake_shake26_2x{width}d": _shake26(width) for width in (32, 64, 96)},
    "cifar_shake_even29_2x4x64d": _even29,
    "cifar_se_shake_shake26_2x96d": _shake26(96, attention=SE),
    "cifar_se_shake_even29_2x4x64d": functools.partial(_even29, attention=SE),
}
"""Depth, branches and width of the first stage; for the ResNeXt also groups (1705.07485, sections
2.1 and 2.2). The ResNeXt is published for CIFAR-100 and has 100 classes."""
