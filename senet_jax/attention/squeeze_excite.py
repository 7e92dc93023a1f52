"""Squeeze-and-Excitation (SENet, arXiv 1709.01507, section 3) with every part of it a choice."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention.base import Attention, Gated
from senet_jax.attention.gates import ACTIVATIONS, GATES
from senet_jax.attention.mlp import mlp, reduced_width
from senet_jax.attention.squeeze import SQUEEZES
from senet_jax.errors import choose
from senet_jax.fields.attention import SqueezeExciteFields
from senet_jax.ops.compute import EVALUATION, Compute
from senet_jax.ops.moments import scale
from senet_jax.ops.precision import accurate

NO_SQUEEZE = "none"


@dataclasses.dataclass(frozen=True)
class SqueezeExciteConfig(SqueezeExciteFields, Attention):
    """Description of a Squeeze-and-Excitation block.

    The defaults are those of the paper's Table 2: mean, sigmoid, r = 16, with biases. The
    ablations of its Tables 10 to 16 drop the biases (``bias=False``).

    Raises:
        UsageError: An unknown squeeze, gate or activation, or a number out of range.
    """

    name: ClassVar[str] = "se"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("squeeze", self.squeeze, [*SQUEEZES, NO_SQUEEZE])
        choose("gate", self.gate, GATES)
        choose("activation", self.activation, ACTIVATIONS)

    @property
    def needs_only_mean(self) -> bool:
        return self.squeeze == "avg"

    def hidden_width(self, channels: int) -> int:
        """Width of the hidden layer for a tensor of ``channels`` channels.

        Raises:
            UsageError: The reduction is larger than the channels, so that nothing would be left.

        Example:
            >>> SqueezeExciteConfig(reduction=16).hidden_width(256)
            16
            >>> SqueezeExciteConfig(reduction=16, divisor=8).hidden_width(64)
            8
        """
        if self.width is not None:
            return self.width
        if self.divisor > 1:
            nearest = int(channels / self.reduction + self.divisor / 2)
            return max(self.divisor, nearest // self.divisor * self.divisor)
        return reduced_width(channels, self.reduction)

    def build(self, compute: Compute = EVALUATION) -> "SqueezeExcite":
        return SqueezeExcite(self, compute, name=self.name)


class SqueezeExcite(Gated):
    """Rescales every channel by a gate computed from all channels.

    ``y = x * gate(W2 activation(W1 squeeze(x)))``, eqs. 2 to 4 of the paper. The parameters are
    ``reduce`` (W1) and ``expand`` (W2); the gate is sown as the intermediate ``gate``.
    """

    config: SqueezeExciteConfig
    """The fields of the mechanism."""
    compute: Compute
    """Precision of the product with ``x``. Squeeze and excitation are float32 always."""

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        y = self.compute.cast(x)
        if self.config.squeeze == NO_SQUEEZE:
            return y * self.excite(x.astype(accurate(x.dtype))).astype(y.dtype)
        return scale(y, self.excite(SQUEEZES[self.config.squeeze](x)))

    @nn.compact
    def excite(self, squeezed: Float[Array, "n *space c"]) -> Float[Array, "n *space c"]:
        """The gate from what was squeezed."""
        config = self.config
        width = config.hidden_width(squeezed.shape[-1])
        activation = ACTIVATIONS[config.activation]
        gate = GATES[config.gate](mlp(squeezed, width, bias=config.bias, activation=activation))
        if gate.ndim == 4:
            return self.expose_gate(gate)
        return jnp.squeeze(self.expose_gate(gate[:, None, None, :]), (1, 2))
