"""Batch normalisation with the constants of the published networks."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from senet_jax.errors import UsageError
from senet_jax.ops.moments import affine, sample_moments

MOMENTUM = 0.9
"""What a running average keeps of itself at each step (PyTorch's momentum 0.1)."""


class BatchNorm(nn.Module):
    """Batch normalisation (arXiv 1502.03167) that can rescale its output in the same pass.

    Parameters (``scale``, ``bias``) and statistics (``mean``, ``var`` in ``batch_stats``) are those
    of ``nn.BatchNorm``, all float32. The running variance is the biased one, where PyTorch keeps
    the unbiased one: this matters when a PyTorch training is continued, not when its weights are
    evaluated.
    """

    train: bool
    """Normalise with the batch's statistics and update the running ones."""
    epsilon: float = 1e-5
    """Added to the variance."""
    group: int | None = None
    """Samples, next to each other in the batch, whose statistics are taken together; None means
    the whole batch. With the samples of one device (or a part of them) no device waits for another,
    as in the papers. The running statistics are the means over the groups."""
    dtype: Any = None
    """Precision of the result; None keeps that of the input. What is computed is float32."""
    scale_init: Callable[..., Any] = nn.initializers.ones_init()
    """Initialiser of the scale."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n *space c"],
        gate: Callable[[Float[Array, "n c"]], Float[Array, "n c"]] | None = None,
    ) -> Float[Array, "n *space c"]:
        """Normalises.

        Args:
            x: Feature maps, or vectors.
            gate: In training only: maps the mean over the pixels of the result to a factor for
                each sample and channel. That mean is known from the statistics, and the factor
                joins the scale, so that neither costs a pass over the maps.

        Raises:
            UsageError: In training, groups that do not divide the batch, or a single value in each
                channel of a group, whose normalised value is zero whatever it is.
        """
        channels = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
        dtype = self.dtype or x.dtype
        if not self.train:
            factor = lax.rsqrt(var.value + self.epsilon) * scale
            return ((x - mean.value) * factor + bias).astype(dtype)

        sample_mean, sample_var = sample_moments(x)
        group_mean, group_var = self._join(sample_mean, sample_var, math.prod(x.shape[1:-1]))
        if not self.is_initializing():
            for running, batch in ((mean, group_mean), (var, group_var)):
                running.value = MOMENTUM * running.value + (1 - MOMENTUM) * batch.mean((0, 1))

        def of_samples(each: Float[Array, "groups 1 c"]) -> Float[Array, "n c"]:
            return jnp.repeat(each, x.shape[0] // len(each), axis=1).reshape(sample_mean.shape)

        centre = of_samples(group_mean)
        factor = of_samples(lax.rsqrt(group_var + self.epsilon) * scale)
        offset = jnp.broadcast_to(bias, factor.shape)
        if gate is not None:
            gates = gate((sample_mean - centre) * factor + bias)
            factor, offset = factor * gates, offset * gates
        return affine(x, centre, factor, offset).astype(dtype)

    def _join(
        self, mean: Float[Array, "n c"], var: Float[Array, "n c"], pixels: int
    ) -> tuple[Float[Array, "groups 1 c"], Float[Array, "groups 1 c"]]:
        """Means and variances of the groups from those of their samples, each of ``pixels``."""
        n, channels = mean.shape
        size = self.group or n
        if n % size:
            raise UsageError(
                f"a batch of {n} cannot be divided into groups of {size} for batch norm: choose a "
                "batch that is a multiple of norm_group, or another norm_group."
            )
        if size * pixels == 1 and not self.is_initializing():
            # PyTorch's "Expected more than 1 value per channel when training".
            raise UsageError(
                f"the batch norm {'/'.join(self.path) or BatchNorm.__name__} needs more than one "
                "value in each channel in training, and has one image of one pixel: use a larger "
                "batch, part of a batch (accumulate) or norm_group, or larger images."
            )
        mean, var = (each.reshape(n // size, size, channels) for each in (mean, var))
        joined = mean.mean(axis=1, keepdims=True)
        return joined, (var + jnp.square(mean - joined)).mean(axis=1, keepdims=True)


def batch_norm(
    train: bool,
    *,
    zero_scale: bool = False,
    epsilon: float = 1e-5,
    group: int | None = None,
    dtype: Any = None,
    name: str | None = None,
) -> BatchNorm:
    """Builds a batch norm; under ``jax.jit`` over a mesh the batch is the global one.

    Args:
        train: See ``BatchNorm.train``.
        zero_scale: Start the scale at zero, which makes a residual block the identity at first
            (Goyal et al., arXiv 1706.02677, section 5.1).
        epsilon: See ``BatchNorm.epsilon``.
        group: See ``BatchNorm.group``.
        dtype: See ``BatchNorm.dtype``.
        name: Name of the submodule.
    """
    init = nn.initializers.zeros_init() if zero_scale else nn.initializers.ones_init()
    return BatchNorm(train, epsilon, group, dtype, init, name=name)
