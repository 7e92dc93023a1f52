"""The operations on images that the policies are made of, by Pillow.

Each takes an RGB image and an amount whose unit is its own, and gives a new image of the same
size. What a turned, sheared or shifted image uncovers has the colour ``FILL``.
"""

import math
from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps

FILL = (124, 116, 104)
"""Mean colour of ImageNet, which is zero after normalization."""

Operation = Callable[[Image.Image, float], Image.Image]


def rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Turns the image around its centre, counterclockwise."""
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=FILL)


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    """Reads the pixel (x, y) at (a x + b y + c, d x + e y + f)."""
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL
    )


def shear_x(image: Image.Image, slope: float) -> Image.Image:
    """Moves every row to the left by ``slope`` times its distance from the top."""
    return _affine(image, 1, slope, 0, 0, 1, 0)


def shear_y(image: Image.Image, slope: float) -> Image.Image:
    """Moves every column up by ``slope`` times its distance from the left."""
    return _affine(image, 1, 0, 0, slope, 1, 0)


def translate_x(image: Image.Image, share: float) -> Image.Image:
    """Moves the image to the left by this share of its width, in whole pixels."""
    return _affine(image, 1, 0, int(share * image.width), 0, 1, 0)


def translate_y(image: Image.Image, share: float) -> Image.Image:
    """Moves the image up by this share of its height, in whole pixels."""
    return _affine(image, 1, 0, 0, 0, 1, int(share * image.height))


def posterize(image: Image.Image, bits: float) -> Image.Image:
    """Keeps the ``bits`` highest bits of every pixel, 1 to 8."""
    return ImageOps.posterize(image, int(bits))


def solarize(image: Image.Image, threshold: float) -> Image.Image:
    """Inverts the pixels from ``threshold`` on, 0 to 256."""
    return ImageOps.solarize(image, math.ceil(threshold))


def brightness(image: Image.Image, factor: float) -> Image.Image:
    """Blends with black: 0 is black, 1 the image, 2 twice as far from black."""
    return ImageEnhance.Brightness(image).enhance(factor)


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """Blends with the image's mean grey: 0 is grey, 1 the image."""
    return ImageEnhance.Contrast(image).enhance(factor)


def color(image: Image.Image, factor: float) -> Image.Image:
    """Blends with the image without colour: 0 has no colour, 1 is the image; the saturation."""
    return ImageEnhance.Color(image).enhance(factor)


def sharpness(image: Image.Image, factor: float) -> Image.Image:
    """Blends with the smoothed image: 0 is smooth, 1 the image, 2 sharpened."""
    return ImageEnhance.Sharpness(image).enhance(factor)


def auto_contrast(image: Image.Image, _: float) -> Image.Image:
    """Stretches every channel to 0 to 255."""
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image, _: float) -> Image.Image:
    """Makes the histogram of every channel as flat as it can be."""
    return ImageOps.equalize(image)


def invert(image: Image.Image, _: float) -> Image.Image:
    """The negative."""
    return ImageOps.invert(image)


def identity(image: Image.Image, _: float) -> Image.Image:
    """The image as it is."""
    return image


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": auto_contrast,
    "Brightness": brightness,
    "Color": color,
    "Contrast": contrast,
    "Equalize": equalize,
    "Identity": identity,
    "Invert": invert,
    "Posterize": posterize,
    "Rotate": rotate,
    "Sharpness": sharpness,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "Solarize": solarize,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
}
"""The operations by the names that the papers give them."""
