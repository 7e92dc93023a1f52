"""From the bytes of an image to its pixels."""

from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image


class Unreadable(ValueError):
    """The bytes are no image that can be decoded."""


def decode(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a whole image to RGB, whatever it is encoded as.

    Raises:
        Unreadable: The bytes are no image, or a damaged one.
    """
    try:
        with Image.open(BytesIO(data)) as encoded:
            return np.asarray(encoded.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Unreadable(str(error)) from error
