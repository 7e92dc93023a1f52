"""A table of a study that is running, kept up to date."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from senet_jax.errors import UsageError
from senet_jax.studies.runner import Progress, State, log_of
from senet_jax.tasks import find_task
from senet_jax.tasks.base import headline
from senet_jax.tasks.metrics import Metric
from senet_jax.terminal import unescaped
from senet_jax.text import printable
from senet_jax.training.records.metrics import Line, read_metrics


class LiveTable:
    """Shows where the jobs of a study stand.

    On a terminal a table that changes in place; elsewhere a line whenever a job changes its state.
    """

    def __init__(self) -> None:
        # rich draws with control characters, which are not to be escaped, and reads markup in
        # strings: the cells of the table are Text.
        self._console = Console(file=unescaped(sys.stdout))
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._said: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, progress: Sequence[Progress]) -> None:
        """Shows where all jobs stand."""
        if self._console.is_terminal:
            self._live.update(_table(progress, self._console.height - _FRAME), refresh=True)
            return
        for one in progress:
            if self._said.get(one.job.name) != one.state:
                self._said[one.job.name] = one.state
                if one.state != "waiting":
                    print(" | ".join([*_row(one), *_reason(one)]), flush=True)


_FRAME = 6
"""Lines of a table that are not rows: title, head, rules, and the line below."""


def _table(progress: Sequence[Progress], most: int) -> Table:
    """The table, with ``most`` rows: first what runs or failed, then what waits."""
    count = sum(one.state == "done" for one in progress)
    shown = sorted(progress, key=lambda one: _FIRST.index(one.state))[: max(most, 1)]
    hidden = Counter(one.state for one in progress if one not in shown)
    caption = ", ".join(f"{number} {state}" for state, number in sorted(hidden.items()))
    table = Table(
        title=f"{count} of {len(progress)} runs have ended",
        caption=f"and {caption}" if caption else None,
    )
    titles = {_metric(one).short_title for one in progress}
    title = titles.pop() if len(titles) == 1 else "metric"
    for column in ("run", "state", "epoch", title, "images/s", "time"):
        table.add_column(Text(column))
    for one in progress:
        if one in shown:
            table.add_row(*map(Text, _row(one)))
    return table


_FIRST: tuple[State, ...] = ("running", "failed", "waiting", "done")


def _metric(one: Progress) -> Metric:
    return headline(find_task(one.job.config.task))


def _row(one: Progress) -> list[str]:
    try:
        lines: list[Line] = [] if one.state == "waiting" else read_metrics(one.job.config.run_dir)
    except UsageError:
        # The run itself reads them, and fails with the sentence.
        return [printable(one.job.name), one.state, "unreadable", "", "", ""]
    last: Line = lines[-1] if lines else {}
    metric = _metric(one)
    validated = [line[metric.validation] for line in lines if metric.validation in line]
    minutes, seconds = divmod(round(time.monotonic() - one.began), 60)
    return [
        printable(one.job.name),
        one.state,
        f"{last['epoch']:.0f} of {one.job.config.epochs}" if last else "",
        metric.shown_text(validated[-1]) if validated else "",
        f"{last['time/images_per_s']:,.0f}" if "time/images_per_s" in last else "",
        f"{minutes}:{seconds:02}" if one.state == "running" else "",
    ]


def _reason(one: Progress) -> list[str]:
    if one.state != "failed":
        return []
    return [printable(f"{one.reason} (all of it: {log_of(one.job)})")]


def tell_failures(progress: Sequence[Progress]) -> int:
    """Names the runs that failed on standard error; returns how many there are."""
    failed = [one for one in progress if one.state == "failed"]
    by_reason: dict[str, list[Progress]] = {}
    for one in failed:
        by_reason.setdefault(one.reason, []).append(one)
    for reason, those in by_reason.items():
        names = ", ".join(one.job.name for one in those)
        sentence = f"{names} failed: {reason} (all of it: {log_of(those[0].job)})"
        print(printable(sentence), file=sys.stderr)
    return len(failed)
