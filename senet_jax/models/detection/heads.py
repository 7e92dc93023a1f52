"""Heads of detectors: from the pooled features of RoIs to classes, boxes and masks."""

from flax import linen as nn
from jaxtyping import Array, Bool, Float

from senet_jax.fields.detectors import Project
from senet_jax.models.detection.layers import (
    HE_UNIFORM,
    LINEAR,
    ConvLayer,
    Doubling,
    MapDense,
    output_dense,
)
from senet_jax.ops.compute import Compute
from senet_jax.ops.conv import HE_NORMAL
from senet_jax.ops.precision import accurate


class BoxHead(nn.Module, kw_only=True):
    """Convolutions, if there are any, and dense layers: a vector for each RoI."""

    compute: Compute
    """Precision and norms of its layers."""
    convs: int
    """See ``DetectorFields.box_convs``."""
    conv_width: int
    """Channels of the convolutions."""
    norm: bool
    """See ``DetectorFields.box_norm``."""
    denses: int
    """See ``DetectorFields.box_denses``."""
    width: int
    """See ``DetectorFields.box_width``."""
    start: Project
    """See ``DetectorFields.head_init``."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "k p q c"], counts: Bool[Array, " k"]
    ) -> Float[Array, "k c2"]:
        """Applies the head.

        Args:
            x: Features of the RoIs.
            counts: False for RoIs that are padding.
        """
        for index in range(1, self.convs + 1):
            layer = ConvLayer(
                compute=self.compute,
                width=self.conv_width,
                norm=self.norm,
                name=f"conv{index}",
            )
            x = layer(x, counts)
        init = LINEAR if self.start == "torchvision" else HE_UNIFORM
        x = nn.relu(MapDense(self.width, self.compute.dtype, init, name="dense1")(x))
        for index in range(2, self.denses + 1):
            dense = nn.Dense(
                self.width, kernel_init=init, dtype=self.compute.dtype, name=f"dense{index}"
            )
            x = nn.relu(dense(x))
        return x


class BoxPredictor(nn.Module, kw_only=True):
    """Logits of the classes and deltas of boxes, at least in float32."""

    num_classes: int
    """Classes, with the background."""
    boxes: int
    """Boxes of a RoI."""
    start: Project
    """See ``DetectorFields.head_init``."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "k c"]
    ) -> tuple[Float[Array, "k classes"], Float[Array, "k boxes 4"]]:
        scores, boxes = LINEAR, LINEAR
        if self.start == "detectron2":
            scores, boxes = nn.initializers.normal(0.01), nn.initializers.normal(0.001)
        x = x.astype(accurate(x.dtype))
        logits = output_dense(self.num_classes, scores, x.dtype, "cls_score")(x)
        deltas = output_dense(4 * self.boxes, boxes, x.dtype, "bbox_pred")(x)
        return logits, deltas.reshape(len(x), self.boxes, 4)


class MaskHead(nn.Module, kw_only=True):
    """Convolutions, a doubling of the sides, and a logit of each pixel and class."""

    compute: Compute
    """Precision and norms of its layers; the logits are at least in float32."""
    convs: int
    """See ``MaskRCNNFields.mask_convs``."""
    width: int
    """See ``MaskRCNNFields.mask_width``."""
    norm: bool
    """See ``MaskRCNNFields.mask_norm``."""
    outputs: int
    """Masks of a RoI."""
    start: Project
    """See ``DetectorFields.head_init``."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "k p q c"], counts: Bool[Array, " k"]
    ) -> Float[Array, "k p2 q2 masks"]:
        """Applies the head.

        Args:
            x: Features of the RoIs.
            counts: False for RoIs that are padding.
        """
        for index in range(1, self.convs + 1):
            layer = ConvLayer(
                compute=self.compute, width=self.width, norm=self.norm, name=f"conv{index}"
            )
            x = layer(x, counts)
        x = nn.relu(Doubling(self.width, self.compute.dtype, name="deconv")(x))
        x = x.astype(accurate(x.dtype))
        init = HE_NORMAL if self.start == "torchvision" else nn.initializers.normal(0.001)
        logits = self.compute.within(x.dtype).conv(
            self.outputs, 1, use_bias=True, kernel_init=init, name="logits"
        )
        return logits(x)
