"""Image files that a person names: files, folders and patterns."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Int

from senet_jax.data.decode import Unreadable
from senet_jax.data.formats import IMAGE_SUFFIXES
from senet_jax.data.image_search import LeftOut, find_images, is_folder
from senet_jax.data.look_alikes import look_alike, spelled
from senet_jax.data.sources import EncodedSource
from senet_jax.errors import UsageError
from senet_jax.files import os_reason, read_bytes
from senet_jax.text import printable

LOGGER = logging.getLogger(__name__)


class ImageFiles(EncodedSource):
    """Encoded images in files, without labels.

    A file that is named is taken whatever it is called; in a folder, and by a pattern, the rules of
    ``find_images`` hold.

    Args:
        arguments: Files; folders, of which all images are taken, those of their folders too; and
            shell patterns that the shell did not expand.

    Raises:
        UsageError: A folder has no images or cannot be listed, or nothing matches a pattern.
    """

    def __init__(self, arguments: list[str]) -> None:
        self._files: list[Path] = []
        for argument in arguments:
            path = Path(argument)
            if is_folder(path):
                self._files += _images_in(path)
            elif any(sign in argument for sign in "*?[") and not _exists(path):
                for match in _matches(path):
                    self._files += _images_in(match) if is_folder(match) else [match]
            else:
                self._files.append(path)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        """No labels."""
        return np.full(len(self), -1, np.int32)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        file = self._files[index]
        try:
            return read_bytes(file), 0
        except FileNotFoundError as error:
            raise Unreadable(os_reason(error) + _written_otherwise(file)) from error
        except OSError as error:
            raise Unreadable(os_reason(error)) from error

    def name(self, index: int) -> str:
        """The path as it was named."""
        return str(self._files[index])


def _images_in(folder: Path) -> list[Path]:
    left_out = LeftOut()
    found = find_images(folder, left_out)
    if not found:
        suffixes = ", ".join(IMAGE_SUFFIXES)
        raise UsageError(
            f"{printable(str(folder))} has no images: those end in {suffixes}{left_out.clause()}."
        )
    if sentence := left_out.sentence(folder):
        LOGGER.warning("%s", sentence)
    return [folder / name for name in found]


def _matches(pattern: Path) -> list[Path]:
    """The files and folders that match; as in a shell "*" matches no hidden ones."""
    root = Path(pattern.anchor)
    wanted = pattern.relative_to(root)
    # From Python 3.13 on, such a part would be read as "*".
    if any("**" in part and part != "**" for part in wanted.parts):
        raise UsageError(
            f"{printable(str(pattern))} is no pattern of files: ** stands alone between slashes, "
            "as in photos/**/*.jpg."
        )
    try:
        found = sorted(root.glob(str(wanted)))
    except (OSError, ValueError, NotImplementedError) as error:
        raise UsageError(f"{printable(str(pattern))} is no pattern of files: {error}.") from error
    if not any(part.startswith(".") for part in wanted.parts):
        found = [
            path
            for path in found
            if not any(part.startswith(".") for part in path.relative_to(root).parts)
        ]
    if not found:
        raise UsageError(f"no file matches {printable(str(pattern))}.")
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True


def _written_otherwise(file: Path) -> str:
    """Says that a file of the same letters, composed otherwise in Unicode, is there."""
    if file.name.isascii() or not is_folder(file.parent):
        return ""
    alike = look_alike(file.name, (path.name for path in file.parent.iterdir()))
    if alike is None:
        return ""
    return (
        "; a name that looks the same and is composed otherwise in Unicode is there "
        f"({spelled([file.name, alike])})"
    )
