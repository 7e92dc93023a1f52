"""The feature pyramid (FPN, arXiv 1612.03144): maps of several strides, of the same channels."""

from collections.abc import Mapping

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.models.detection.layers import HE_UNIFORM, ConvLayer
from senet_jax.ops.compute import Compute
from senet_jax.ops.resize import resize_nearest

Level = Float[Array, "n _ _ c"]


class FeaturePyramid(nn.Module):
    """Adds the enlarged map of each coarser level to a 1x1 convolution of a backbone's map.

    A 3x3 convolution follows. The coarsest level has every second pixel of the one before.
    """

    compute: Compute
    """Precision and norms of its layers."""
    width: int
    """See ``DetectorFields.pyramid_width``."""
    norm: bool
    """See ``DetectorFields.pyramid_norm``."""

    @nn.compact
    def __call__(self, maps: Mapping[int, Float[Array, "n _ _ _"]]) -> list[Level]:
        """Makes the levels, from the finest.

        Args:
            maps: Maps of the backbone by stage, the finest first.

        Returns:
            A level for each stage, and the coarsest.
        """

        def layer(kernel_size: int, name: str) -> ConvLayer:
            return ConvLayer(
                compute=self.compute,
                width=self.width,
                norm=self.norm,
                kernel_size=kernel_size,
                relu=False,
                kernel_init=HE_UNIFORM,
                name=name,
            )

        levels: list[Level] = []
        above: Level | None = None
        for stage in reversed(list(maps)):
            x = layer(1, f"inner{stage}")(maps[stage])
            if above is not None:
                x = x + resize_nearest(above, x.shape[1:3])
            above = x
            levels.insert(0, layer(3, f"layer{stage}")(x))
        return [*levels, levels[-1][:, ::2, ::2]]
