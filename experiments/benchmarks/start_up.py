"""The time from a command to its answer, against an earlier commit.

    python -m experiments.benchmarks.start_up --before COMMIT

checks COMMIT out into a temporary worktree and runs commands that only print with the code of both
trees in turns, each in a fresh process. Prints seconds of both and ratios, this tree over COMMIT:
of the seconds, and of the CPU seconds, which other processes on the machine disturb less.
"""

import dataclasses
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.benchmarks.harness.measure import (
    RESULTS,
    interleave,
    ratio,
    spread,
    table,
    warn_if_busy,
    write,
)
from experiments.benchmarks.harness.worktree import ROOT, worktree
from senet_jax.errors import ExitCode, UsageError
from senet_jax.ranges import check_config, whole

COMMANDS = (
    "--help",
    "models --help",
    "predict --help",
    "train --help",
    "models cifar_seresnet20",
)
COLUMNS = ("command", "before s", "s", "seconds", "CPU seconds")


@dataclasses.dataclass(frozen=True)
class StartUp:
    """Compare the time that commands take to answer with that of a commit."""

    before: str
    """The commit."""
    commands: tuple[str, ...] = COMMANDS
    """Arguments of `senet-jax`."""
    rounds: Annotated[int, whole(1, 1000)] = 7
    """Pairs of each command, after one that is not counted."""
    out: Path = RESULTS / "start_up.json"
    """The result."""


def timed(tree: Path, command: str) -> tuple[float, float]:
    """Seconds and CPU seconds of a command with the code of a source tree.

    Raises:
        RuntimeError: The command fails.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "senet_jax.cli", *shlex.split(command)],
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdout=subprocess.DEVNULL,
        cwd=tree,
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"`senet-jax {command}` failed in {tree}.")
    return seconds, used.ru_utime + used.ru_stime


def compare(before: Path, now: Path, command: str, rounds: int) -> dict[str, Any]:
    """The row of a command: times of both trees, and ratios of ``now`` over ``before``."""
    trees = {"before": before, "now": now}
    cpu: dict[str, list[float]] = {side: [] for side in trees}

    def sampler(side: str) -> Any:
        def sample() -> float:
            seconds, used = timed(trees[side], command)
            cpu[side].append(used)
            return seconds

        return sample

    # The first run of each compiles its modules to bytecode.
    times = interleave({side: sampler(side) for side in trees}, dict.fromkeys(trees, rounds + 1))
    times = {side: values[1:] for side, values in times.items()}
    return {
        "command": f"senet-jax {command}",
        "before s": spread(times["before"]).median,
        "s": spread(times["now"]).median,
        "seconds": ratio(times["now"], times["before"]),
        "CPU seconds": ratio(cpu["now"][1:], cpu["before"][1:]),
        "runs": times,
    }


def main(options: StartUp) -> None:
    """Compares, prints and writes.

    Raises:
        UsageError: The repository does not have the commit, or a number is out of range.
    """
    check_config(options)
    warn_if_busy()
    rows: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        worktree(options.before, Path(scratch) / "tree") as before,
    ):
        for command in options.commands:
            rows.append(compare(before, ROOT, command, options.rounds))
            write(options.out, rows, before=options.before)
    print(f"{table(rows, COLUMNS)}\n\n{options.out}")


if __name__ == "__main__":
    try:
        main(tyro.cli(StartUp, description=__doc__))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)
