"""TensorBoard's event files, one for each start of a run, in the order of the starts."""

import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from senet_jax.errors import UsageError
from senet_jax.files import make_folder, os_reason

_NAME = re.compile(r"events\.out\.tfevents\.(\d+)")

_LATEST_S = 5_000_000_000
"""A clock that is later than this, the year 2128, is taken for it: the names have ten digits."""


class EventFile:
    """A new event file.

    TensorBoard reads the files of a folder in the order of their names, which begin with the time,
    and takes a start of a run for the newest by this order alone. tensorboardX names a file by the
    clock, so that a file sorts before those of earlier starts if the clock was set back, and
    replaces that of a start within the same second. Here a name follows all others of its folder.

    Args:
        folder: The folder, which is made if it is not there.
        purge_step: TensorBoard forgets the events of earlier starts from this step on.

    Raises:
        UsageError: It cannot be written, as from every method.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        # tensorboardX takes a path such as s3:x for the address of a bucket.
        folder = folder.absolute()
        self._folder = folder
        make_folder(folder)
        try:
            self._writer = RecordWriter(str(folder / next_name(folder)))
        except OSError as error:
            raise self._unwritable(error) from error
        self._add(Event(file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._add(Event(step=purge_step, session_log=start))
        self.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds numbers by their tags."""
        for tag, value in values.items():
            self._add(Event(step=step, summary=summary.scalar(tag, value)))

    def images(self, step: int, tag: str, images: UInt8[np.ndarray, "b h w c"]) -> None:
        """Adds a grid of images."""
        grid = summary.image(tag, images, dataformats="NHWC")
        self._add(Event(step=step, summary=grid))

    def flush(self) -> None:
        """Returns when all is on the disk."""
        try:
            self._writer.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Closes the file."""
        try:
            self._writer.close()
        except OSError as error:
            raise self._unwritable(error) from error

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        try:
            self._writer.write(event.SerializeToString())
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(f"{self._folder} cannot be written: {os_reason(error)}.")


def next_name(folder: Path) -> str:
    """The name of a new event file, which sorts behind all that are there.

    Args:
        folder: The folder.
    """
    now = min(max(int(time.time()), 0), _LATEST_S)
    # A name of fewer than ten digits, which a clock before 2001 leads to, stands for the last
    # stamp that begins so.
    stamps = [
        int(match[1].ljust(10, "9")[:10])
        for path in folder.iterdir()
        if (match := _NAME.match(path.name))
    ]
    stamp = max([now, *(stamp + 1 for stamp in stamps)])
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())
    return f"events.out.tfevents.{stamp:010}.{host}"
