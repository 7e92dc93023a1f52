"""A batch norm and the attention after it, which training computes in one pass over the maps."""

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention.base import Attention, Mechanism, apply_attention
from senet_jax.ops.compute import Compute
from senet_jax.ops.drop import Rate, norm_and_drop
from senet_jax.ops.norm import BatchNorm


def norm_with_attention(
    norm: BatchNorm,
    attention: Mechanism | None,
    x: Float[Array, "n h w c"],
    compute: Compute,
    *,
    drop_rate: Rate | None = None,
    relu: bool = False,
    fused: bool = True,
) -> Float[Array, "n h w c"]:
    """Applies a batch norm, DropBlock, an attention that rescales, and a ReLU, one after the other.

    Called inside a compact method. In training, a gate that depends on nothing but the mean of each
    channel is known before the maps are normalized, because the statistics give these means. The
    batch norm then multiplies its own scale by the gate, so that the attention costs no pass over
    the maps. The result is the same up to rounding.

    Args:
        norm: The batch norm.
        attention: The attention, if there is one.
        x: Feature maps.
        compute: As in ``Attention.build``.
        drop_rate: Rate of DropBlock; if None, nothing is dropped.
        relu: Apply the ReLU.
        fused: Join the two in training where that is possible.
    """
    if not isinstance(attention, Attention):
        return norm_and_drop(norm, x, drop_rate, relu=relu)
    if fused and compute.train and drop_rate is None and attention.needs_only_mean:
        return norm(x, attention.build(compute).excite, relu=relu)
    # The plain reading.
    x = norm_and_drop(norm, x, drop_rate)
    x = apply_attention(attention, x, compute)
    return nn.relu(x) if relu else x
