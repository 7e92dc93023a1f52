"""Encoded images to RGB: what libjpeg-turbo decodes fastest, and Pillow for all the rest.

The orientation in EXIF is ignored and transparency dropped, as the field does.
"""

import dataclasses
import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, ImageFile

from senet_jax.data.config import Interpolation

# Workers and threads decode several images at once; OpenCV's own threads would only get in the way.
cv2.setNumThreads(0)

Box = tuple[int, int, int, int]
"""Left, top, width and height, pixels."""

_INTERPOLATIONS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}

_MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""Pillow refuses to decode more."""


class Unreadable(ValueError):
    """Bytes that are no image, or not a whole one; the message says why."""


@dataclasses.dataclass(frozen=True)
class _Frame:
    """What the header of a JPEG says of the image."""

    height: int
    width: int
    height_at: int
    """Where in the file the two bytes of the height are."""
    sequential: bool
    """Whether the rows come one after another, in one scan."""


def read_size(data: bytes) -> tuple[int, int]:
    """Height and width of an encoded image, pixels, from its header alone.

    Raises:
        Unreadable: The bytes are not the beginning of an image.
    """
    frame = _read_frame(data)
    if frame is not None:
        return frame.height, frame.width
    with _open(data) as image:
        return image.height, image.width


def decode(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a whole image to RGB, whatever it is encoded as.

    Grey becomes RGB, CMYK is converted (Adobe's inverted kind too), 16 bits are scaled to 8.

    Raises:
        Unreadable: The bytes are not a whole image, or one of more than 178 million pixels.
    """
    frame = _read_frame(data)
    if frame is not None and frame.height * frame.width <= _MOST_PIXELS:
        image = _decode_jpeg(data, frame.height, frame.width)
        if image is not None:
            return image
    return _decode_with_pillow(data)


def decode_crop(
    data: bytes, box: Box, size: int, interpolation: Interpolation
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Decodes a part of an image, scaled to a square; the fast way, for training.

    Of a JPEG the rows below the part are not decoded, and a part that is twice, four or eight times
    as large as the square is decoded at half, a quarter or an eighth of the scale. What remains, a
    reduction by less than two, is interpolated without antialiasing, as the papers' OpenCV did.

    Args:
        data: The encoded image.
        box: The part, inside the image.
        size: Side of the square, pixels.
        interpolation: How the part is scaled.

    Raises:
        Unreadable: The bytes up to the end of the part are not those of an image, or it has more
            than 178 million pixels at the scale at which it is decoded.
    """
    left, top, width, height = box
    right, bottom = left + width, top + height
    reduction = 1
    image = None
    frame = _read_frame(data)
    if frame is not None:
        while reduction < 8 and min(width, height) >= 2 * reduction * size:
            reduction *= 2
        if frame.height * frame.width <= _MOST_PIXELS * reduction**2:
            image = _decode_rows(data, frame, bottom, reduction)
    if image is None:
        reduction = 1
        image = _decode_with_pillow(data)
    part = image[
        top // reduction : -(-bottom // reduction), left // reduction : -(-right // reduction)
    ]
    # Only other formats and long parts are left that large; interpolation would skip their pixels.
    method = cv2.INTER_AREA if max(part.shape) >= 2 * size else _INTERPOLATIONS[interpolation]
    return cv2.resize(part, (size, size), interpolation=method)


def _decode_rows(
    data: bytes, frame: _Frame, bottom: int, reduction: int
) -> UInt8[np.ndarray, "h w 3"] | None:
    """The rows of a JPEG as far as ``bottom`` and a few more, at a reduced scale."""
    # Chroma is interpolated between rows, so the last row wants a neighbour.
    rows = min(frame.height, bottom + 2 * reduction)
    if frame.sequential and rows < frame.height:
        # A decoder reads as many rows as the header says.
        shorter = bytearray(data)
        shorter[frame.height_at : frame.height_at + 2] = rows.to_bytes(2, "big")
        return _decode_jpeg(shorter, rows, frame.width, reduction)
    return _decode_jpeg(data, frame.height, frame.width, reduction)


def _decode_jpeg(
    data: bytes | bytearray, height: int, width: int, reduction: int = 1
) -> UInt8[np.ndarray, "h w 3"] | None:
    """Decodes with libjpeg-turbo, or returns None for a kind that it does not do.

    Raises:
        Unreadable: The file ends too early.
    """
    height, width = -(-height // reduction), -(-width // reduction)
    image = np.empty((height, width, 3), np.uint8)
    scale = (
        {"min_height": height, "min_width": width, "min_factor": reduction} if reduction > 1 else {}
    )
    try:
        simplejpeg.decode_jpeg(data, "RGB", buffer=image, **scale)
    except ValueError as error:
        message = str(error)
        if message.startswith("Premature end"):
            raise Unreadable("the file is truncated") from error
        # A warning: the image is there, as Pillow and TensorFlow show it too. Of a file of which
        # only the first rows are decoded, the warning is that more follows.
        if not message.startswith("Corrupt JPEG data"):
            return None
    return image


def _read_frame(data: bytes) -> _Frame | None:
    """Reads the header of a JPEG of 8 bits a channel, grey or colour; None for anything else."""
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _FRAMES:
            bits, channels = data[at + 4], data[at + 9]
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            width = int.from_bytes(data[at + 7 : at + 9], "big")
            if bits != 8 or channels not in (1, 3) or not height or not width:
                return None
            return _Frame(height, width, at + 5, sequential=marker != _PROGRESSIVE)
        elif marker in _OTHERS:
            return None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


_PROGRESSIVE = 0xC2
_FRAMES = (0xC0, 0xC1, _PROGRESSIVE)
"""Markers of frames that are Huffman-coded: baseline, extended and progressive."""
_OTHERS = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xDB))
"""Markers of other frames (lossless, arithmetic, ...), and what can only come after a frame."""


def _open(data: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(BytesIO(data))
    except _PILLOW_ERRORS as error:
        raise Unreadable(_reason(error)) from error


def _decode_with_pillow(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    with _open(data) as image:
        try:
            if image.mode.startswith("I"):
                # Pillow would clip 16 bits, not scale them.
                grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=-1)
            if image.mode == "P" and "transparency" in image.info:
                image.apply_transparency()
            return np.asarray(image.convert("RGB"))
        except _PILLOW_ERRORS as error:
            raise Unreadable(_reason(error)) from error


# What Pillow's decoders raise for files that are not what they seem.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def _reason(error: Exception) -> str:
    text = str(error)
    return "the bytes are no image" if "cannot identify" in text else text
