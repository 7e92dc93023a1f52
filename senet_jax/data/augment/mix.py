"""Mixup and CutMix: each image of a batch mixed with another, on the device.

Image i is mixed with image i - 1 of the global batch, the first with the last. The order of the
images is random anyway, so that this is as good as a permutation, and over a mesh each device gets
one image from its neighbour where a permutation would gather the whole batch everywhere.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num


def draw_weights(
    key: Key[Array, ""], height: int, width: int, *, mixup: float, cutmix: float
) -> Float[Array, "h w 1"]:
    """Draws how much of itself every image of a batch keeps, by place, 0 to 1.

    One draw for the whole batch, as in the authors' code of both. The label keeps the mean of the
    weights.

    Args:
        key: Source of the random numbers.
        height: Height of the images, pixels.
        width: Width of the images, pixels.
        mixup: Parameter a of mixup's Beta(a, a), the same weight everywhere (arXiv 1710.09412);
            0 means no mixup.
        cutmix: Parameter a of CutMix's Beta(a, a), the share of the image outside a rectangle of
            the image's shape, whose weights are 0; its centre is anywhere in the image, and what
            hangs over the edge is cut off (arXiv 1905.04899, algorithm 1); 0 means no CutMix.
            With both, it is one of the two with probability 1/2.
    """
    choice_key, share_key, centre_key = jax.random.split(key, 3)
    blends = jax.random.bernoulli(choice_key) if mixup and cutmix else bool(mixup)
    alpha = jnp.where(blends, mixup, cutmix)
    share = jax.random.beta(share_key, alpha, alpha)
    size = jnp.array([height, width])
    cut = (size * jnp.sqrt(1 - share)).astype(int)
    top, left = jax.random.randint(centre_key, (2,), 0, size) - cut // 2
    row, column = jnp.arange(height)[:, None] - top, jnp.arange(width)[None] - left
    inside = (row >= 0) & (row < cut[0]) & (column >= 0) & (column < cut[1])
    return jnp.where(blends, share, jnp.where(inside, 0.0, 1.0))[..., None]


def mix(values: Num[Array, "n ..."], weights: Float[Array, "..."]) -> Float[Array, "n ..."]:
    """Mixes each of a batch with the one before it, the first with the last.

    Args:
        values: Images, or targets: smooth the labels first, as the ResNeSt authors do.
        weights: The share that each keeps of itself, broadcast against one of ``values``.
    """
    return weights * values + (1 - weights) * jnp.roll(values, 1, axis=0)
