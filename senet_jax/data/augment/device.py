"""Changes of a batch of images in the training step, before it normalizes them."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from senet_jax.data.augment.keys import StepKeys
from senet_jax.data.augment.mix import draw_weights, mix
from senet_jax.data.augment.small_images import augment
from senet_jax.data.config import AugmentConfig
from senet_jax.ops.precision import accurate


def change_batch(
    images: UInt8[Array, "n h w c"],
    keys: StepKeys,
    *,
    mean: tuple[float, ...],
    config: AugmentConfig,
) -> tuple[UInt8[Array, "n h w c"] | Float[Array, "n h w c"], Float[Array, ""] | None]:
    """Crops, mirrors, cuts out and mixes the images of a batch, as ``config`` says.

    Args:
        images: Images, 0 to 255.
        keys: Those of the step; it uses ``augment`` and ``mix``.
        mean: Mean of the channels, 0 to 1.
        config: The augmentations; fields that the host has applied are not looked at.

    Returns:
        The images, 0 to 255, and the share of its own label that each keeps, the rest being that
        of the image before it (see :mod:`senet_jax.data.augment.mix`); None where nothing is mixed.
    """
    images = augment(
        images,
        keys.augment,
        fill=np.round(255 * np.array(mean)).astype(np.uint8),
        pad=config.pad,
        flip=config.flip,
        cutout=config.cutout,
    )
    if not config.mixup and not config.cutmix:
        return images, None
    height, width = images.shape[1:3]
    weights = draw_weights(keys.mix, height, width, mixup=config.mixup, cutmix=config.cutmix)
    return mix(images.astype(accurate(images.dtype)), weights), jnp.mean(weights)
