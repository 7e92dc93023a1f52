"""Convolution that checks its channels, and its initialization."""

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.errors import UsageError

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
                    "initialized with."
                )
        outputs: Array = super().__call__(inputs)
        return outputs
