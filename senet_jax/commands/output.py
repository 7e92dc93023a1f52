"""What becomes of a command whose output nobody reads any longer, as in ``... | head``."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

READER_GONE = 141
"""Exit code then: what a shell says of programs that SIGPIPE ends."""


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Ends the process in silence if what reads its standard output has closed it.

    Other pipes that break, such as those to data workers, are errors as before.

    Raises:
        SystemExit: With ``READER_GONE``.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(READER_GONE)


def _reader_is_gone() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
