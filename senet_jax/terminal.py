"""The terminal: text that others wrote reaches it escaped.

Names of classes, cells and files and the messages of other libraries are printed in many places.
The escaping is therefore where text leaves the program: in its streams and in its log.
"""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from senet_jax.text import printable


@contextmanager
def escaped_output() -> Iterator[None]:
    """Escapes what is printed within: a control character acts on no terminal.

    All but line breaks becomes backslash escapes as in ``text.printable``, and so does what the
    encoding of the stream lacks. A library that draws with control characters is given the stream
    of ``unescaped``.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_escaped, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unescaped(stream: TextIO) -> TextIO:
    """The stream below one of ``escaped_output``; any other stream is returned as it is."""
    return stream.below if isinstance(stream, _EscapedStream) else stream


def failed_with(stream: TextIO) -> OSError | None:
    """The error with which a stream of ``escaped_output`` could not be written; None if none."""
    return stream.failed if isinstance(stream, _EscapedStream) else None


class OneLine(logging.Formatter):
    """Formats a log record as one line, with control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _EscapedStream:
    """A text stream that escapes what is written to another one.

    It equals that one: tqdm compares streams to learn that a bar and a line share a terminal.
    """

    def __init__(self, below: TextIO) -> None:
        self.below = below
        self.failed: OSError | None = None

    def write(self, text: str) -> int:
        encoding = self.below.encoding or "utf-8"
        safe = "\n".join(map(printable, text.split("\n")))
        try:
            self.below.write(safe.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self.failed = error
            raise
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __eq__(self, other: object) -> bool:
        return self is other or self.below == getattr(other, "below", other)

    def __hash__(self) -> int:
        return hash(self.below)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)


def _escaped(stream: TextIO) -> TextIO:
    # A process that is started without the stream has None in its place.
    if stream is None or isinstance(stream, _EscapedStream):
        return stream
    return cast(TextIO, _EscapedStream(stream))
