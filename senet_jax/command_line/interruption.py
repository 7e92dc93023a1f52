"""Ctrl-C: one line and exit code 130, whatever the process is at."""

import _thread
import contextlib
import os
import signal
import socket
import sys
import threading
from types import FrameType, TracebackType

from senet_jax.errors import ExitCode

DELIVERED_WITHIN_S = 3.0
"""Seconds within which Python code notices an interrupt, unless it waits for a compiler."""

ENDS_WITHIN_S = 30.0
"""Seconds that a command takes at most to remove unfinished files and to end its workers."""


class _Watch:
    """Raises KeyboardInterrupt at Ctrl-C, and ends a process that does not end of it."""

    def __init__(self, ends_within_s: float | None) -> None:
        self._ends_within_s = ends_within_s
        self._received, self._delivered = threading.Event(), threading.Event()
        self._said = False
        self._renewed = False
        ours, self._interrupts = socket.socketpair()
        ours.setblocking(False)
        # Python's handlers wait for the main thread to return from C; a byte is written at once.
        signal.set_wakeup_fd(ours.detach(), warn_on_full_buffer=False)
        # Both now: from Python 3.12 on, an interpreter that ends starts no more threads.
        for target in (self._run, self._end_late):
            threading.Thread(target=target, name="interrupts", daemon=True).start()
        signal.signal(signal.SIGINT, self.interrupt)
        signal.signal(signal.SIGURG, lambda number, frame: None)
        sys.unraisablehook = self._unraisable
        sys.excepthook = self._uncaught

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handles SIGINT."""
        self._delivered.set()
        raise KeyboardInterrupt

    def _run(self) -> None:
        first = True
        while True:
            for number in self._interrupts.recv(64):
                # The training takes SIGINT as a sign to save its state.
                ours = signal.getsignal(signal.SIGINT) == self.interrupt
                if number != signal.SIGINT or not ours:
                    continue
                if self._renewed:
                    self._renewed = False
                elif first:
                    first = False
                    # The main thread may have SIGINT blocked, and waits on until it is woken.
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGURG)
                    self._received.set()
                else:
                    self.end()

    def _end_late(self) -> None:
        self._received.wait()
        if self._delivered.wait(DELIVERED_WITHIN_S):
            if self._ends_within_s is None:
                return
            threading.Event().wait(self._ends_within_s)
        self.end()

    def say(self) -> None:
        """Prints the one line, once."""
        if not self._said:
            self._said = True
            with contextlib.suppress(OSError):
                os.write(2, _line().encode())

    def end(self) -> None:
        """Ends the process at once."""
        self.say()
        os._exit(ExitCode.INTERRUPTED)

    def _unraisable(self, what: "sys.UnraisableHookArgs") -> None:
        if what.exc_type is KeyboardInterrupt:
            # Raised in a callback of the garbage collector, where Python drops it.
            self._renewed = True
            # Not at once: it would be raised in this callback.
            again = threading.Timer(0.01, _thread.interrupt_main)
            again.daemon = True
            # An interpreter that ends anyway starts none.
            with contextlib.suppress(RuntimeError):
                again.start()
        else:
            sys.__unraisablehook__(what)

    def _uncaught(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if is_interrupt(error):
            # Before main began, or after it.
            self.end()
        sys.__excepthook__(kind, error, trace)


def is_interrupt(error: BaseException | None) -> bool:
    """Tells Ctrl-C, also if Python or a library raised another error because of it.

    Python 3.11 makes a RuntimeError of all that ``__set_name__`` raises, as an import runs it.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


_watch: _Watch | None = None


def watch_interrupts(*, ends_within_s: float | None = ENDS_WITHIN_S) -> None:
    """Makes this process end at Ctrl-C, by KeyboardInterrupt if it can; a second ends it at once.

    A process that was started to ignore SIGINT, as in the background of a script, still does.

    Args:
        ends_within_s: Seconds that the process has to end after KeyboardInterrupt was raised; None
            means any time, for one that waits until others have saved their state.
    """
    global _watch
    if _watch is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _watch = _Watch(ends_within_s)


def say_interrupted() -> int:
    """Prints the one line of an interrupted command; returns its exit code."""
    if _watch is not None:
        _watch.say()
    else:
        print(_line(), end="", file=sys.stderr)
    return ExitCode.INTERRUPTED


def _line() -> str:
    # A bar of progress leaves the cursor in its line.
    start = "\n" if sys.stderr is not None and sys.stderr.isatty() else ""
    return f"{start}senet-jax: interrupted.\n"
