"""Dropout of more than single numbers: blocks of pixels and residual branches.

The modules draw from the random key collection "dropout", as ``nn.Dropout`` does.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from senet_jax.ops.norm import BatchNorm
from senet_jax.ops.precision import accurate

Rate = float | Float[Array, ""]
"""A probability; an array can change from step to step without a new compilation."""


def drop_block(
    key: PRNGKeyArray, x: Float[Array, "n h w c"], rate: Rate
) -> Float[Array, "n h w c"]:
    """Zeroes blocks of 3x3 pixels in all channels and rescales what is left.

    DropBlock (arXiv 1810.12890, Algorithm 1) with one mask for all channels of an image, as in
    ResNeSt's public code. The whole batch is rescaled by one number, so that the mean of the mask
    is exactly one.

    Args:
        key: Random key.
        x: Feature maps.
        rate: Share of the pixels to drop, but for the overlap of blocks; 0 changes nothing.
    """
    n, height, width, _ = x.shape
    rows, columns = min(3, height), min(3, width)
    seeds_shape = (n, height - rows + 1, width - columns + 1, 1)
    gamma = rate * (height * width) / (rows * columns) / (seeds_shape[1] * seeds_shape[2])
    seeds = jax.random.bernoulli(key, jnp.minimum(gamma, 1.0), seeds_shape)
    seeds = seeds.astype(accurate(x.dtype))
    padding = ((rows - 1, rows - 1), (columns - 1, columns - 1))
    mask = 1 - nn.max_pool(seeds, (rows, columns), padding=padding)
    # A map of which nothing is left is zero, not 0 / 0.
    mask *= mask.size / jnp.maximum(mask.sum(), 1)
    return x * mask.astype(x.dtype)


def stochastic_depth(
    key: PRNGKeyArray, x: Float[Array, "n h w c"], rate: float
) -> Float[Array, "n h w c"]:
    """Zeroes whole images and divides the others by the probability to be kept.

    Stochastic depth (arXiv 1603.09382), per image, with the rescaling done in training and not in
    evaluation.

    Args:
        key: Random key.
        x: Residual branch.
        rate: Probability that the branch of an image is dropped, below 1.
    """
    keep = 1 - rate
    kept = jax.random.bernoulli(key, keep, (x.shape[0], 1, 1, 1))
    return jnp.where(kept, x / jnp.asarray(keep, x.dtype), 0)


class DropBlock(nn.Module):
    """:func:`drop_block` as a module."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], rate: Rate) -> Float[Array, "n h w c"]:
        return drop_block(self.make_rng("dropout"), x, rate)


def norm_and_drop(
    norm: BatchNorm, x: Float[Array, "n h w c"], rate: Rate | None, *, relu: bool = False
) -> Float[Array, "n h w c"]:
    """Applies a batch norm, DropBlock and a ReLU; called inside a compact method.

    If nothing is dropped, the batch norm applies the ReLU itself, which is faster on GPUs.

    Args:
        norm: The batch norm.
        x: Feature maps.
        rate: Rate of DropBlock; if None, as in evaluation, nothing is dropped.
        relu: Apply the ReLU.
    """
    if rate is None:
        return norm(x, relu=relu)
    x = DropBlock()(norm(x), rate)
    return nn.relu(x) if relu else x


class StochasticDepth(nn.Module):
    """:func:`stochastic_depth` in training, the identity in evaluation."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w c"]:
        if not train or self.rate == 0:
            return x
        return stochastic_depth(self.make_rng("dropout"), x, self.rate)
