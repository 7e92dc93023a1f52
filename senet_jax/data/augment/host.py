"""Augmentation of a photograph after its crop and flip, on the host, by Pillow."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from senet_jax.data.augment.crops import draw_box
from senet_jax.data.augment.image_ops import brightness, color, contrast, rotate
from senet_jax.data.augment.policies import autoaugment, randaugment
from senet_jax.data.config import AugmentConfig

LIGHTING_DIRECTIONS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
"""Principal components of the colours of ImageNet, one a column, red to blue down; those of
fb.resnet.torch, which the ResNeSt authors took."""

LIGHTING_DEVIATIONS = 255 * np.array([0.2175, 0.0188, 0.0045])
"""The factors of the noise of each component."""

ERASED_AREA, ERASED_RATIO = (0.02, 0.4), (0.3, 1 / 0.3)
"""Share and shape of the rectangle that is erased (arXiv 1708.04896, section 4)."""


_CHANGES = ("rotation", "policy", "color_jitter", "pixel_shift", "lighting", "erasing")
"""Fields that ask for a change."""


def change_image(
    image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator, config: AugmentConfig
) -> UInt8[np.ndarray, "h w 3"]:
    """Changes an RGB image as ``config`` says, in all but crop, flip and what the device does.

    The order is rotation, policy, colour jitter, pixel shift, lighting, random erasing. The
    authors of ResNeSt have the policy before the crop, then crop, flip, jitter and lighting; here
    it comes after crop and flip, as in torchvision and timm, so that only the crop need be decoded.

    Args:
        image: The cropped and flipped image; it is not written to.
        rng: Source of the random numbers; it and the config alone determine what is done.
        config: The augmentations.

    Returns:
        An image of the same size, which is ``image`` itself where nothing is to be done.
    """
    if any(getattr(config, field) for field in _BY_PILLOW):
        image = np.array(_change(Image.fromarray(image), rng, config))
    if config.erasing and rng.random() < config.erasing:
        image = _erase(image, rng)
    return image


_BY_PILLOW = ("rotation", "policy", "color_jitter", "pixel_shift", "lighting")


def _change(image: Image.Image, rng: np.random.Generator, config: AugmentConfig) -> Image.Image:
    if config.rotation:
        image = rotate(image, rng.uniform(-config.rotation, config.rotation))
    if config.policy == "autoaugment":
        image = autoaugment(image, rng)
    elif config.policy == "randaugment":
        image = randaugment(
            image, rng, ops=config.randaugment_ops, magnitude=config.randaugment_magnitude
        )
    if config.color_jitter:
        image = _jitter(image, rng, config.color_jitter)
    if config.pixel_shift:
        shift = rng.integers(-config.pixel_shift, config.pixel_shift, endpoint=True)
        image = _add(image, np.full(3, shift))
    if config.lighting:
        image = _add(image, draw_lighting(rng, config.lighting))
    return image


def draw_lighting(rng: np.random.Generator, deviation: float) -> Float[np.ndarray, " 3"]:
    """Draws the colour that AlexNet adds to an image (Krizhevsky et al. 2012, section 4.1).

    Args:
        rng: Source of the random numbers.
        deviation: Standard deviation of the weight of each principal component.

    Returns:
        Red, green and blue, of 255.
    """
    return LIGHTING_DIRECTIONS @ (rng.normal(0, deviation, 3) * LIGHTING_DEVIATIONS)


def _jitter(image: Image.Image, rng: np.random.Generator, share: float) -> Image.Image:
    """Brightness, contrast and saturation, in an order at random."""
    enhance = (brightness, contrast, color)
    for index in rng.permutation(len(enhance)):
        image = enhance[index](image, rng.uniform(1 - share, 1 + share))
    return image


def _add(image: Image.Image, rgb: Float[np.ndarray, " 3"]) -> Image.Image:
    """Adds a colour to every pixel, rounded, and held between 0 and 255."""
    levels = np.rint(np.arange(256) + rgb[:, None]).clip(0, 255)
    return image.point(levels.astype(int).ravel().tolist())


def _erase(
    image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Fills a rectangle with uniform noise; none where none fits."""
    rows, columns = image.shape[:2]
    box = draw_box(rows, columns, rng, ERASED_AREA, ERASED_RATIO)
    if box is None:
        return image
    left, top, width, height = box
    erased = image.copy()
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    erased[top : top + height, left : left + width] = noise
    return erased
