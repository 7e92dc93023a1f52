"""Heads of semantic segmentation: from the feature maps of a backbone to logits on their grid.

Sources: FCN (arXiv 1411.4038), PSPNet (arXiv 1612.01105, section 3.2), DeepLabV3 (arXiv 1706.05587,
section 3.3), DeepLabV3+ (arXiv 1802.02611, section 3.1). The layers are those of torchvision and of
ResNeSt's authors (PyTorch-Encoding), who agree where both have a head.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.ops.compute import Compute
from senet_jax.ops.pooling import adaptive_avg_pool
from senet_jax.ops.precision import accurate
from senet_jax.ops.resize import resize_bilinear

Maps = dict[int, Float[Array, "n h w c"]]
"""Feature maps by the number of the stage that ends in them."""


class Layer(nn.Module):
    """A convolution without bias, batch norm and ReLU."""

    compute: Compute
    """Precision and norms of its layers."""
    width: int
    """Output channels."""
    kernel_size: int = 3
    """Side of the kernel."""
    dilation: int = 1
    """Distance between the taps of the kernel."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c2"]:
        conv = self.compute.conv(self.width, self.kernel_size, dilation=self.dilation, name="conv")
        return self.compute.norm("bn")(conv(x), relu=True)


class Head(nn.Module, kw_only=True):
    """A head: layers of one precision, and the classifier."""

    num_classes: int
    """Number of logits of a pixel."""
    dropout: float
    """Rate of dropout before the classifier."""
    compute: Compute
    """Precision and norms of its layers; the classifier is at least in float32."""

    def layer(self, width: int, kernel_size: int = 3, *, dilation: int = 1, name: str) -> Layer:
        """Builds a layer; called in ``__call__``."""
        return Layer(self.compute, width, kernel_size, dilation, name=name)

    def classify(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w classes"]:
        """Applies dropout and the ``classifier``; called in ``__call__``."""
        x = nn.Dropout(self.dropout, deterministic=not self.compute.train)(x)
        x = x.astype(accurate(x.dtype))
        return self.compute.within(x.dtype).conv(
            self.num_classes,
            1,
            use_bias=True,
            kernel_init=nn.initializers.normal(0.01),
            name="classifier",
        )(x)


class FCNHead(Head):
    """A 3x3 layer of a quarter of the channels, and the classifier."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w classes"]:
        x = self.layer(_part(x, 4), name="layer")(x)
        return self.classify(x)


class PyramidHead(Head):
    """Means over grids of regions beside the map, a 3x3 layer, and the classifier (PSPNet)."""

    grids: tuple[int, ...]
    """See ``PSPNetFields.grids``."""
    align_corners: bool
    """See ``SegmenterFields.align_corners``."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w classes"]:
        size = x.shape[1:3]
        found = [x]
        for index, side in enumerate(self.grids, 1):
            y = adaptive_avg_pool(x, side, side)
            y = self.layer(_part(x, len(self.grids)), 1, name=f"pool{index}")(y)
            y = resize_bilinear(y, size, align_corners=self.align_corners)
            found.append(y.astype(x.dtype))
        y = self.layer(_part(x, 4), name="layer")(jnp.concatenate(found, axis=-1))
        return self.classify(y)


class ASPPHead(Head):
    """Base of the two heads with atrous spatial pyramid pooling."""

    head_width: int
    """See ``DeepLabV3Fields.head_width``."""
    rates: tuple[int, ...]
    """See ``DeepLabV3Fields.rates``."""
    aspp_dropout: float
    """See ``DeepLabV3Fields.aspp_dropout``."""
    drop_channels: bool
    """See ``DeepLabV3Fields.drop_channels``."""

    def aspp(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c2"]:
        """Looks at each pixel at several scales and at the image; called in ``__call__``."""
        found = [self.layer(self.head_width, 1, name="point")(x)]
        for index, rate in enumerate(self.rates, 1):
            found.append(self.layer(self.head_width, dilation=rate, name=f"rate{index}")(x))
        mean = jnp.mean(x, axis=(1, 2), keepdims=True, dtype=accurate(x.dtype)).astype(x.dtype)
        mean = self.layer(self.head_width, 1, name="pool")(mean)
        found.append(jnp.broadcast_to(mean, found[0].shape))
        y = self.layer(self.head_width, 1, name="project")(jnp.concatenate(found, axis=-1))
        over = (1, 2) if self.drop_channels else ()
        return nn.Dropout(self.aspp_dropout, over, deterministic=not self.compute.train)(y)


class DeepLabV3Head(ASPPHead):
    """ASPP, a 3x3 layer, and the classifier."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w classes"]:
        x = self.layer(self.head_width, name="layer")(self.aspp(x))
        return self.classify(x)


class DeepLabV3PlusHead(ASPPHead):
    """ASPP, its map beside a reduced one of an early stage, 3x3 layers, and the classifier."""

    low_width: int
    """See ``DeepLabV3PlusFields.low_width``."""
    layers: int
    """See ``DeepLabV3PlusFields.decoder_layers``."""
    refine_width: int | None
    """See ``DeepLabV3PlusFields.refine_width``."""
    align_corners: bool
    """See ``SegmenterFields.align_corners``."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n h w c"],
        low: Float[Array, "n h2 w2 c2"],
        stem: Float[Array, "n h3 w3 c3"] | None,
        size: tuple[int, int],
    ) -> Float[Array, "n h4 w4 classes"]:
        """Applies the head.

        Args:
            x: The map of the last stage.
            low: The map of stage 2.
            stem: The map of the stem; without it, or without ``refine_width``, nothing is refined.
            size: Height and width of the images.
        """
        y = self._beside(self.aspp(x), low, "low")
        for index in range(1, self.layers + 1):
            y = self.layer(self.head_width, name=f"layer{index}")(y)
        logits = self.classify(y)
        if self.refine_width is None or stem is None:
            return logits
        y = self.layer(self.refine_width, 1, name="reduce")(y)
        y = self.layer(self.refine_width, name="refine")(self._beside(y, stem, "fine"))
        y = y.astype(accurate(y.dtype))
        # Each position of the map stands for so many pixels of the image, squared: dense
        # upsampling convolution (arXiv 1702.08502, section 3.1).
        side = max(1, round(size[0] / y.shape[1]))
        corrections = self.compute.within(y.dtype).conv(
            self.num_classes * side * side,
            1,
            use_bias=True,
            kernel_init=nn.initializers.zeros,
            name="fine_classifier",
        )(y)
        corrections = depth_to_space(corrections, side)
        return corrections + resize_bilinear(
            logits, corrections.shape[1:3], align_corners=self.align_corners
        )

    def _beside(
        self, x: Float[Array, "n h w c"], low: Float[Array, "n h2 w2 c2"], name: str
    ) -> Float[Array, "n h2 w2 c3"]:
        """A map enlarged to the size of an earlier one, beside that one reduced."""
        enlarged = resize_bilinear(x, low.shape[1:3], align_corners=self.align_corners)
        low = self.layer(self.low_width, 1, name=name)(low)
        return jnp.concatenate([enlarged.astype(x.dtype), low], axis=-1)


def depth_to_space(
    x: Float[Array, "n h w c"], k: int
) -> Float[Array, "n h*{k} w*{k} c//({k}*{k})"]:
    """Spreads the channels of each position over ``k`` x ``k`` positions, row by row."""
    n, h, w, channels = x.shape
    c = channels // (k * k)
    return x.reshape(n, h, w, k, k, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h * k, w * k, c)


def _part(x: Float[Array, "n h w c"], parts: int) -> int:
    """A part of the channels of a map, at least one."""
    return max(1, x.shape[-1] // parts)
