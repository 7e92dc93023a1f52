"""The mode, the precision and the norms in which the layers of a network compute."""

import dataclasses

from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from senet_jax.errors import UsageError
from senet_jax.ops.conv import HE_NORMAL, Conv
from senet_jax.ops.conv_lowering import lowered
from senet_jax.ops.norm import BatchNorm
from senet_jax.ranges import MOST_WIDTH


@dataclasses.dataclass(frozen=True)
class Compute:
    """The mode, the precision and the groups of norms of all layers of a network; it builds them.

    The layers become submodules of the module in whose compact method they are built.
    """

    train: bool
    """Normalize by the statistics of the batch, and drop units."""
    dtype: DTypeLike | None = None
    """Precision of the layers; if None, that of their inputs and parameters. Parameters and
    statistics stay float32."""
    norm_group: int | None = None
    """See ``BatchNorm.group``."""

    def within(self, dtype: DTypeLike) -> "Compute":
        """The same in another precision."""
        return dataclasses.replace(self, dtype=dtype)

    def cast(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns ``x`` in the precision of the layers; if that is None, as it is."""
        return x.astype(self.dtype or x.dtype)

    def conv(
        self,
        features: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        pad: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        use_bias: bool = False,
        kernel_init: Initializer = HE_NORMAL,
        name: str | None = None,
    ) -> Conv:
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
            use_bias: Add a bias (not before a batch norm).
            kernel_init: Initializer of the kernel.
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
            dtype=self.dtype,
            kernel_init=kernel_init,
            conv_general_dilated=lowered,
            name=name,
        )

    def norm(
        self, name: str | None = None, *, zero_scale: bool = False, epsilon: float = 1e-5
    ) -> BatchNorm:
        """Builds a batch norm; under ``jax.jit`` over a mesh the batch is the global one.

        Args:
            name: Name of the submodule.
            zero_scale: Start the scale at zero, which makes a residual block the identity at first
                (Goyal et al., arXiv 1706.02677, section 5.1).
            epsilon: See ``BatchNorm.epsilon``.
        """
        init = nn.initializers.zeros_init() if zero_scale else nn.initializers.ones_init()
        return BatchNorm(self.train, epsilon, self.norm_group, self.dtype, init, name=name)


EVALUATION = Compute(train=False)
"""Evaluation in the precision of the input."""
