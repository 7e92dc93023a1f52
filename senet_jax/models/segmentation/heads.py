"""Heads of semantic segmentation: from the feature maps of a backbone to logits on their grid.

Sources: FCN (arXiv 1411.4038), PSPNet (arXiv 1612.01105, section 3.2), DeepLabV3 (arXiv 1706.05587,
section 3.3), DeepLabV3+ (arXiv 1802.02611, section 3.1). The layers are those of torchvision and of
ResNeSt's authors (PyTorch-Encoding), who agree where both have a head.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.ops.conv import conv
from senet_jax.ops.norm import batch_norm
from senet_jax.ops.pooling import adaptive_avg_pool
from senet_jax.ops.precision import accurate
from senet_jax.ops.resize import resize_bilinear

Maps = dict[int, Float[Array, "n h w c"]]
"""Feature maps by the number of the stage that ends in them."""


class Layer(nn.Module):
    """A convolution without bias, batch norm and ReLU."""

    width: int
    """Output channels."""
    kernel_size: int = 3
    """Side of the kernel."""
    dilation: int = 1
    """Distance between the taps of the kernel."""
    dtype: Any = None
    """Compute precision."""
    norm_group: int | None = None
    """See ``Backbone.norm_group``."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w c2"]:
        side, dilation, dtype = self.kernel_size, self.dilation, self.dtype
        x = conv(self.width, side, dilation=dilation, dtype=dtype, name="conv")(x)
        norm = batch_norm(train, group=self.norm_group, dtype=dtype, name="bn")
        return norm(x, relu=True)


class Head(nn.Module, kw_only=True):
    """What all heads have in common: layers of one precision, and the classifier."""

    num_classes: int
    """Number of logits of a pixel."""
    dropout: float
    """Rate of dropout before the classifier."""
    dtype: Any = None
    """Compute precision of all but the classifier, which is at least float32."""
    norm_group: int | None = None
    """See ``Backbone.norm_group``."""

    def layer(self, width: int, kernel_size: int = 3, *, dilation: int = 1, name: str) -> Layer:
        """Builds a layer; called in ``__call__``."""
        return Layer(width, kernel_size, dilation, self.dtype, self.norm_group, name=name)

    def classify(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w classes"]:
        """Applies dropout and the ``classifier``; called in ``__call__``."""
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = x.astype(accurate(x.dtype))
        init = nn.initializers.normal(0.01)
        return conv(
            self.num_classes,
            1,
            use_bias=True,
            kernel_init=init,
            dtype=x.dtype,
            name="classifier",
        )(x)


class FCNHead(Head):
    """A 3x3 layer of a quarter of the channels, and the classifier."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w classes"]:
        x = self.layer(_part(x, 4), name="layer")(x, train)
        return self.classify(x, train)


class PyramidHead(Head):
    """Means over grids of regions beside the map, a 3x3 layer, and the classifier (PSPNet)."""

    grids: tuple[int, ...]
    """See ``PSPNet.grids``."""
    align_corners: bool
    """See ``Segmenter.align_corners``."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w classes"]:
        size = x.shape[1:3]
        found = [x]
        for index, side in enumerate(self.grids, 1):
            y = adaptive_avg_pool(x, side, side)
            y = self.layer(_part(x, len(self.grids)), 1, name=f"pool{index}")(y, train)
            y = resize_bilinear(y, size, align_corners=self.align_corners)
            found.append(y.astype(x.dtype))
        y = self.layer(_part(x, 4), name="layer")(jnp.concatenate(found, axis=-1), train)
        return self.classify(y, train)


class ASPPHead(Head):
    """Base of the two heads with atrous spatial pyramid pooling."""

    width: int
    """See ``DeepLabV3.width``."""
    rates: tuple[int, ...]
    """See ``DeepLabV3.rates``."""
    aspp_dropout: float
    """See ``DeepLabV3.aspp_dropout``."""
    drop_channels: bool
    """See ``DeepLabV3.drop_channels``."""

    def aspp(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w c2"]:
        """Looks at each pixel at several scales and at the image; called in ``__call__``."""
        found = [self.layer(self.width, 1, name="point")(x, train)]
        for index, rate in enumerate(self.rates, 1):
            found.append(self.layer(self.width, dilation=rate, name=f"rate{index}")(x, train))
        mean = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=accurate(x.dtype)).astype(x.dtype)
        mean = self.layer(self.width, 1, name="pool")(mean, train)
        found.append(jnp.broadcast_to(mean, found[0].shape))
        y = self.layer(self.width, 1, name="project")(jnp.concatenate(found, axis=-1), train)
        over = (1, 2) if self.drop_channels else ()
        return nn.Dropout(self.aspp_dropout, over, deterministic=not train)(y)


class DeepLabV3Head(ASPPHead):
    """ASPP, a 3x3 layer, and the classifier."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w classes"]:
        x = self.layer(self.width, name="layer")(self.aspp(x, train), train)
        return self.classify(x, train)


class DeepLabV3PlusHead(ASPPHead):
    """ASPP, its map beside a reduced one of an early stage, two 3x3 layers, and the classifier."""

    low_width: int
    """See ``DeepLabV3Plus.low_width``."""
    align_corners: bool
    """See ``Segmenter.align_corners``."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], low: Float[Array, "n h2 w2 c2"], train: bool
    ) -> Float[Array, "n h2 w2 classes"]:
        y = resize_bilinear(
            self.aspp(x, train), low.shape[1:3], align_corners=self.align_corners
        ).astype(x.dtype)
        low = self.layer(self.low_width, 1, name="low")(low, train)
        y = jnp.concatenate([y, low], axis=-1)
        for index in (1, 2):
            y = self.layer(self.width, name=f"layer{index}")(y, train)
        return self.classify(y, train)


def _part(x: Float[Array, "n h w c"], parts: int) -> int:
    """A part of the channels of a map, at least one."""
    return max(1, x.shape[-1] // parts)
