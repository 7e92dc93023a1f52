"""Gather-excite (GENet, arXiv 1810.12348), of which Squeeze-and-Excitation is a case."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention.base import Attention, Gated
from senet_jax.attention.gates import GATES
from senet_jax.attention.mlp import mlp, reduced_width
from senet_jax.attention.squeeze import squeeze_avg
from senet_jax.errors import UsageError, choose
from senet_jax.fields.attention import GatherExciteFields
from senet_jax.ops.compute import Compute
from senet_jax.ops.moments import scale
from senet_jax.ops.pooling import avg_pool
from senet_jax.ops.precision import accurate

EXTENTS = {0: 1, 2: 1, 4: 2, 8: 3}
"""The extent ratios and how many convolutions, each of stride 2, gather over them; 0 is the whole
map, with a single one."""


@dataclasses.dataclass(frozen=True)
class GatherExciteConfig(GatherExciteFields, Attention):
    """Description of a gather-excite pair.

    In the paper's names, ``gather="avg"`` is GE-theta-minus, ``gather="conv"`` GE-theta, and
    ``gather="conv", mlp=True`` GE-theta-plus. ``mlp=True`` alone is Squeeze-and-Excitation.

    Raises:
        UsageError: An unknown extent, gather or gate, or a reduction out of range.
    """

    name: ClassVar[str] = "ge"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("gate", self.gate, GATES)

    @property
    def needs_only_mean(self) -> bool:
        return self.gather == "avg" and self.extent == 0

    def build(self, compute: Compute) -> "GatherExcite":
        return GatherExcite(self, compute, name=self.name)


class GatherExcite(Gated):
    """Rescales a map by what was gathered around each of its pixels, in each channel.

    ``y = x * interp(gate(mlp(gather(x))))``, where the nearest pixel is taken for interp (sections
    2 and 3). The parameters are ``conv1``, ``bn1``, ... of the gather and ``reduce`` and ``expand``
    of the layers, as far as there are any; the gate (n, h2, w2, c), of the size of what was
    gathered, is sown as the intermediate ``gate``.

    Raises:
        UsageError: A convolution over the whole map, and a map of another size than at first.
    """

    config: GatherExciteConfig
    """The fields of the mechanism."""
    compute: Compute
    """Precision of the product with ``x``, and how the batch norms work. What comes before the
    product, gathering at full resolution as well, is float32."""

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        y = self.compute.cast(x)
        gate = self.excite(squeeze_avg(x) if self.config.needs_only_mean else x)
        if gate.ndim == 2:
            return scale(y, gate)
        return y * nearest(gate, *x.shape[1:3]).astype(y.dtype)

    @nn.compact
    def excite(self, x: Float[Array, "n *space c"]) -> Float[Array, "n *space2 c"]:
        """The gate from the map, or from its means if it needs nothing else."""
        config = self.config
        x = x.astype(accurate(x.dtype))
        if config.gather == "conv":
            x = self._convolve(x)
        elif config.extent:
            x = avg_pool(
                x, 2 * config.extent - 1, config.extent, pad=config.extent - 1, count_pad=False
            )
        if config.mlp:
            x = mlp(x, reduced_width(x.shape[-1], config.reduction), bias=config.bias)
        gate = GATES[config.gate](x)
        if gate.ndim == 4:
            return self.expose_gate(gate)
        return jnp.squeeze(self.expose_gate(gate[:, None, None, :]), (1, 2))

    def _convolve(self, x: Float[Array, "n h w c"]) -> Float[Array, "n *space c"]:
        config, channels = self.config, x.shape[-1]
        compute, count = self.compute.within(x.dtype), EXTENTS[config.extent]
        for index in range(1, count + 1):
            name = f"conv{index}"
            x = (
                compute.conv(channels, 3, stride=2, groups=channels, name=name)(x)
                if config.extent
                else _WholeMap(name=name)(x)
            )
            x = compute.norm(f"bn{index}")(x, relu=index < count or config.mlp)
        return x


class _WholeMap(nn.Module):
    """A depthwise convolution with a kernel as large as the map, which leaves a single pixel."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
        shape = (*x.shape[1:3], 1, x.shape[-1])
        if self.has_variable("params", "kernel"):
            made_for: tuple[int, ...] = self.get_variable("params", "kernel").shape
            if made_for[:2] != shape[:2]:
                raise UsageError(
                    f"a gather over the whole map by convolution was made for maps of "
                    f"{made_for[0]}x{made_for[1]} pixels, not {shape[0]}x{shape[1]}: give the "
                    "network images of the size that it was made for, or use an extent of 2, 4 or "
                    "8."
                )
        # As many products are summed as the map has pixels.
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        kernel = self.param("kernel", init, shape, jnp.float32)
        return jnp.einsum("nhwc,hwc->nc", x, kernel[:, :, 0])


def nearest(x: Float[Array, "n h w c"], height: int, width: int) -> Array:
    """Enlarges maps: pixel i of k is a copy of the pixel floor(i s / k) of s (PyTorch's rule)."""
    for axis, size in ((1, height), (2, width)):
        small = x.shape[axis]
        if size % small == 0:
            x = jnp.repeat(x, size // small, axis=axis)
            continue
        # An indexing would have a scatter for its gradient.
        copies = np.bincount(np.arange(size) * small // size)
        pixels = zip(jnp.split(x, small, axis=axis), copies, strict=True)
        x = jnp.concatenate([jnp.repeat(each, int(n), axis=axis) for each, n in pixels], axis=axis)
    return x
