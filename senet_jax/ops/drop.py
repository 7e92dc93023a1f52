"""What training drops beyond single numbers: blocks of pixels and residual branches.

The modules draw from the random key collection "dropout", as ``nn.Dropout`` does.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

Rate = float | Float[Array, ""]
"""A probability; an array can change from step to step without a new compilation."""


def drop_block(
    key: PRNGKeyArray, x: Float[Array, "n h w c"], rate: Rate, *, block_size: int = 3
) -> Float[Array, "n h w c"]:
    """Zeroes square blocks of pixels in all channels and rescales what is left.

    DropBlock (arXiv 1810.12890, Algorithm 1) with one mask for all channels of an image, as in
    ResNeSt's public code. The whole batch is rescaled by one number, so that the mean of the mask
    is exactly one.

    Args:
        key: Random key.
        x: Feature maps.
        rate: Share of the pixels to drop, but for the overlap of blocks; 0 changes nothing.
        block_size: Side of a block, pixels; at most that of the map.
    """
    n, height, width, _ = x.shape
    rows, columns = min(block_size, height), min(block_size, width)
    seeds_shape = (n, height - rows + 1, width - columns + 1, 1)
    gamma = rate * (height * width) / (rows * columns) / (seeds_shape[1] * seeds_shape[2])
    seeds = jax.random.bernoulli(key, jnp.minimum(gamma, 1.0), seeds_shape).astype(jnp.float32)
    padding = ((rows - 1, rows - 1), (columns - 1, columns - 1))
    mask = 1 - nn.max_pool(seeds, (rows, columns), padding=padding)
    # Where nothing is left the map is zero, not 0 / 0.
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
    """:func:`drop_block` with 3x3 blocks; a rate of None, as in evaluation, changes nothing."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], rate: Rate | None) -> Float[Array, "n h w c"]:
        return x if rate is None else drop_block(self.make_rng("dropout"), x, rate)


class StochasticDepth(nn.Module):
    """:func:`stochastic_depth` in training, the identity in evaluation."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"], train: bool) -> Float[Array, "n h w c"]:
        if not train or self.rate == 0:
            return x
        return stochastic_depth(self.make_rng("dropout"), x, self.rate)
