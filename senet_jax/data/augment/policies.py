"""AutoAugment's policy for ImageNet and RandAugment: which operations, how strong, how often."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from senet_jax.data.augment.image_ops import OPERATIONS

Amount = Callable[[int, int], float]
"""From a magnitude and a sign, -1 or 1, to the amount that an operation takes."""

Step = tuple[str, float, int]
"""An operation, its probability and its magnitude."""

AUTOAUGMENT_IMAGENET: tuple[tuple[Step, Step], ...] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 4), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 7)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 2)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 8), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 2)),
    (("Equalize", 0.0, 7), ("Equalize", 0.8, 8)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 8)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 9)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 3)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
)
"""The 25 sub-policies found on ImageNet (arXiv 1805.09501, appendix, Table 9); the last five repeat
earlier ones. Each is two operations one after the other."""


def _nothing(magnitude: int, sign: int) -> float:
    return 0.0


def _found_factor(magnitude: int, sign: int) -> float:
    return 0.1 + 0.18 * magnitude


AUTOAUGMENT_AMOUNTS: dict[str, Amount] = {
    "AutoContrast": _nothing,
    "Color": _found_factor,
    "Contrast": _found_factor,
    "Equalize": _nothing,
    "Invert": _nothing,
    "Posterize": lambda magnitude, _: 4 + 4 * magnitude // 10,
    "Rotate": lambda magnitude, sign: sign * 3.0 * magnitude,
    "Sharpness": _found_factor,
    "ShearX": lambda magnitude, sign: sign * 0.03 * magnitude,
    "Solarize": lambda magnitude, _: 256 * magnitude // 10,
}
"""The ranges of AutoAugment (arXiv 1805.09501, appendix, Table 6), a tenth of them a magnitude, as
in the authors' code: posterize 4 to 8 bits, solarize from 0 to 256, factors of 0.1 to 1.9, so that
a low magnitude of these is the stronger change; rotation up to 30 degrees and shear up to 0.3,
either way."""

RANDAUGMENT_GREATEST = 30
"""The greatest magnitude of RandAugment."""


def _factor(magnitude: int, sign: int) -> float:
    return 1 + sign * 0.9 * magnitude / RANDAUGMENT_GREATEST


def _shear(magnitude: int, sign: int) -> float:
    return sign * 0.3 * magnitude / RANDAUGMENT_GREATEST


def _translation(magnitude: int, sign: int) -> float:
    return sign * (150 / 331) * magnitude / RANDAUGMENT_GREATEST


RANDAUGMENT_AMOUNTS: dict[str, Amount] = {
    "AutoContrast": _nothing,
    "Brightness": _factor,
    "Color": _factor,
    "Contrast": _factor,
    "Equalize": _nothing,
    "Identity": _nothing,
    "Posterize": lambda magnitude, _: 8 - round(4 * magnitude / RANDAUGMENT_GREATEST),
    "Rotate": lambda magnitude, sign: sign * 30 * magnitude / RANDAUGMENT_GREATEST,
    "Sharpness": _factor,
    "ShearX": _shear,
    "ShearY": _shear,
    "Solarize": lambda magnitude, _: 256 * (1 - magnitude / RANDAUGMENT_GREATEST),
    "TranslateX": _translation,
    "TranslateY": _translation,
}
"""The 14 operations of RandAugment (arXiv 1909.13719, section 3): magnitude 0 changes nothing, the
greatest is the strongest change of AutoAugment's ranges; the translation is its 150 pixels of an
image of 331. Torchvision has the same scale, but for inverting the pixels of 255 at magnitude 0."""


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def autoaugment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Changes an image by one of the sub-policies of AutoAugment, all equally likely.

    Args:
        image: An RGB image.
        rng: Source of the random numbers.
    """
    for name, probability, magnitude in AUTOAUGMENT_IMAGENET[
        rng.integers(len(AUTOAUGMENT_IMAGENET))
    ]:
        if rng.random() < probability:
            amount = AUTOAUGMENT_AMOUNTS[name](magnitude, _sign(rng))
            image = OPERATIONS[name](image, amount)
    return image


def randaugment(
    image: Image.Image, rng: np.random.Generator, *, ops: int, magnitude: int
) -> Image.Image:
    """Changes an image by operations drawn at random, with replacement, one after the other.

    Args:
        image: An RGB image.
        rng: Source of the random numbers.
        ops: The number of operations.
        magnitude: Their strength, 0 to 30.
    """
    names = list(RANDAUGMENT_AMOUNTS)
    for index in rng.integers(len(names), size=ops):
        name = names[index]
        amount = RANDAUGMENT_AMOUNTS[name](magnitude, _sign(rng))
        image = OPERATIONS[name](image, amount)
    return image
