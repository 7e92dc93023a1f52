"""Batch normalization with the constants of the published networks."""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from senet_jax.errors import UsageError
from senet_jax.ops import gpu_moments
from senet_jax.ops.moments import affine, sample_moments
from senet_jax.ops.target import for_gpu

MOMENTUM = 0.9
"""The share that a running average keeps of itself at each step (PyTorch's momentum 0.1)."""

Gate = Callable[[Float[Array, "n c"]], Float[Array, "n c"]]


class _Frozen(NamedTuple):
    """The settings of the batch norms of a context, see ``running_statistics``."""

    constant: bool
    epsilon: float | None


_frozen: contextvars.ContextVar[_Frozen | None] = contextvars.ContextVar("frozen", default=None)


@contextlib.contextmanager
def running_statistics(*, constant: bool = False, epsilon: float | None = None) -> Iterator[None]:
    """Lets batch norms that are called in this context normalize as in evaluation, in training too.

    Their running statistics stay as they are. It is read while a function is traced.

    Args:
        constant: Scales and biases get no gradient.
        epsilon: Added to the variances. If None, each norm adds its own.
    """
    token = _frozen.set(_Frozen(constant, epsilon))
    try:
        yield
    finally:
        _frozen.reset(token)


class BatchNorm(nn.Module):
    """Batch normalization (arXiv 1502.03167) that can rescale its output in the same pass.

    Parameters (``scale``, ``bias``) and statistics (``mean``, ``var`` in ``batch_stats``) are those
    of ``nn.BatchNorm``, all float32. The running variance is the biased one, where PyTorch keeps
    the unbiased one: this matters when a PyTorch training is continued, not when its weights are
    evaluated.
    """

    train: bool
    """Normalize with the batch's statistics and update the running ones."""
    epsilon: float = 1e-5
    """Added to the variance."""
    group: int | None = None
    """Samples, next to each other in the batch, whose statistics are taken together; None means
    the whole batch. If this is at most the batch of a device, as in the papers, the batch norm
    needs no communication between devices. The running statistics are the means over the groups."""
    dtype: DTypeLike | None = None
    """Precision of the result; None keeps that of the input. What is computed is float32."""
    scale_init: Callable[..., Any] = nn.initializers.ones_init()
    """Initializer of the scale."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n *space c"],
        gate: Gate | None = None,
        *,
        relu: bool = False,
        counts: Bool[Array, " n"] | None = None,
    ) -> Float[Array, "n *space c"]:
        """Normalizes.

        Args:
            x: Feature maps, or vectors.
            gate: Maps the mean over the pixels of the result to a factor for
                each sample and channel. That mean is known from the statistics, and the factor
                joins the scale, so that neither costs a pass over the maps.
            relu: A ReLU follows, which then is part of the result. On GPUs its gradient
                reads less here than it would apart.
            counts: False for samples that are no part of the statistics, such as padding. If None,
                all are. A group of such samples alone leaves the running statistics as they are.

        Raises:
            UsageError: In training, groups that do not divide the batch, or a single value in each
                channel of a group, whose normalized value is zero whatever it is.
        """
        channels = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
        dtype = self.dtype or x.dtype
        frozen = _frozen.get()
        if not self.train or frozen:
            epsilon = self.epsilon
            if frozen:
                epsilon = epsilon if frozen.epsilon is None else frozen.epsilon
                if frozen.constant:
                    scale, bias = lax.stop_gradient((scale, bias))
            factor = lax.rsqrt(var.value + epsilon) * scale
            y = (x - mean.value) * factor + bias
            if gate is not None:
                pixels = tuple(range(1, y.ndim - 1))
                y *= jnp.expand_dims(gate(y.mean(pixels)), pixels)
            y = y.astype(dtype)
            return nn.relu(y) if relu else y

        groups = self._groups(x)

        def factor_of(var: Array) -> Array:
            return lax.rsqrt(var + self.epsilon) * scale

        if counts is None and for_gpu():
            form = functools.partial(_by_group, shift=mean.value)
        else:
            form = functools.partial(_by_sample, counts=counts)
        y, group_mean, group_var = form(x, groups, factor_of, bias, gate, relu, dtype)
        if not self.is_initializing():
            for running, batch in ((mean, group_mean), (var, group_var)):
                if counts is not None:
                    there = counts.reshape(groups, -1, 1).any(1, keepdims=True)
                    batch = jnp.where(there, batch, running.value)
                running.value = MOMENTUM * running.value + (1 - MOMENTUM) * batch.mean((0, 1))
        return y

    def _groups(self, x: Float[Array, "n *space c"]) -> int:
        """Returns the number of groups of samples, after a check that they divide the batch."""
        n, pixels = x.shape[0], math.prod(x.shape[1:-1])
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
        return n // size


def _by_sample(
    x: Float[Array, "n *space c"],
    groups: int,
    factor_of: Callable[[Array], Array],
    bias: Float[Array, " c"],
    gate: Gate | None,
    relu: bool,
    dtype: DTypeLike,
    *,
    counts: Bool[Array, " n"] | None = None,
) -> tuple[Float[Array, "n *space c"], Float[Array, "groups 1 c"], Float[Array, "groups 1 c"]]:
    """The normalized maps, and mean and variance of each group, in the form for CPUs.

    Its sums are of each sample.

    Args:
        x: Feature maps, or vectors.
        groups: Number of groups, each of as many samples.
        factor_of: Maps variances to the factors of the normalized maps.
        bias: Added to each channel.
        gate: See ``BatchNorm.__call__``.
        relu: Apply a ReLU to the result.
        dtype: Precision of the result.
        counts: See ``BatchNorm.__call__``.
    """
    sample_mean, sample_var = sample_moments(x)
    means, variances = (
        each.reshape(groups, -1, each.shape[-1]) for each in (sample_mean, sample_var)
    )

    def average(each: Float[Array, "groups size c"]) -> Float[Array, "groups 1 c"]:
        if counts is None:
            return each.mean(axis=1, keepdims=True)
        which = counts.reshape(groups, -1, 1)
        count = jnp.maximum(which.sum(axis=1, keepdims=True), 1)
        return jnp.where(which, each, 0).sum(axis=1, keepdims=True) / count

    mean = average(means)
    var = average(variances + jnp.square(means - mean))

    def of_samples(each: Float[Array, "groups 1 c"]) -> Float[Array, "n c"]:
        return jnp.repeat(each, x.shape[0] // groups, axis=1).reshape(sample_mean.shape)

    centre, factor = of_samples(mean), of_samples(factor_of(var))
    offset = jnp.broadcast_to(bias, factor.shape)
    if gate is not None:
        gates = gate((sample_mean - centre) * factor + bias)
        factor, offset = factor * gates, offset * gates
    y = affine(x, centre, factor, offset).astype(dtype)
    return nn.relu(y) if relu else y, mean, var


def _by_group(
    x: Float[Array, "n *space c"],
    groups: int,
    factor_of: Callable[[Array], Array],
    bias: Float[Array, " c"],
    gate: Gate | None,
    relu: bool,
    dtype: DTypeLike,
    *,
    shift: Float[Array, " c"],
) -> tuple[Float[Array, "n *space c"], Float[Array, "groups 1 c"], Float[Array, "groups 1 c"]]:
    """As :func:`_by_sample`, in the form for GPUs: its sums are of each group.

    Args:
        x: Feature maps, or vectors.
        groups: Number of groups, each of as many samples.
        factor_of: Maps variances to the factors of the normalized maps.
        bias: Added to each channel.
        gate: See ``BatchNorm.__call__``.
        relu: Apply a ReLU to the result.
        dtype: Precision of the result.
        shift: The running mean. The sums are of the distances to it, so that a mean far above the
            deviation costs no accuracy once the running mean is near it. Every device of a mesh
            has the running mean; it has no pixel of the other devices.
    """
    pixels = math.prod(x.shape[1:-1])
    shift = lax.stop_gradient(shift)
    total, squares, totals = gpu_moments.shifted_sums(x, shift, groups, gate is not None)
    count = pixels * x.shape[0] // groups
    from_shift = total / count
    var = jnp.maximum(squares / count - jnp.square(from_shift), 0)
    mean, factor = shift + from_shift, factor_of(var)
    offset = jnp.broadcast_to(bias, factor.shape)
    gates = None
    if gate is not None:
        assert totals is not None
        means = totals / pixels
        gates = gate(
            gpu_moments.affine(means, from_shift, factor, offset, None, False, means.dtype)
        )
    y = gpu_moments.affine(x, mean, factor, offset, gates, relu, dtype)
    return y, mean[:, None], var[:, None]
