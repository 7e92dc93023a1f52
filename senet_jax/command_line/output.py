"""The standard streams of a command: closed ones, a reader that has left, a full disk."""

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from senet_jax.errors import ExitCode, UsageError
from senet_jax.terminal import failed_with


def open_streams() -> None:
    """Opens standard streams that are closed, as ``>&-`` does, to read and write nothing.

    Otherwise ``sys.stdout`` is None, and the next file that is opened gets the number of a standard
    stream, into which libraries then print. What a stream's encoding lacks is escaped.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Ends the process in silence if what reads its standard output has closed it.

    Other pipes that break, such as those to data workers, are errors as before.

    Raises:
        SystemExit: With ``ExitCode.READER_GONE``.
        UsageError: Standard output cannot be written, as on a full disk.
    """
    if sys.stdout is None:
        yield
        return
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        _write_nothing()
        sys.exit(ExitCode.READER_GONE)
    except OSError as error:
        if not _is_of_output(error):
            raise
        _write_nothing()
        raise UsageError(
            f"standard output cannot be written: {error.strerror or error}."
        ) from error


def _is_of_output(error: OSError) -> bool:
    """Tells whether the output could not be written, and no other file."""
    if failed_with(sys.stdout) is error:
        return True
    try:
        sys.stdout.flush()
    except OSError:  # The text that could not be written is still in the buffer.
        return True
    return False


def _write_nothing() -> None:
    """Lets Python's last flush, at its end, succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_is_gone() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
