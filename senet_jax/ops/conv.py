"""Convolution with PyTorch's symmetric padding and He initialisation."""

from typing import Any

from flax import linen as nn

from senet_jax.ops.conv_lowering import lowered

HE_NORMAL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He et al. (arXiv 1502.01852), eq. 14: variance 2 / fan_out, not truncated."""


def conv(
    features: int,
    kernel_size: int | tuple[int, int],
    *,
    stride: int = 1,
    pad: int | None = None,
    dilation: int = 1,
    groups: int = 1,
    use_bias: bool = False,
    dtype: Any = None,
    name: str | None = None,
) -> nn.Conv:
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
        dtype: Compute precision; parameters stay float32.
        name: Name of the submodule.
    """
    kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    pads = [dilation * (side - 1) // 2 if pad is None else pad for side in kernel]
    return nn.Conv(
        features,
        kernel,
        strides=(stride, stride),
        padding=[(side, side) for side in pads],
        kernel_dilation=(dilation, dilation),
        feature_group_count=groups,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=HE_NORMAL,
        conv_general_dilated=lowered,
        name=name,
    )
