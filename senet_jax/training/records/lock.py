"""The lock of a folder: one process at a time trains in that of a run, or runs a study."""

import datetime
import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from senet_jax.errors import UsageError

LOGGER = logging.getLogger(__name__)

LOCK = ".lock"
"""Name of the lock file in a run's folder. The file stays; the system releases the lock when the
process that holds it exits."""

_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Holds the lock of a run's folder as ``folder_lock`` does, on the first host."""
    if jax.process_index() != 0:
        yield
        return
    with folder_lock(run_dir, "give this run a folder of its own with --run-dir"):
        yield


@contextmanager
def folder_lock(folder: Path, instead: str) -> Iterator[None]:
    """Holds the lock of a folder, which is made if it is not there.

    The lock is the operating system's: however the process ends, it is free. Where the file system
    has no locks there is a warning.

    Args:
        folder: The folder.
        instead: The advice in the message, besides waiting for the process that holds it.

    Raises:
        UsageError: Another process holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(
                f"{folder} is in use by {_holder(file.read())}: wait for it to end, stop it, or "
                f"{instead}."
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            LOGGER.warning(
                "%s is on a file system without locks: start no second run in it", folder
            )
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": now}, file)
        file.flush()
        yield


def is_held(folder: Path) -> bool:
    """Tells whether a process holds it, here or, if the file system says so, on another machine."""
    try:
        file = (folder / LOCK).open("rb")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def _holder(text: str) -> str:
    """Who wrote a lock file; it may be just about to."""
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
