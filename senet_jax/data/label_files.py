"""Files of labels, the class of each pixel: read as the numbers that are stored, never as colours.

A PNG with a palette holds indices, which are read; its colours are for people. A grey PNG holds
levels, of 1 to 16 bits, which are read as they are: Pillow would scale those of 2 and 4 bits. A
``.mat`` file is one of the Semantic Boundaries Dataset (SBD). JPEG changes numbers and is refused.
"""

import dataclasses
import functools
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import Int, Integer, UInt8, UInt16
from PIL import Image

from senet_jax.data.decode import Unreadable
from senet_jax.data.formats import FORMATS
from senet_jax.errors import UsageError

Labels = UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]
"""The class of each pixel, from 0, or the ignore label of the number of classes."""

MOST_CLASSES = 2**16 - 1
"""Values of 16 bits, less the one that is ignored."""


def label_type(classes: int) -> type[np.unsignedinteger[Any]]:
    """The type of the labels of so many classes: as few bytes as hold them and one value more."""
    if classes > MOST_CLASSES:
        raise UsageError(f"{classes:,} classes are too many: at most {MOST_CLASSES:,} are read.")
    return np.uint8 if classes < 2**8 else np.uint16


def ignore_label(classes: int) -> int:
    """The label of pixels without a class: 255 of up to 255 classes, otherwise 65,535."""
    return int(np.iinfo(label_type(classes)).max)


def decode_label(data: bytes) -> Integer[np.ndarray, "h w"]:
    """The numbers that a file of labels stores.

    Args:
        data: A PNG file of one channel, or one of SBD.

    Raises:
        Unreadable: The bytes are neither, or not whole.
    """
    if data.startswith(_MATLAB):
        return _decode_sbd(data)
    if not data.startswith(_PNG):
        raise Unreadable("labels are read from PNG files of one channel, and this is another file")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            mode = image.mode
            pixels = np.asarray(image)
    # Pillow raises what it likes for damaged bytes.
    except Exception as error:
        raise Unreadable(" ".join(str(error).split()) or type(error).__name__) from error
    if mode not in _MODES:
        raise Unreadable(
            f"it is a picture of the colours {mode}, and labels are numbers: save the number of "
            "the class of each pixel as a PNG of one channel"
        )
    bits, colour = data[_BITS_AT], data[_COLOUR_AT]
    if colour == _GREY and 1 < bits < 8:
        # Pillow spreads the levels over 0 to 255.
        pixels = pixels // (255 // (2**bits - 1))
    return pixels.astype(np.uint8) if mode == "1" else pixels


_PNG, _MATLAB = b"\x89PNG\r\n\x1a\n", b"MATLAB"
"""The first bytes of the two kinds of files."""
_WIDTH_AT, _HEIGHT_AT, _BITS_AT, _COLOUR_AT = slice(16, 20), slice(20, 24), 24, 25
"""Place of the sides in a PNG; the header is always the first chunk."""
_GREY = 0
"""The colour type without a palette."""
_MODES = ("1", "L", "P", "I;16", "I;16B", "I")
"""Pillow's modes of one channel."""


def _decode_sbd(data: bytes) -> Integer[np.ndarray, "h w"]:
    from scipy.io import loadmat

    try:
        pixels = loadmat(BytesIO(data), variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
    # SciPy raises what it likes for damaged bytes.
    except Exception as error:
        raise Unreadable(f"it holds no labels of SBD ({type(error).__name__})") from error
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.dtype.kind not in "iu":
        raise Unreadable("it holds no labels of SBD: GTcls.Segmentation is no matrix of numbers")
    return pixels


def label_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a PNG from its first 26 bytes; None of another file."""
    if not data.startswith(_PNG) or len(data) <= _COLOUR_AT:
        return None
    return int.from_bytes(data[_HEIGHT_AT], "big"), int.from_bytes(data[_WIDTH_AT], "big")


class BadValue(ValueError):
    """A label that is no class of its set and not ignored."""

    def __init__(self, values: Sequence[int], pixels: int) -> None:
        super().__init__(f"value{'s' * (len(values) > 1)} {', '.join(map(str, values[:5]))}")
        self.values = tuple(values)
        """The values, ascending."""
        self.pixels = pixels
        """Number of pixels that have one of them."""


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """The numbers that the files of a set store for its classes."""

    values: tuple[int, ...]
    """The number of each class, in the order of the classes."""
    ignored: tuple[int, ...]
    """The numbers of pixels that have no class."""

    @classmethod
    def counting(cls, classes: int, ignored: int) -> "LabelMap":
        """The classes have the numbers from 0 on, leaving out the one that is ignored.

        If 0 is ignored, the classes have the numbers from 1 on (ADE20K); if 255 or the number of
        the classes is, those from 0 on (PASCAL VOC, CamVid).
        """
        values = [value for value in range(classes + 1) if value != ignored][:classes]
        return cls(tuple(values), (ignored,))

    @functools.cached_property
    def _table(self) -> Int[np.ndarray, " v"]:
        """By the stored number: the class, ``_IGNORED`` or ``_INVALID``."""
        table = np.full(2**16, _INVALID, np.int32)
        table[list(self.ignored)] = _IGNORED
        table[list(self.values)] = np.arange(len(self.values))
        return table

    def __call__(self, stored: Integer[np.ndarray, "h w"]) -> Labels:
        """The classes of stored numbers.

        Raises:
            BadValue: A number is neither that of a class nor ignored.
        """
        inside = (stored >= 0) & (stored < len(self._table)) if stored.itemsize > 2 else None
        if inside is not None and not inside.all():
            raise BadValue(np.unique(stored[~inside]).tolist(), int((~inside).sum()))
        classes = self._table[stored]
        wrong = classes == _INVALID
        if wrong.any():
            raise BadValue(np.unique(stored[wrong]).tolist(), int(wrong.sum()))
        count = len(self.values)
        classes[classes == _IGNORED] = ignore_label(count)
        return classes.astype(label_type(count))

    def __str__(self) -> str:
        """The numbers that are allowed, such as "0 to 10 are the classes and 11 is ignored"."""
        first, last = min(self.values), max(self.values)
        holes = sorted(set(range(first, last + 1)) - {*self.values, *self.ignored})
        besides = f" (without {', '.join(map(str, holes))})" if holes else ""
        outside = ", ".join(map(str, sorted(self.ignored)))
        verb = "is" if len(self.ignored) == 1 else "are"
        return f"{first} to {last}{besides} are the classes and {outside} {verb} ignored"


_IGNORED, _INVALID = -1, -2
