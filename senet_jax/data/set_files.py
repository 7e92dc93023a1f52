"""Reading a file of a data set, whose folder may vanish while a run goes on."""

from pathlib import Path

from senet_jax.data.decode import Unreadable
from senet_jax.data.image_search import is_folder
from senet_jax.errors import UsageError
from senet_jax.files import os_reason, read_bytes


def read_set_file(file: Path, folder: Path) -> bytes:
    """The bytes of a file.

    Args:
        file: The file.
        folder: The folder of the set.

    Raises:
        UsageError: The folder is gone.
        Unreadable: The file alone cannot be read.
    """
    try:
        return read_bytes(file)
    except OSError as error:
        if not is_folder(folder):
            raise gone(folder) from error
        raise Unreadable(os_reason(error)) from error


def gone(folder: Path) -> UsageError:
    """The error of a folder that was there before."""
    return UsageError(
        f"{folder} can no longer be read: bring it back and start the same command again; the run "
        "goes on from its last checkpoint."
    )
