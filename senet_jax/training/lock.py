"""The lock of a run's folder: one process at a time trains in it."""

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
"""The file in a run's folder; it stays, the lock goes with the process that holds it."""

_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds the lock of a run's folder, which is made if it is not there; the first host does.

    The lock is the operating system's: however the process ends, it is free. Where the file system
    has no locks there is a warning.

    Args:
        run_dir: Folder of the run.

    Raises:
        UsageError: Another process holds it, or the folder cannot be written.
    """
    if jax.process_index() != 0:
        yield
        return
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = (run_dir / LOCK).open("a+")
    except OSError as error:
        raise UsageError(f"{run_dir} cannot be written: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UsageError(
                f"{run_dir} is in use by {_holder(file.read())}: wait for it to end, stop it, or "
                "give this run a folder of its own with --run-dir."
            ) from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            LOGGER.warning(
                "%s is on a file system without locks: start no second run in it", run_dir
            )
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": now}, file)
        file.flush()
        yield


def _holder(text: str) -> str:
    """Who wrote a lock file; it may be just about to."""
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
