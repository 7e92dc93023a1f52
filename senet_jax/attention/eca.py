"""Efficient Channel Attention (ECA-Net, arXiv 1910.03151)."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention.base import Attention, Gated
from senet_jax.attention.gates import GATES
from senet_jax.attention.squeeze import SQUEEZES
from senet_jax.errors import choose
from senet_jax.fields.attention import ECAFields
from senet_jax.ops.compute import EVALUATION, Compute
from senet_jax.ops.moments import scale
from senet_jax.ops.precision import accurate


@dataclasses.dataclass(frozen=True)
class ECAConfig(ECAFields, Attention):
    """Description of an ECA block: each channel's gate comes from its neighbours alone.

    Raises:
        UsageError: An unknown squeeze or gate, or a kernel size that is even or out of range.
    """

    name: ClassVar[str] = "eca"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("squeeze", self.squeeze, SQUEEZES)
        choose("gate", self.gate, GATES)

    def kernel(self, channels: int) -> int:
        """Kernel size for a tensor of ``channels`` channels: (log2 c + 1) / 2 made odd, 3 or more.

        "Nearest odd" is, as in the released code, the integer part and one more where it is even.

        Example:
            >>> [ECAConfig().kernel(channels) for channels in (64, 256, 2048)]
            [3, 5, 7]
        """
        if self.kernel_size is not None:
            return self.kernel_size
        size = int((math.log2(channels) + 1) / 2)
        return max(size | 1, 3)

    @property
    def needs_only_mean(self) -> bool:
        return self.squeeze == "avg"

    def build(self, compute: Compute = EVALUATION) -> "ECA":
        return ECA(self, compute, name=self.name)


class ECA(Gated):
    """Rescales every channel by a gate computed from its neighbours in channel order.

    The parameter is ``conv``, a one-dimensional kernel (k, 1, 1) over the squeezed channels; the
    gate is sown as the intermediate ``gate``.
    """

    config: ECAConfig
    """The fields of the mechanism."""
    compute: Compute
    """Precision of the product with ``x``. The gate is float32."""

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        gate = self.excite(SQUEEZES[self.config.squeeze](x))
        return scale(self.compute.cast(x), gate)

    @nn.compact
    def excite(self, squeezed: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """The gate from the squeezed channels."""
        size = self.config.kernel(squeezed.shape[-1])
        dtype = accurate(squeezed.dtype)
        conv = nn.Conv(1, (size,), padding=size // 2, use_bias=False, dtype=dtype, name="conv")
        gate = jnp.squeeze(GATES[self.config.gate](conv(squeezed[..., None])), -1)
        return jnp.squeeze(self.expose_gate(gate[:, None, None, :]), (1, 2))
