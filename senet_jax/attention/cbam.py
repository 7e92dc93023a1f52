"""The convolutional block attention module (CBAM, arXiv 1807.06521, section 3)."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention.base import Attention, Gated
from senet_jax.attention.gates import GATES
from senet_jax.attention.mlp import mlp, reduced_width
from senet_jax.attention.squeeze import squeeze_avg, squeeze_max
from senet_jax.errors import choose
from senet_jax.fields.attention import CBAMFields
from senet_jax.ops.conv import conv
from senet_jax.ops.moments import scale
from senet_jax.ops.norm import batch_norm
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

    def build(self, *, train: bool, norm_group: int | None = None, dtype: Any = None) -> "CBAM":
        return CBAM(self, train, norm_group, dtype, name=self.name)


class CBAM(Gated):
    """Rescales every channel by a gate of its own, then every pixel by one.

    The parameters are ``reduce`` and ``expand``, which mean and maximum over the pixels share
    (eq. 2), and ``spatial`` with its ``spatial_bn``, from mean and maximum over the channels
    (eq. 3), in this order. The gates of the channels are sown as the intermediate ``gate``, those
    of the pixels (n, h, w, 1) as ``spatial_gate``.
    """

    config: CBAMConfig
    """What is computed."""
    train: bool
    """Whether the batch norm takes the batch's statistics."""
    norm_group: int | None = None
    """Samples whose statistics the batch norm takes together; None means all."""
    dtype: Any = None
    """Precision of the products with ``x``; None keeps that of ``x``. The gates are float32."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        config, exact = self.config, accurate(x.dtype)
        gating = GATES[config.gate]
        squeezed = jnp.stack([squeeze_avg(x), squeeze_max(x)])
        width = reduced_width(x.shape[-1], config.reduction)
        gate = gating(mlp(squeezed, width, bias=config.bias).sum(axis=0))
        gate = jnp.squeeze(self.gated(gate[:, None, None, :]), (1, 2))
        x = scale(x.astype(self.dtype or x.dtype), gate)

        maps = [x.mean(axis=-1, dtype=exact), x.max(axis=-1).astype(exact)]
        logits = conv(1, config.kernel_size, dtype=exact, name="spatial")(jnp.stack(maps, axis=-1))
        if config.norm:
            logits = batch_norm(
                self.train, zero_scale=True, group=self.norm_group, dtype=exact, name="spatial_bn"
            )(logits)
        spatial_gate = gating(logits)
        spatial_gate = self.gated(spatial_gate, "spatial_gate")
        return x * spatial_gate.astype(x.dtype)
