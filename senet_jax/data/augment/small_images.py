"""Random crop, flip and Cutout of small images, on the device, as a part of the training step.

On the device because that is measured to be faster than NumPy on the host, on a CPU too
(``experiments/benchmarks/augmentation.py``); the host then only gathers bytes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt8


def augment(
    images: UInt8[Array, "n h w c"],
    key: Key[Array, ""],
    *,
    fill: UInt8[np.ndarray, " c"],
    pad: int = 0,
    flip: bool = False,
    cutout: int = 0,
) -> UInt8[Array, "n h w c"]:
    """Changes every image of a batch by itself.

    Args:
        images: Images, 0 to 255.
        key: Source of the random numbers.
        fill: Colour of the padding and of the cut-out square: the mean of the data set, which is
            zero after normalization, as in the papers.
        pad: Crop at random out of the image padded by this many pixels (ResNet, arXiv 1512.03385,
            section 4.2).
        flip: Mirror half of the images.
        cutout: Side of a square, centred at random, that is set to ``fill``; it may hang over the
            edge (Cutout, arXiv 1708.04552).
    """
    height, width, channels = images.shape[1:]

    def one(image: UInt8[Array, "h w c"], key: Key[Array, ""]) -> UInt8[Array, "h w c"]:
        crop_key, flip_key, cutout_key = jax.random.split(key, 3)
        if pad:
            padded = jnp.broadcast_to(fill, (height + 2 * pad, width + 2 * pad, channels))
            padded = padded.at[pad : pad + height, pad : pad + width].set(image)
            top, left = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
            image = jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)
        if flip:
            image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
        if cutout:
            centre = jax.random.randint(cutout_key, (2,), 0, jnp.array([height, width]))
            top, left = centre - cutout // 2
            row, column = jnp.arange(height)[:, None] - top, jnp.arange(width)[None] - left
            inside = (row >= 0) & (row < cutout) & (column >= 0) & (column < cutout)
            image = jnp.where(inside[..., None], fill, image)
        return image

    return jax.vmap(one)(images, jax.random.split(key, len(images)))
