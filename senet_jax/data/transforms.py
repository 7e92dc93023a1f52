"""From the bytes of a photograph to the uint8 image that a network is shown."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import UInt8

from senet_jax.data.augment.crops import draw_crop
from senet_jax.data.augment.host import change_image
from senet_jax.data.config import AugmentConfig, Interpolation
from senet_jax.data.decode import decode, decode_crop, read_size
from senet_jax.data.views import center_view


@dataclasses.dataclass(frozen=True)
class TrainTransform:
    """A random resized crop, mirrored at random, and what else the augmentation asks for."""

    size: int
    """Side of the images, pixels."""
    augment: AugmentConfig
    exif_orientation: bool = False
    """As in ``decode``."""

    def __call__(self, data: bytes, rng: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
        """Decodes and changes an image.

        Args:
            data: The encoded image.
            rng: Source of the random numbers.

        Raises:
            Unreadable: The bytes are not an image.
        """
        config = self.augment
        turned = self.exif_orientation
        box = draw_crop(*read_size(data, turned), rng, config.crop_area, config.crop_ratio)
        image = decode_crop(data, box, self.size, config.interpolation, turned)
        if config.flip and rng.random() < 0.5:
            # NumPy copies pixel by pixel, which takes eight times as long.
            image = cv2.flip(image, 1)
        return change_image(image, rng, config)


@dataclasses.dataclass(frozen=True)
class EvalTransform:
    """The square at the centre."""

    size: int
    """Side of the images, pixels."""
    crop_pct: float
    """Side of the square over the scaled image's shorter side."""
    interpolation: Interpolation
    exif_orientation: bool = False
    """As in ``decode``."""

    def __call__(
        self, data: bytes, rng: np.random.Generator | None = None
    ) -> UInt8[np.ndarray, "s s 3"]:
        """Decodes an image and cuts out its centre; nothing is random.

        Raises:
            Unreadable: The bytes are not an image.
        """
        image = decode(data, self.exif_orientation)
        return center_view(image, self.size, self.crop_pct, self.interpolation)
