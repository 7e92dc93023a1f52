"""DenseNet with attention, for ImageNet and CIFAR (arXiv 1608.06993).

Stages are numbered as those of the ResNets: the stem is stage 1, the first dense block stage 2. A
transition has the number of the stage before it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Mechanism, SqueezeExciteConfig
from senet_jax.attention.base import apply_attention
from senet_jax.errors import UsageError
from senet_jax.fields.models import DenseNetFields
from senet_jax.models.backbone import STEM, Backbone, FeatureMaps, check_images
from senet_jax.models.stem import Stem
from senet_jax.ops.compute import Compute
from senet_jax.ops.pooling import avg_pool


def _norm_relu_conv(
    x: Float[Array, "n h w c"],
    features: int,
    kernel_size: int,
    *,
    index: str = "",
    drop_rate: float,
    compute: Compute,
) -> Float[Array, "n h w {features}"]:
    """Applies ``bn{index}``, ReLU, ``conv{index}`` and dropout; called inside a module."""
    x = compute.norm(f"bn{index}")(x, relu=True)
    x = compute.conv(features, kernel_size, name=f"conv{index}")(x)
    return nn.Dropout(drop_rate, deterministic=not compute.train)(x)


class DenseLayer(nn.Module):
    """From all maps before it, the k new ones of a layer (sections 3 and 4, eq. 2)."""

    growth_rate: int
    """New channels, the paper's k."""
    bottleneck: bool
    """See ``DenseNet.bottleneck``."""
    drop_rate: float
    """See ``DenseNet.drop_rate``."""
    attention: Mechanism | None
    """Attention of the new channels."""
    compute: Compute
    """Precision and norms of its layers."""

    @nn.compact
    def __call__(
        self, maps: Sequence[Float[Array, "n h w _"]]
    ) -> Float[Array, "n h w {self.growth_rate}"]:
        # Concatenated here and not by the caller, so that remat, which keeps a layer's input, keeps
        # every map once: the memory-efficient DenseNet (arXiv 1707.06990).
        x = jnp.concatenate(maps, axis=-1)
        apply = functools.partial(_norm_relu_conv, drop_rate=self.drop_rate, compute=self.compute)
        if self.bottleneck:
            x = apply(x, 4 * self.growth_rate, 1, index="1")
            x = apply(x, self.growth_rate, 3, index="2")
        else:
            x = apply(x, self.growth_rate, 3, index="1")
        return apply_attention(self.attention, x, self.compute)


class DenseBlock(nn.Module):
    """Layers each of which sees the block's input and the outputs of all layers before it."""

    layer: Callable[..., nn.Module]
    """Constructor of a layer."""
    layers: int
    """Number of layers."""
    attention: Mechanism | None
    """Attention of the block's whole output."""
    compute: Compute
    """Precision and norms of its layers."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c2"]:
        maps = [x]
        for index in range(1, self.layers + 1):
            maps.append(self.layer(name=f"layer{index}")(tuple(maps)))
        x = jnp.concatenate(maps, axis=-1)
        return apply_attention(self.attention, x, self.compute)


class Transition(nn.Module):
    """A 1x1 convolution and a 2x2 average pool, between two dense blocks (section 3)."""

    features: int
    """Output channels."""
    drop_rate: float
    """See ``DenseNet.drop_rate``."""
    compute: Compute
    """Precision and norms of its layers."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 {self.features}"]:
        x = _norm_relu_conv(x, self.features, 1, drop_rate=self.drop_rate, compute=self.compute)
        return avg_pool(x, 2, 2)


class DenseNet(DenseNetFields, Backbone):
    """A densely connected network, with attention in the stages and at the place its fields say.

    In training, ``dropout`` and ``drop_rate`` need the random key "dropout". Of ``features_only``
    the first map is the stem's before its pool, the last the one that the head averages, after the
    last batch norm and its ReLU, and those between are the outputs of the dense blocks, which no
    batch norm has seen: timm's choice. ``remat`` computes each layer again, its concatenation
    included.

    Raises:
        UsageError: As ``Backbone``; besides a number below one, or a compression that leaves no
            channel.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 in self._transition_widths():
            raise UsageError(
                f"compression {self.compression:g} leaves no channel after a dense block: use a "
                "larger one, of at most 1."
            )

    @property
    def stage_numbers(self) -> Sequence[int]:
        return range(2, len(self.blocks) + 2)

    def stage_of(self, module: str) -> int:
        if module == "final_bn":
            return self.stage_numbers[-1]
        return super().stage_of(module.replace("transition", "stage"))

    @property
    def _stem_channels(self) -> int:
        return 2 * self.growth_rate if self.stem_width is None else self.stem_width

    def _transition_widths(self) -> list[int]:
        """Output channels of each transition."""
        widths, channels = [], self._stem_channels
        for layers in self.blocks[:-1]:
            channels = int((channels + layers * self.growth_rate) * self.compression)
            widths.append(channels)
        return widths

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], train: bool
    ) -> Float[Array, "n classes"] | dict[int, Float[Array, "n h2 w2 c2"]]:
        """Applies the network.

        Args:
            images: Normalized images.
            train: Normalize with the batch's statistics and drop what the fields say.
        """
        stride, width = 4 if self.stem == "imagenet" else 1, self._stem_channels
        transitions = self._transition_widths()
        # The pools of the transitions drop an odd last pixel, the strides of the stem do not.
        check_images(images, smallest=stride * (2 ** len(transitions) - 1) + 1)
        layer, compute = self.rematerialized(DenseLayer), self.compute(train)
        features = FeatureMaps()
        if self.stem == "imagenet":
            unpooled, x = Stem("imagenet", width, compute, name="stem")(images)
            features.add(unpooled, stride=2, stage=STEM)
        else:
            x = compute.conv(width, 3, name="stem")(images)
        for stage, layers in enumerate(self.blocks, 2):
            attention = self.attention_of(stage)
            layer_of_stage = functools.partial(
                layer,
                growth_rate=self.growth_rate,
                bottleneck=self.bottleneck,
                drop_rate=self.drop_rate,
                attention=attention if self.placement == "layer" else None,
                compute=compute,
            )
            block_attention = attention if self.placement == "block" else None
            block = DenseBlock(
                layer_of_stage, layers, block_attention, compute, name=f"stage{stage}"
            )
            x = block(x)
            features.add(x, stride=stride, stage=stage)
            if stage < self.stage_numbers[-1]:
                width = transitions[stage - 2]
                x = Transition(width, self.drop_rate, compute, name=f"transition{stage}")(x)
                stride *= 2
        x = compute.norm("final_bn")(x, relu=True)
        features.add(x, stride=stride, stage=self.stage_numbers[-1])
        return self.outputs(features, train)


_IMAGENET: dict[int, dict[str, Any]] = {
    121: {"blocks": (6, 12, 24, 16)},
    161: {"blocks": (6, 12, 36, 24), "growth_rate": 48},
    169: {"blocks": (6, 12, 32, 32)},
    201: {"blocks": (6, 12, 48, 32)},
    264: {"blocks": (6, 12, 64, 48)},
}
"""Table 1; of depth 161 the authors' released network (https://github.com/liuzhuang13/DenseNet)."""

_SE = SqueezeExciteConfig()

DENSENETS: dict[str, Callable[..., DenseNet]] = {
    **{
        f"densenet{depth}": functools.partial(DenseNet, **fields)
        for depth, fields in _IMAGENET.items()
    },
    **{
        f"se_densenet{depth}": functools.partial(DenseNet, **fields, attention=_SE)
        for depth, fields in _IMAGENET.items()
    },
}
"""DenseNet-BC for ImageNet, by depth."""

_cifar = functools.partial(DenseNet, stem="cifar", num_classes=10)


def _plain(depth: int, growth_rate: int) -> Callable[..., DenseNet]:
    """DenseNet: (depth - 4) / 3 convolutions a block, a stem of 16 channels."""
    return functools.partial(
        _cifar,
        blocks=((depth - 4) // 3,) * 3,
        growth_rate=growth_rate,
        bottleneck=False,
        compression=1.0,
        stem_width=16,
    )


def _bc(depth: int, growth_rate: int) -> Callable[..., DenseNet]:
    """DenseNet-BC: half as many layers, of two convolutions each, and a stem of 2k channels."""
    return functools.partial(_cifar, blocks=((depth - 4) // 6,) * 3, growth_rate=growth_rate)


CIFAR_DENSENETS: dict[str, Callable[..., DenseNet]] = {
    **{f"cifar_densenet_{L}_{k}": _plain(L, k) for L, k in ((40, 12), (100, 12))},
    **{f"cifar_densenet_bc_{L}_{k}": _bc(L, k) for L, k in ((100, 12), (250, 24), (190, 40))},
}
"""Section 3 and Table 2, by depth L and growth rate k. No layer of growth rate 12 has channels
enough for SE of the paper's reduction, so none is named with it; a smaller one is a field away."""
