"""The convolutional block attention module (CBAM, arXiv 1807.06521, section 3)."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention.base import Attention, Gated
from senet_jax.attention.gates import GATES
from senet_jax.attention.mlp import mlp, reduced_width
from senet_jax.attention.squeeze import squeeze_avg, squeeze_max
from senet_jax.errors import choose
from senet_jax.fields.attention import CBAMFields
from senet_jax.ops.compute import Compute
from senet_jax.ops.moments import scale
from senet_jax.ops.precision import accurate


@dataclasses.dataclass(frozen=True)
class CBAMConfig(CBAMFields, Attention):
    """Description of a CBAM: attention to channels, then to pixels.

    The defaults are those of the authors' code.

    Raises:
        UsageError: An unknown gate, or a number out of range.
    """

    name: ClassVar[str] = "cbam"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("gate", self.gate, GATES)

    def build(self, compute: Compute) -> "CBAM":
        return CBAM(self, compute, name=self.name)


class CBAM(Gated):
    """Rescales every channel by a gate of its own, then every pixel by one.

    The parameters are ``reduce`` and ``expand``, which mean and maximum over the pixels share
    (eq. 2), and ``spatial`` with its ``spatial_bn``, from mean and maximum over the channels
    (eq. 3), in this order. The gates of the channels are sown as the intermediate ``gate``, those
    of the pixels (n, h, w, 1) as ``spatial_gate``.
    """

    config: CBAMConfig
    """The fields of the mechanism."""
    compute: Compute
    """Precision of the products with ``x``, and how the batch norm works. The gates are float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        config, exact = self.config, accurate(x.dtype)
        gating = GATES[config.gate]
        squeezed = jnp.stack([squeeze_avg(x), squeeze_max(x)])
        width = reduced_width(x.shape[-1], config.reduction)
        gate = gating(mlp(squeezed, width, bias=config.bias).sum(axis=0))
        gate = jnp.squeeze(self.expose_gate(gate[:, None, None, :]), (1, 2))
        x = scale(self.compute.cast(x), gate)

        maps = [x.mean(axis=-1, dtype=exact), x.max(axis=-1).astype(exact)]
        compute = self.compute.within(exact)
        logits = compute.conv(1, config.kernel_size, name="spatial")(jnp.stack(maps, axis=-1))
        if config.norm:
            logits = compute.norm("spatial_bn", zero_scale=True)(logits)
        spatial_gate = self.expose_gate(gating(logits), "spatial_gate")
        return x * spatial_gate.astype(x.dtype)
