"""What is done to a photograph after its crop and flip, on the host."""

import numpy as np
from jaxtyping import UInt8

from senet_jax.data.config import AugmentConfig


def change_image(
    image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator, config: AugmentConfig
) -> UInt8[np.ndarray, "h w 3"]:
    """Changes an RGB image as ``config`` says."""
    return image
