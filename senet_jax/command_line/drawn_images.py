"""The images that `senet-jax predict` draws on: reading them, and the names of the pictures."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from senet_jax.errors import UsageError
from senet_jax.text import printable

if TYPE_CHECKING:
    import numpy as np

    from senet_jax.data.image_files import ImageFiles


def tell_unreadable(name: str, reason: object) -> None:
    """Prints on standard error that a file is left out.

    Args:
        name: The path of the file.
        reason: The reason why it cannot be read as an image.
    """
    sentence = f"senet-jax: {name} cannot be read as an image: {reason}"
    print(printable(sentence), file=sys.stderr)


def read_image(images: "ImageFiles", index: int, turned: bool) -> "np.ndarray | None":
    """Reads an image, (h, w, 3) uint8; if it cannot be read, says so and returns None.

    Args:
        images: The files.
        index: The number of the file.
        turned: Turn the image as its EXIF says.
    """
    from senet_jax.data.decode import Unreadable, decode

    try:
        return decode(images[index][0], turned)
    except Unreadable as error:
        tell_unreadable(images.name(index), error)
        return None


def names_of_pictures(images: "ImageFiles") -> list[str]:
    """The names of the images without folder and suffix, by which their pictures are named.

    Raises:
        UsageError: Two images have one name.
    """
    found: dict[str, str] = {}
    for index in range(len(images)):
        name = images.name(index)
        stem = Path(name).stem
        if stem in found:
            raise UsageError(
                f"{printable(found[stem])} and {printable(name)} would have pictures of one name: "
                "predict them one after the other, with another --out."
            )
        found[stem] = name
    return list(found)
