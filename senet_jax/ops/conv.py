"""Convolution with PyTorch's symmetric padding and He initialisation."""

from typing import Any

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.errors import UsageError
from senet_jax.ops.conv_lowering import lowered
from senet_jax.ranges import MOST_WIDTH

HE_NORMAL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He et al. (arXiv 1502.01852), eq. 14: variance 2 / fan_out, not truncated."""


class Conv(nn.Conv):
    """``nn.Conv`` of feature maps that says in one sentence which channels do not fit."""

    # Wrapped as well, it would be a second call, captured as one more output of the module.
    @nn.nowrap
    def __call__(self, inputs: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        channels, groups, where = inputs.shape[-1], self.feature_group_count, "/".join(self.path)
        if channels % groups or self.features % groups:
            raise UsageError(
                f"the convolution {where} from {channels} to {self.features} channels cannot have "
                f"{groups} groups: choose a cardinality that divides both, or other widths."
            )
        if self.has_variable("params", "kernel"):
            made_for = self.get_variable("params", "kernel").shape[-2] * groups
            if channels != made_for:
                raise UsageError(
                    f"the convolution {where} was made for {made_for} channels, not {channels}: "
                    "images are (n, h, w, c), with as many channels as those that the network was "
                    "initialised with."
                )
        outputs: Array = super().__call__(inputs)
        return outputs


def conv(
    features: int,
    kernel_size: int | tuple[int, int],
    *,
    stride: int = 1,
    pad: int | None = None,
    dilation: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    kernel_init: Any = HE_NORMAL,
    dtype: Any = None,
    name: str | None = None,
) -> "Conv":
    """Builds a convolution padded by ``dilation * (kernel_size - 1) / 2`` on both sides.

    ``SAME`` pads a strided convolution on the far side only, which is another network than the
    published one; this padding is that of Caffe and PyTorch.

    Args:
        features: Output channels.
        kernel_size: Side of the kernel, or its height and width; odd.
        stride: Stride in both directions.
        pad: Padding on every side, pixels, if not the one above.
        dilation: Distance between the taps of the kernel.
        groups: Number of groups (the cardinality of ResNeXt); divides both channel counts.
        use_bias: Whether a bias is added (not where a batch norm follows).
        kernel_init: Initialiser of the kernel.
        dtype: Compute precision; parameters stay float32.
        name: Name of the submodule.

    Raises:
        UsageError: No channel, or more than any memory holds the weights of; when it is called,
            channels that the groups do not divide or the kernel was not made for.
    """
    if not 1 <= features <= MOST_WIDTH:
        raise UsageError(
            f"a convolution must have at least 1 and at most {MOST_WIDTH:,} channels, not "
            f"{features:,}: choose other widths, or another cardinality, base_width or radix."
        )
    kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    pads = [dilation * (side - 1) // 2 if pad is None else pad for side in kernel]
    return Conv(
        features,
        kernel,
        strides=(stride, stride),
        padding=[(side, side) for side in pads],
        kernel_dilation=(dilation, dilation),
        feature_group_count=groups,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=lowered,
        name=name,
    )
