"""The same networks as one writes them first: ``nn.Conv``, ``nn.BatchNorm``, the textbook SE.

The race calls them "plain Flax". Nothing of senet_jax is in them. Submodules have the names that
senet_jax gives them, joined by underscores, so that weights can be copied (the tests compare the
logits).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


class SqueezeExcite(nn.Module):
    """Squeeze-and-Excitation (arXiv 1709.01507)."""

    hidden: int
    """Width of the hidden layer."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        gate = jnp.mean(x, axis=(1, 2))
        gate = nn.relu(nn.Dense(self.hidden, dtype=x.dtype, name="reduce")(gate))
        gate = nn.sigmoid(nn.Dense(x.shape[-1], dtype=x.dtype, name="expand")(gate))
        return x * gate[:, None, None, :]


def _rounded(channels: int) -> int:
    """Hidden width of SE in timm's ResNets: a sixteenth of the channels, a multiple of 8."""
    return max(8, (channels // 16 + 4) // 8 * 8)


class SplitAttention(nn.Module):
    """Split attention with a radix of 2 and one cardinal group (arXiv 2004.08955)."""

    features: int
    norm: Callable[..., nn.Module]
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w {self.features}"]:
        hidden = max(32, x.shape[-1] // 2)
        layer = functools.partial(nn.Conv, dtype=self.dtype)
        padding = ((1, 1), (1, 1))
        wide = 2 * self.features
        x = layer(
            wide, (3, 3), padding=padding, feature_group_count=2, use_bias=False, name="conv"
        )(x)
        x = nn.relu(self.norm(name="bn")(x))
        splits = x.reshape(*x.shape[:3], 2, self.features)
        squeezed = splits.sum(axis=3).mean(axis=(1, 2), keepdims=True)
        squeezed = layer(hidden, (1, 1), name="reduce")(squeezed)
        squeezed = nn.relu(self.norm(name="reduce_bn")(squeezed))
        logits = layer(wide, (1, 1), name="expand")(squeezed)
        weights = jax.nn.softmax(logits.reshape(-1, 1, 1, 2, self.features), axis=3)
        return (splits * weights).sum(axis=3)


class Bottleneck(nn.Module):
    """The residual block of ResNet-50, ResNeXt, SENet or ResNeSt."""

    width: int
    inner: int
    """Width of the 3x3 convolution."""
    stride: int
    groups: int
    attention: str | None
    """"se", "split" or None."""
    average_down: bool
    """Average before the projection (ResNet-D)."""
    norm: Callable[..., nn.Module]
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        layer = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        stride, shortcut = (self.stride, self.stride), x
        y = nn.relu(self.norm(name="bn1")(layer(self.inner, (1, 1), name="conv1")(x)))
        padding = ((1, 1), (1, 1))
        if self.attention == "split":
            y = SplitAttention(self.inner, self.norm, self.dtype, name="conv2")(y)
            if self.stride > 1:
                y = nn.avg_pool(y, (3, 3), stride, padding)
        else:
            y = layer(
                self.inner,
                (3, 3),
                stride,
                padding=padding,
                feature_group_count=self.groups,
                name="conv2",
            )(y)
            y = nn.relu(self.norm(name="bn2")(y))
        y = self.norm(name="bn3")(layer(4 * self.width, (1, 1), name="conv3")(y))
        if self.attention == "se":
            y = SqueezeExcite(_rounded(4 * self.width), name="se")(y)
        if shortcut.shape != y.shape:
            if self.average_down and self.stride > 1:
                shortcut, stride = nn.avg_pool(shortcut, (2, 2), stride), (1, 1)
            shortcut = layer(4 * self.width, (1, 1), stride, name="shortcut_conv")(shortcut)
            shortcut = self.norm(name="shortcut_bn")(shortcut)
        return nn.relu(y + shortcut)


class BasicBlock(nn.Module):
    """The residual block of ResNet-18 and of the CIFAR networks."""

    width: int
    stride: int
    hidden: int | None
    """Hidden width of SE; None without SE."""
    projection: bool
    """A shortcut that changes the shape is a 1x1 convolution; otherwise it pads with zeros."""
    norm: Callable[..., nn.Module]
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 {self.width}"]:
        layer = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        stride, padding, shortcut = (self.stride, self.stride), ((1, 1), (1, 1)), x
        y = layer(self.width, (3, 3), stride, padding=padding, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.norm(name="bn2")(layer(self.width, (3, 3), padding=padding, name="conv2")(y))
        if self.hidden is not None:
            y = SqueezeExcite(self.hidden, name="se")(y)
        if shortcut.shape != y.shape and self.projection:
            shortcut = layer(self.width, (1, 1), stride, name="shortcut_conv")(shortcut)
            shortcut = self.norm(name="shortcut_bn")(shortcut)
        elif shortcut.shape != y.shape:
            added = self.width - x.shape[-1]
            before = added // 2
            shortcut = shortcut[:, :: self.stride, :: self.stride]
            shortcut = jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (before, added - before)))
        return nn.relu(y + shortcut)


class PlainResNet(nn.Module):
    """ResNet and its kin with bottleneck blocks, for images whose side is a multiple of 32."""

    blocks: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    groups: int = 1
    base_width: int = 64
    attention: str | None = None
    deep_stem: bool = False
    """ResNet-D's stem and shortcuts."""
    num_classes: int = 1000
    dtype: Any = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], train: bool
    ) -> Float[Array, "n {self.num_classes}"]:
        layer = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype
        )
        x, padding = images, ((1, 1), (1, 1))
        if self.deep_stem:
            for index, (width, stride) in enumerate(((32, 2), (32, 1), (64, 1)), 1):
                x = layer(
                    width, (3, 3), (stride, stride), padding=padding, name=f"stem_conv{index}"
                )(x)
                x = nn.relu(norm(name=f"stem_bn{index}")(x))
        else:
            x = layer(64, (7, 7), (2, 2), padding=((3, 3), (3, 3)), name="stem_conv")(x)
            x = nn.relu(norm(name="stem_bn")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding)
        for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True), 2):
            for index in range(count):
                x = Bottleneck(
                    width,
                    inner=width * self.base_width // 64 * self.groups,
                    stride=2 if stage > 2 and index == 0 else 1,
                    groups=self.groups,
                    attention=self.attention,
                    average_down=self.deep_stem,
                    norm=norm,
                    dtype=self.dtype,
                    name=f"stage{stage}_block{index + 1}",
                )(x)
        return nn.Dense(self.num_classes, name="head")(x.mean(axis=(1, 2)))


class PlainBasicResNet(nn.Module):
    """ResNet with basic blocks: of four stages for ImageNet, of three for CIFAR."""

    blocks: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    se: bool = False
    cifar: bool = False
    """A 3x3 stem without a pool, and shortcuts without parameters."""
    num_classes: int = 1000
    dtype: Any = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], train: bool
    ) -> Float[Array, "n {self.num_classes}"]:
        layer = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype, name="stem_conv")
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype
        )
        stem, x, padding = self.widths[0], images, ((1, 1), (1, 1))
        if self.cifar:
            x = nn.relu(norm(name="stem_bn")(layer(stem, (3, 3), padding=padding)(x)))
        else:
            x = layer(stem, (7, 7), (2, 2), padding=((3, 3), (3, 3)))(x)
            x = nn.max_pool(nn.relu(norm(name="stem_bn")(x)), (3, 3), (2, 2), padding)
        for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True), 2):
            hidden = width // 16 if self.cifar else _rounded(width)
            for index in range(count):
                x = BasicBlock(
                    width,
                    stride=2 if stage > 2 and index == 0 else 1,
                    hidden=hidden if self.se else None,
                    projection=not self.cifar,
                    norm=norm,
                    dtype=self.dtype,
                    name=f"stage{stage}_block{index + 1}",
                )(x)
        return nn.Dense(self.num_classes, name="head")(x.mean(axis=(1, 2)))


_50 = functools.partial(PlainResNet, (3, 4, 6, 3))
_18 = functools.partial(PlainBasicResNet, (2, 2, 2, 2))
_NEXT: dict[str, Any] = {"groups": 32, "base_width": 4}


def _cifar(depth: int) -> Callable[..., nn.Module]:
    blocks = ((depth - 2) // 6,) * 3
    return functools.partial(PlainBasicResNet, blocks, (16, 32, 64), se=True, cifar=True)


PLAIN: dict[str, Callable[..., nn.Module]] = {
    "cifar_seresnet20": _cifar(20),
    "cifar_seresnet56": _cifar(56),
    "resnet18": _18,
    "seresnet18": functools.partial(_18, se=True),
    "resnet50": _50,
    "seresnet50": functools.partial(_50, attention="se"),
    "resnext50_32x4d": functools.partial(_50, **_NEXT),
    "seresnext50_32x4d": functools.partial(_50, attention="se", **_NEXT),
    "seresnext101_32x4d": functools.partial(PlainResNet, (3, 4, 23, 3), attention="se", **_NEXT),
    "resnest14d": functools.partial(PlainResNet, (1, 1, 1, 1), attention="split", deep_stem=True),
    "resnest50d": functools.partial(_50, attention="split", deep_stem=True),
}
"""The networks that have a plain twin, by senet_jax's name."""
