"""Encoded images to RGB: what libjpeg-turbo decodes fastest, and Pillow for all the rest.

Transparency is dropped, as the field does, and so is the orientation in EXIF unless it is asked
for. Samples of more than 8 bits are scaled to 8 by these rules:

- 16 bits by 65,535; fewer, where the file declares so (12 bits in TIFF, the greatest value of a
  PPM), by that range. Of 16 bits an image that would be nearly black (at most ``DARKEST`` of 255
  everywhere, but not 0) is refused: its values are 12 bits or fewer, without saying so.
- Floats by 1. Values outside 0 to 1, or not finite, are refused.
- Integers of 32 bits and signed ones have no agreed range and are refused.

An image that is refused is an image that cannot be read.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Integer, UInt8
from PIL import ExifTags, Image, ImageFile

from senet_jax.data.config import Interpolation
from senet_jax.data.formats import FORMATS
from senet_jax.text import printable

# Workers and threads decode several images at once; OpenCV's own threads would only get in the way.
cv2.setNumThreads(0)

Box = tuple[int, int, int, int]
"""Left, top, width and height, pixels."""

DARKEST = 16
"""A 16-bit image whose brightest sample comes to this or less, of 255, has 12 bits or fewer."""

_INTERPOLATIONS = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode by the number of channels."""

_MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""Pillow refuses to decode more."""

# Pillow warns of half of it and more, in two lines that name no file.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Unreadable(ValueError):
    """Bytes that are no image, or an incomplete one; the message says why."""


@contextlib.contextmanager
def _unreadable() -> Iterator[None]:
    """Makes an ``Unreadable`` of whatever a decoder raises."""
    try:
        yield
    except Unreadable:
        raise
    # For damaged bytes AVIF's decoder raises RuntimeError, BLP's NotImplementedError, OpenCV an
    # error of its own, a header that promises too much MemoryError: there is no common base.
    except Exception as error:
        raise Unreadable(_reason(error)) from error


@dataclasses.dataclass(frozen=True)
class _Turn:
    """The operations that bring stored pixels upright: mirror, then transpose."""

    flip_x: bool = False
    flip_y: bool = False
    transpose: bool = False

    def pixels(self, image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h2 w2 c"]:
        """The upright image."""
        if self == _UPRIGHT:
            return image
        image = image[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return np.ascontiguousarray(image.swapaxes(0, 1) if self.transpose else image)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the upright image."""
        return (width, height) if self.transpose else (height, width)

    def stored(self, box: Box, height: int, width: int) -> Box:
        """The part of the stored image, of this height and width, that a part of the upright is."""
        left, top, across, down = box
        if self.transpose:
            left, top, across, down = top, left, down, across
        if self.flip_x:
            left = width - left - across
        if self.flip_y:
            top = height - top - down
        return left, top, across, down


_UPRIGHT = _Turn()
_TURNS = {
    2: _Turn(flip_x=True),
    3: _Turn(flip_x=True, flip_y=True),
    4: _Turn(flip_y=True),
    5: _Turn(transpose=True),
    6: _Turn(flip_y=True, transpose=True),
    7: _Turn(flip_x=True, flip_y=True, transpose=True),
    8: _Turn(flip_x=True, transpose=True),
}
"""By the value of EXIF's orientation; 1 is upright."""


@dataclasses.dataclass(frozen=True)
class _Frame:
    """The facts of an image in the header of its JPEG."""

    height: int
    width: int
    height_at: int
    """The offset of the two bytes of the height in the file."""
    sequential: bool
    """The rows come one after another, in one scan."""
    exif_at: slice | None
    """The place of the segment of EXIF; None if there is none before the frame."""

    def turn(self, data: bytes) -> _Turn:
        """The turn that EXIF asks for."""
        if self.exif_at is None:
            return _UPRIGHT
        segment = data[self.exif_at]

        def read() -> Image.Exif:
            exif = Image.Exif()
            exif.load(segment)
            return exif

        return _turn_of(read)


@_unreadable()
def read_size(data: bytes, exif_orientation: bool = False) -> tuple[int, int]:
    """Height and width of an encoded image, pixels, from its header alone.

    Args:
        data: The encoded image, or its beginning.
        exif_orientation: As in ``decode``.

    Raises:
        Unreadable: The bytes are not the beginning of an image.
    """
    frame = _read_frame(data)
    if frame is not None:
        turn = frame.turn(data) if exif_orientation else _UPRIGHT
        return turn.size(frame.height, frame.width)
    with _open(data) as image:
        turn = _turn_by_pillow(image) if exif_orientation else _UPRIGHT
        return turn.size(image.height, image.width)


@_unreadable()
def decode(
    data: bytes, exif_orientation: bool = False, channels: int = 3
) -> UInt8[np.ndarray, "h w {channels}"]:
    """Decodes a complete image, whatever it is encoded as.

    Grey becomes RGB, CMYK is converted (Adobe's inverted kind too); the rules for samples of more
    than 8 bits are those of the module.

    Args:
        data: The encoded image.
        exif_orientation: Turn and mirror the image as the orientation in its EXIF says. The
            orientation of a TIFF belongs to the format, and Pillow always applies it; an EXIF that
            cannot be read says nothing.
        channels: 3 for RGB, 1 for grey, 4 for RGB and opacity.

    Raises:
        Unreadable: The bytes are no complete image, or one of more than 178 million pixels, or of
            samples that the rules refuse.
    """
    frame = _read_frame(data)
    if frame is not None and channels == 3 and frame.height * frame.width <= _MOST_PIXELS:
        image = _decode_jpeg(data, frame.height, frame.width)
        if image is not None:
            return frame.turn(data).pixels(image) if exif_orientation else image
    return _decode_with_pillow(data, exif_orientation, _MODES[channels])


@_unreadable()
def decode_crop(
    data: bytes, box: Box, size: int, interpolation: Interpolation, exif_orientation: bool = False
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Decodes a part of an image, scaled to a square; the fast way, for training.

    Of a JPEG the rows below the part are not decoded, and a part that is twice, four or eight times
    as large as the square is decoded at half, a quarter or an eighth of the scale. What remains, a
    reduction by less than two, is interpolated without antialiasing, as the papers' OpenCV did.

    Args:
        data: The encoded image.
        box: The part, inside the image as ``read_size`` with the same ``exif_orientation`` has it.
        size: Side of the square, pixels.
        interpolation: The filter by which the part is scaled.
        exif_orientation: As in ``decode``.

    Raises:
        Unreadable: The bytes up to the end of the part are not those of an image, or it has more
            than 178 million pixels at the scale at which it is decoded, or samples that the rules
            refuse.
    """
    frame = _read_frame(data)
    if frame is not None:
        turn = frame.turn(data) if exif_orientation else _UPRIGHT
        stored = turn.stored(box, frame.height, frame.width)
        _, top, width, height = stored
        reduction = 1
        while reduction < 8 and min(width, height) >= 2 * reduction * size:
            reduction *= 2
        if frame.height * frame.width <= _MOST_PIXELS * reduction**2:
            image = _decode_rows(data, frame, top + height, reduction)
            if image is not None:
                return turn.pixels(_scaled_part(image, stored, reduction, size, interpolation))
    image = _decode_with_pillow(data, exif_orientation, "RGB")
    return _scaled_part(image, box, 1, size, interpolation)


def _scaled_part(
    image: UInt8[np.ndarray, "h w 3"],
    box: Box,
    reduction: int,
    size: int,
    interpolation: Interpolation,
) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Scales a part of an image, which was decoded at a reduced scale, to a square."""
    left, top, width, height = box
    right, bottom = left + width, top + height
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
    at, exif = 2, None
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
            return _Frame(height, width, at + 5, marker != _PROGRESSIVE, exif)
        elif marker in _OTHERS:
            return None
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if marker == _APP1 and exif is None and data.startswith(b"Exif\0\0", at + 4):
                exif = slice(at + 4, end)
            at = end
    return None


_APP1 = 0xE1
_PROGRESSIVE = 0xC2
_FRAMES = (0xC0, 0xC1, _PROGRESSIVE)
"""Markers of frames that are Huffman-coded: baseline, extended and progressive."""
_OTHERS = (0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xDB))
"""Markers of other frames (lossless, arithmetic, ...), and what can only come after a frame."""


def _open(data: bytes) -> ImageFile.ImageFile:
    return Image.open(BytesIO(data), formats=FORMATS)


def _decode_with_pillow(
    data: bytes, exif_orientation: bool, mode: str
) -> UInt8[np.ndarray, "h w c"]:
    with _open(data) as image:
        turn = _turn_by_pillow(image) if exif_orientation else _UPRIGHT
        deep = _is_deep(image)
        pixels = np.asarray(_eight_bits(image).convert(mode))
        if deep:
            _check_depth(pixels[..., :3] if pixels.ndim == 3 else pixels, data)
        return turn.pixels(pixels if pixels.ndim == 3 else pixels[..., None])


def _eight_bits(image: ImageFile.ImageFile) -> Image.Image:
    """The image in a mode of 8 bits a sample, by the rules of the module."""
    if image.mode == "P" and "transparency" in image.info:
        image.apply_transparency()
        return image
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    tiff: Any = getattr(image, "tag_v2", {})
    greatest = int(np.max(tiff.get(_MAX_SAMPLE_VALUE, 0)))
    bits = greatest.bit_length() or tiff.get(_BITS_PER_SAMPLE, (16,))[0]
    inverted = tiff.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if image.mode == "F":
        floats = np.asarray(image)
        if not (np.isfinite(floats).all() and floats.min() >= 0 and floats.max() <= 1):
            raise Unreadable(
                "its samples are floats outside 0 to 1, whose range is not known: save it as 8 bits"
            )
        grey = np.rint(255 * floats).astype(np.uint8)
    elif image.mode == "I" and tiff:
        raise Unreadable(
            "its samples are 32-bit or signed integers, whose range is not known: save it as 8 bits"
        )
    else:
        samples = np.asarray(image)
        grey = np.clip(samples >> max(0, bits - 8), 0, 255).astype(np.uint8)
        if bits == 16:
            _check_grey_depth(samples, grey)
    return Image.fromarray(255 - grey if inverted else grey)


_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE_VALUE = 258, 262, 281
"""Tags of TIFF."""
_WHITE_IS_ZERO = 0
"""A value of the tag, which Pillow applies to 8 bits only."""


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Tells, before they load, whether colours have 16 bits, of which Pillow gives the upper 8."""
    if image.mode not in ("RGB", "RGBA", "RGBX"):
        return False
    for tile in image.tile:
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if any(isinstance(a, str) and ";16" in a for a in arguments):
            return True
        if image.format == "PPM" and isinstance(arguments[-1], int) and arguments[-1] > 255:
            return True
    return False


def _check_grey_depth(samples: Integer[np.ndarray, "h w"], grey: UInt8[np.ndarray, "h w"]) -> None:
    if grey.max() <= DARKEST and samples.any():
        raise Unreadable(_TOO_DARK)


def _check_depth(colours: UInt8[np.ndarray, "..."], data: bytes) -> None:
    brightest = colours.max()
    if brightest > DARKEST:
        return
    if brightest == 0:
        # The lower 8 bits are gone; OpenCV keeps them.
        whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if whole is not None and not whole[..., :3].any():
            return
    raise Unreadable(_TOO_DARK)


_TOO_DARK = (
    "it has 16 bits a sample and uses 12 or fewer, so that it would be nearly black: scale its "
    "values to 16 bits or save it as 8"
)


def _turn_by_pillow(image: ImageFile.ImageFile) -> _Turn:
    # Pillow turns a TIFF when it loads it; of the others it reads EXIF wherever it stands.
    return _UPRIGHT if image.format == "TIFF" else _turn_of(image.getexif)


def _turn_of(read: Callable[[], Image.Exif]) -> _Turn:
    try:
        value = read().get(ExifTags.Base.Orientation)
    # Pillow's parser raises what it likes for a damaged EXIF; the pixels may be well.
    except Exception:
        return _UPRIGHT
    return _TURNS.get(value, _UPRIGHT) if isinstance(value, int) else _UPRIGHT


def _reason(error: Exception) -> str:
    text = printable(" ".join(str(error).split()))
    return "the bytes are no image" if "cannot identify" in text else text or type(error).__name__
