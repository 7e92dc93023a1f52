"""An account of every second of a run, kept over restarts.

The word is Google's. ML productivity goodput (Wongpanich and others, arXiv 2502.06982) is a product
of three shares; what is kept here is the runtime goodput, the part of the time that a job holds its
machines in which it makes progress that is not lost again. A run cannot see how long it queued, so
the time between its starts, which belongs to the scheduling goodput, is told beside it; and how
well a step uses the devices, the program goodput, is ``time/mfu``.
"""

import dataclasses
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import jax

from senet_jax.errors import UsageError
from senet_jax.files import read_json_lines, write_text

Kind = Literal["startup", "compile", "steps", "data_wait", "evaluation", "checkpoint", "other"]
"""The kinds of time; each second is of one:

- startup: from the start of the process to the first batch: imports, opening the data, the initial
  state or the restored one.
- compile: the first step of each image size, which compiles and is waited for.
- steps: the other steps.
- data_wait: waiting for the next batch. The devices may still be at the step before, so this is the
  most that the data can have cost.
- evaluation: validation, the compilation of its step included.
- checkpoint: what saving holds the loop up.
- other: what is left, such as writing metrics, or a profile.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)

_AT_MOST_EVERY_S = 1.0
"""Between two lines of metrics, the least time from one writing of the account to the next."""

_SHARE = 1e-3
"""The most of the time that those writings may take, should the folder's disk be a slow one."""


def process_age_s() -> float:
    """Seconds since this process was started; 0 where the system does not say (it has no /proc)."""
    try:
        stat = Path("/proc/self/stat").read_text()
    except OSError:
        return 0.0
    # proc_pid_stat(5): the start is field 22; the second, the name, may have spaces and brackets.
    ticks = int(stat.rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


class Account:
    """Attributes the time of a process: at each moment to one kind, so that all kinds sum to it.

    Args:
        age_s: Seconds that have gone by already; they were start-up.
    """

    def __init__(self, age_s: float = 0.0) -> None:
        self.began = time.time() - age_s
        """When the time began, in seconds since 1970."""
        self._spent: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
        self._kind: Kind = "startup"
        self._since = time.perf_counter() - age_s
        self._reported = dict(self._spent)

    def turn_to(self, kind: Kind) -> None:
        """Attributes the time from now on to a kind."""
        now = time.perf_counter()
        self._spent[self._kind] += now - self._since
        self._kind, self._since = kind, now

    @contextmanager
    def during(self, kind: Kind) -> Iterator[None]:
        """Attributes what happens in the context to a kind, and goes on with the present one."""
        before = self._kind
        self.turn_to(kind)
        try:
            yield
        finally:
            self.turn_to(before)

    def spent(self) -> dict[Kind, float]:
        """Seconds of each kind up to now."""
        self.turn_to(self._kind)
        return dict(self._spent)

    def lap(self) -> dict[str, float]:
        """Seconds since the last lap, as keys of ``metrics.jsonl``; kinds without any left out."""
        spent = self.spent()
        lap = {f"time/spent/{kind}_s": spent[kind] - self._reported[kind] for kind in KINDS}
        self._reported = spent
        return {name: seconds for name, seconds in lap.items() if seconds}


@dataclasses.dataclass(frozen=True)
class Session:
    """A start of a run, as far as it is known."""

    began: float
    """When its process began, in seconds since 1970."""
    start: int
    """Steps done before it."""
    step: int
    """Steps done when it was last written down."""
    seconds: dict[str, float]
    """Its seconds by kind."""
    hardware: str | None = None
    """Its devices, as ``hardware.hardware`` names them; None in files of older versions."""

    @property
    def wall_s(self) -> float:
        """All of its time."""
        return sum(self.seconds.values())


def read_sessions(run_dir: Path) -> list[Session]:
    """Reads the starts of a run, in order; a torn last line is left out.

    Returns:
        The starts; none if there is no file, as in runs of older versions.

    Raises:
        UsageError: The file cannot be read, or a line is none that ``SessionLog`` writes.
    """
    file = run_dir / "sessions.jsonl"
    found = []
    for number, values in enumerate(read_json_lines(file, "the starts of a run"), 1):
        try:
            found.append(_session(values))
        except ValueError as error:
            raise UsageError(
                f"{file} is damaged in line {number}: {error}; it only says where the time went: "
                "take it away, and the run goes on without."
            ) from error
    return found


def _session(values: Mapping[str, Any]) -> Session:
    """A line of the file.

    Raises:
        ValueError: It is none that ``SessionLog`` writes; the message says why.
    """
    names = {field.name for field in dataclasses.fields(Session)}
    if missing := sorted(names - {"hardware"} - values.keys()):
        raise ValueError(f"it lacks {missing[0]!r}")
    if unknown := sorted(values.keys() - names):
        raise ValueError(f"{unknown[0]!r} is unknown")
    seconds, hardware = values["seconds"], values.get("hardware")
    if not isinstance(seconds, dict) or not seconds.keys() <= set(KINDS):
        raise ValueError(f"'seconds' are not those of {', '.join(KINDS)}")
    for name, value in {**values, **seconds}.items():
        whole = name in ("start", "step")
        if name in ("seconds", "hardware"):
            continue
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise ValueError(f"{name!r} is no {'whole ' * whole}number")
        # A clock that was never set begins in 1970, and the process began before.
        if not (-_LONGEST if name == "began" else 0) <= value <= _LONGEST:
            raise ValueError(f"{name!r} is out of range")
    if hardware is not None and not isinstance(hardware, str):
        raise ValueError("'hardware' is no text")
    if values["step"] < values["start"]:
        raise ValueError("'step' is before 'start'")
    return Session(**{**values, "seconds": {**dict.fromkeys(KINDS, 0.0), **seconds}})


_LONGEST = 1e12
"""More seconds and steps than any run has."""


@dataclasses.dataclass(frozen=True)
class Goodput:
    """The account of a run over all its starts."""

    starts: int
    """The number of starts of the run."""
    seconds: dict[str, float]
    """By kind; ``steps`` are those that were kept, the others are ``redone``."""
    redone_steps: int
    """Steps that were done, lost because no checkpoint had them yet, and done again."""
    between_s: float
    """Time from the last word of a start to the next one; not in ``seconds``."""

    @property
    def wall_s(self) -> float:
        """The time of all starts together, without what is between them."""
        return sum(self.seconds.values())

    @property
    def share(self) -> float:
        """The goodput: kept steps' part of the time, 0 to 1."""
        return self.seconds["steps"] / self.wall_s if self.wall_s else 0.0


def goodput_of(sessions: Sequence[Session]) -> Goodput:
    """Sums up the starts of a run.

    A step is lost if a later start began before it. The seconds of the lost steps are taken to be
    the mean of their session.
    """
    seconds: dict[str, float] = {**dict.fromkeys(KINDS, 0.0), "redone": 0.0}
    redone_steps, kept_to = 0, None
    for session in reversed(sessions):
        for kind, spent in session.seconds.items():
            seconds[kind] += spent
        if kept_to is not None and (lost := session.step - max(session.start, kept_to)) > 0:
            share = lost / (session.step - session.start) * session.seconds["steps"]
            seconds["steps"] -= share
            seconds["redone"] += share
            redone_steps += lost
        kept_to = session.start if kept_to is None else min(kept_to, session.start)
    between_s = sum(
        # Clocks are set now and then, and hosts' differ.
        max(0.0, later.began - (earlier.began + earlier.wall_s))
        for earlier, later in itertools.pairwise(sessions)
    )
    return Goodput(len(sessions), seconds, redone_steps, between_s)


class SessionLog:
    """Writes the account of this start of a run after those of the earlier ones.

    The file is complete at any moment, and a process that is killed is known up to its last line of
    metrics, or up to about a second before its end. Of several hosts that train together the first
    one writes.

    Args:
        run_dir: Folder of the run, which is there.
        account: The time of this process.
        start: Steps done before.
        hardware: The devices of this start.

    Raises:
        UsageError: The earlier starts cannot be read, or the file cannot be written, as from every
            method.
    """

    def __init__(self, run_dir: Path, account: Account, start: int, hardware: str) -> None:
        self._file, self.account, self._start = run_dir / "sessions.jsonl", account, start
        self._hardware = hardware
        self._earlier = read_sessions(run_dir)
        self._due = 0.0
        self.write(start)

    def _session(self, step: int) -> Session:
        spent = {str(kind): round(seconds, 6) for kind, seconds in self.account.spent().items()}
        return Session(self.account.began, self._start, step, spent, self._hardware)

    def write(self, step: int) -> None:
        """Writes down where the run stands.

        Args:
            step: Steps done.
        """
        if jax.process_index() > 0:
            return
        began = time.perf_counter()
        lines = [
            json.dumps(dataclasses.asdict(session)) + "\n"
            for session in (*self._earlier, self._session(step))
        ]
        write_text(self._file, "".join(lines))
        now = time.perf_counter()
        self._due = now + max(_AT_MOST_EVERY_S, (now - began) / _SHARE)

    def beat(self, step: int) -> None:
        """Writes it down if that was long ago.

        Args:
            step: Steps done.
        """
        if time.perf_counter() >= self._due:
            self.write(step)

    def line(self, step: int) -> dict[str, float]:
        """The keys of a line of metrics: what the time since the last went to, and the goodput.

        Args:
            step: Steps done.
        """
        share = goodput_of([*self._earlier, self._session(step)]).share
        return {**self.account.lap(), "time/goodput": share}
