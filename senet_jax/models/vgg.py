"""VGG with attention after each convolution.

Source: VGG (arXiv 1409.1556), Table 1; attention as in SENet (arXiv 1709.01507), section 3.3 and
Table 2. Stages are numbered as the paper's convolutions: ``stage3/layer2`` is conv3_2, of stride 4.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Mechanism, SqueezeExciteConfig
from senet_jax.attention.base import apply_attention
from senet_jax.errors import UsageError
from senet_jax.fields.models import VGGFields
from senet_jax.models.backbone import Backbone, FeatureMaps, Stage, check_images
from senet_jax.ops.compute import Compute
from senet_jax.ops.pooling import adaptive_avg_pool, max_pool

FC_WINDOW = 7
"""Side of the maps that ``fc6`` takes: those of the last stage for images of 224 pixels."""


class Layer(nn.Module):
    """A convolution, its batch norm if it has one, ReLU and attention."""

    width: int
    """Output channels."""
    kernel_size: int
    """Side of the kernel."""
    norm: bool
    """See ``VGG.norm``."""
    attention: Mechanism | None
    """The attention that rescales the output."""
    compute: Compute
    """Precision and norms of its layers."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c2"]:
        x = self.compute.conv(self.width, self.kernel_size, use_bias=True, name="conv")(x)
        x = self.compute.norm("bn")(x, relu=True) if self.norm else nn.relu(x)
        return apply_attention(self.attention, x, self.compute)


class VGG(VGGFields, Backbone):
    """Stages of convolutions, a 2x2 max pool after each, and three fully connected layers.

    The fully connected layers are convolutions (the paper's section 3.2), as in timm: ``fc6`` is
    7x7 and unpadded, ``fc7`` and the head are 1x1. Maps larger than 7x7 give several outputs,
    whose mean the head classifies; a side below 7 is first stretched to 7 by averaging. At 224
    pixels this is the published network.

    Attention rescales the output of every convolution of a stage, after the non-linearity.
    ``dropout`` is applied after both ``fc6`` and ``fc7``; the paper trains with 0.5, which is left
    to the recipe. ``remat`` computes each layer again, from one attention to the next. The feature
    maps are those before each pool and, of stride 32, those after the last.

    Raises:
        UsageError: As ``Backbone``.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.blocks) != len(self.widths):
            raise UsageError(f"blocks {self.blocks} and widths {self.widths} differ in length.")

    @property
    def stage_numbers(self) -> Sequence[int]:
        return range(1, len(self.blocks) + 1)

    @property
    def head_modules(self) -> Sequence[str]:
        return ("fc6", "fc7", "head")

    @nn.compact
    def __call__(
        self, images: Float[Array, "n h w c"], train: bool
    ) -> Float[Array, "n classes"] | dict[int, Float[Array, "n h2 w2 c2"]]:
        """Applies the network.

        Args:
            images: Normalized images.
            train: Normalize with the batch's statistics and apply dropout.
        """
        check_images(images, smallest=2 ** len(self.blocks))
        layer, compute = self.rematerialized(Layer), self.compute(train)
        x, stride, features = images, 1, FeatureMaps()
        for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True), 1):
            layers = tuple(
                functools.partial(
                    layer,
                    width,
                    1 if self.pointwise_third and index == 3 else 3,
                    self.norm,
                    self.attention_of(stage),
                    compute,
                )
                for index in range(1, count + 1)
            )
            x = Stage(layers, "layer", name=f"stage{stage}")(x)
            features.add(x, stride=stride, stage=stage)
            x, stride = max_pool(x, 2, 2), 2 * stride
        features.add(x, stride=stride)
        if self.features_only:
            return self.outputs(features, train)

        x = adaptive_avg_pool(x, *(max(FC_WINDOW, side) for side in x.shape[1:3]))
        fc = functools.partial(compute.conv, self.fc_width, pad=0, use_bias=True)
        x = nn.relu(fc(FC_WINDOW, name="fc6")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.relu(fc(1, name="fc7")(x))
        return self.classify(x, train)


_CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "11": {"blocks": (1, 1, 2, 2, 2)},
    "13": {"blocks": (2, 2, 2, 2, 2)},
    "16": {"blocks": (2, 2, 3, 3, 3)},
    "19": {"blocks": (2, 2, 4, 4, 4)},
}
"""Table 1: A, B, D and E."""

SE = SqueezeExciteConfig()

VGGS: dict[str, Callable[..., VGG]] = {
    **{
        f"{prefix}vgg{depth}{suffix}": functools.partial(VGG, **configuration, **fields)
        for prefix, suffix, fields in (
            ("", "", {}),
            ("", "_bn", {"norm": True}),
            ("se_", "_bn", {"norm": True, "attention": SE}),
        )
        for depth, configuration in _CONFIGURATIONS.items()
    },
    "vgg16_c": functools.partial(VGG, **_CONFIGURATIONS["16"], pointwise_third=True),
    "se_vgg16": functools.partial(VGG, **_CONFIGURATIONS["16"], attention=SE),
}
"""Names and networks as in timm and torchvision, and with SE."""
