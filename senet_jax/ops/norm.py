"""Batch normalisation with the constants of the published networks."""

from typing import Any

from flax import linen as nn


def batch_norm(
    train: bool,
    *,
    zero_scale: bool = False,
    epsilon: float = 1e-5,
    dtype: Any = None,
    name: str | None = None,
) -> nn.BatchNorm:
    """Builds a batch norm whose running average keeps 0.9 of itself (PyTorch's momentum 0.1).

    Statistics are float32 and, under ``jax.jit`` over a mesh, those of the global batch. The
    running variance is the biased one, where PyTorch keeps the unbiased one: this matters when a
    PyTorch training is continued, not when its weights are evaluated.

    Args:
        train: Normalise with the batch's statistics and update the running ones.
        zero_scale: Start the scale at zero, which makes a residual block the identity at first
            (Goyal et al., arXiv 1706.02677, section 5.1).
        epsilon: Added to the variance.
        dtype: Compute precision; statistics, scale and bias stay float32.
        name: Name of the submodule.
    """
    init = nn.initializers.zeros_init() if zero_scale else nn.initializers.ones_init()
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=epsilon,
        dtype=dtype,
        scale_init=init,
        name=name,
    )
