"""Kills runs again and again, starts them again, and compares them with one that nobody killed.

    python -m experiments.benchmarks.kill_and_resume --kills 50 --hosts 1 2

Each run of digits is started with the same command until it ends. Meanwhile it is killed, by
SIGKILL and by SIGTERM in turn, at random moments, which fall into start-up, compilation, steps,
validation and saving alike, and in the middle of saves, when a checkpoint's temporary folder has
appeared. With two hosts, two processes that train together, one of them is killed, and the other
must end by itself within a minute. At the end of a run

- parameters, statistics, average and the optimizer's state must be those of the uninterrupted run
  of as many hosts, to the bit, and ``metrics.jsonl`` must have the same lines, timings apart;
- after each kill every checkpoint that is there must be whole, by its fingerprints;
- no later start may have begun before the newest of them.

A kill of a run that has all of this was resumed without loss. Prints the counts by kind and "N of
N", writes them to a file, and exits with 1 if one was not. About half a minute a kill on 2 cores.

    python -m experiments.benchmarks.kill_and_resume --data-dir DATA --workers 0 1 2

does it with the photographs of the prepared ``imagenet2012`` instead, at 64 pixels; each start of
a run has the next of the numbers of workers, while the uninterrupted run has none.

    python -m experiments.benchmarks.kill_and_resume --task segmentation --kills 12

does it with the network and the digit scenes of ``scenes-segmentation``, an eighth of them.
"""

import collections
import dataclasses
import functools
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro

from experiments.benchmarks.harness import measure
from senet_jax.errors import UsageError
from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.records.goodput import goodput_of, read_sessions
from senet_jax.training.records.metrics import read_metrics
from senet_jax.training.records.run_dir import read_config
from senet_jax.training.run import Run

Kind = Literal["SIGKILL", "SIGTERM", "SIGKILL in a save", "SIGTERM in a save"]

PATIENCE_S = 60.0
"""Seconds in which a process must end after it, or another host, was killed."""

MEETING_S = 45.0
"""Seconds for which hosts wait for each other at the start; one may have been killed by then."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Kill runs in many ways and compare them with uninterrupted ones."""

    kills: int = 50
    """Number of kills in all."""
    kills_per_run: int = 5
    """The most kills of a run before it may end."""
    kinds: tuple[Kind, ...] = ("SIGKILL", "SIGTERM", "SIGKILL in a save", "SIGTERM in a save")
    """The kinds of kills, in turn."""
    hosts: tuple[int, ...] = (1,)
    """Numbers of hosts of the runs, in turn; one of them is killed."""
    task: Literal["classification", "segmentation"] = "classification"
    """The task of the digits: one class an image, or one class a pixel of a scene."""
    seed: int = 0
    """Seed of the moments and of the victims."""
    data_dir: Path | None = None
    """The folder that `senet-jax prepare` put imagenet2012 in; None means digits."""
    workers: tuple[int, ...] = (0,)
    """Worker processes of the starts of a run, in turn."""
    folder: Path | None = None
    """Folder of the runs; None means a temporary one."""
    out: Path = measure.RESULTS / "kill_and_resume.json"
    """The file of the counts."""

    def __post_init__(self) -> None:
        if self.data_dir is not None and self.task != "classification":
            sys.exit("--data-dir has photographs to classify: leave out --task.")


def command(run_dir: Path, benchmark: Benchmark, workers: int = 0) -> list[str]:
    """The command of a run: it saves every few steps, so that many kills fall into a save."""
    flags = "--checkpoint.every-steps 5 --ema-decay 0.99 --log-every-steps 7"
    data_dir = benchmark.data_dir
    if benchmark.task == "segmentation":
        flags += " --epochs 4 --data.fraction 0.125 --eval-every-epochs 2"
    elif data_dir is None:
        flags += " --epochs 12"
    else:
        flags += (
            f" --epochs 2 --data.name imagenet2012 --data.dir {data_dir} --data.image-size 64"
            f" --data.batch-size 32 --data.augment.pad 0 --data.augment.flip"
            f" --data.workers {workers}"
        )
    preset = "scenes-segmentation" if benchmark.task == "segmentation" else "demo"
    return [
        *(sys.executable, "-m", "senet_jax.cli", "train", preset),
        *("--run-dir", str(run_dir), *flags.split()),
    ]


def start(run_dir: Path, benchmark: Benchmark, hosts: int, workers: int) -> list[subprocess.Popen]:
    """Starts the processes of a run, which write what they say beside its folder."""
    processes = []
    port = _free_port()
    # Else compiling would be most of each start.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(run_dir.parent / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    for index in range(hosts):
        flags = []
        if hosts > 1:
            flags = [
                *("--hosts.coordinator", f"127.0.0.1:{port}", "--hosts.count", str(hosts)),
                *("--hosts.index", str(index), "--hosts.timeout", str(MEETING_S)),
            ]
        with run_dir.with_name(f"{run_dir.name}-host{index}.log").open("a") as log:
            processes.append(
                subprocess.Popen(
                    [*command(run_dir, benchmark, workers), *flags],
                    env={**os.environ, **cache},
                    stdout=log,
                    stderr=log,
                )
            )
    return processes


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@dataclasses.dataclass
class Kill:
    """One kill, and what came of it."""

    kind: str
    moment: str
    """The contents of the folder."""
    newest: int
    """The newest checkpoint that was there; 0 where there was none."""
    sessions: int
    """Starts that had written their account."""
    codes: list[int]
    """Exit codes, the victim's first; negative for a signal."""
    longest_s: float
    """Seconds from the signal to the end of the last process."""
    problems: list[str]
    """The faults that were found."""


def seconds_from_now(seconds: float) -> Iterator[bool]:
    """Tells whether the moment of a kill has come, as often as it is asked."""
    until = time.perf_counter() + seconds
    while True:
        yield time.perf_counter() >= until


def after_lines(file: Path, count: int, seconds: float) -> Iterator[bool]:
    """Likewise: whether a file has so many lines, and some seconds have gone by since."""
    while not file.exists() or file.read_bytes().count(b"\n") < count:
        yield False
    yield from seconds_from_now(seconds)


def random_moment(run_dir: Path, whole: Path, rng: random.Random) -> Iterator[bool]:
    """A moment in the start-up, or in what comes behind; before the end, whatever the load."""
    (undisturbed,) = read_sessions(whole)
    lines, all_lines = len(read_metrics(run_dir)), len(read_metrics(whole))
    left = (all_lines - lines) // 2
    if left < 1 or rng.random() < 0.3:
        return seconds_from_now(rng.uniform(0.0, 1.2) * undisturbed.seconds["startup"])
    between_s = undisturbed.seconds["steps"] / all_lines
    line = lines + rng.randint(1, left)
    return after_lines(run_dir / "metrics.jsonl", line, rng.uniform(0.0, 2.0) * between_s)


def saves_from_now(folder: Path, count: int) -> Iterator[bool]:
    """Likewise: whether so many checkpoints' temporary folders have appeared."""
    old, seen = _unfinished(folder), set[str]()
    while True:
        seen |= _unfinished(folder) - old
        yield len(seen) >= count


def _unfinished(folder: Path) -> set[str]:
    # By Orbax's name for what is not whole yet.
    return {path.name for path in folder.glob("*.orbax-checkpoint-tmp*")}


def kill_one(
    kind: str,
    run_dir: Path,
    hosts: int,
    begin: Callable[[], list[subprocess.Popen]],
    moment: Iterator[bool],
    rng: random.Random,
) -> Kill | list[int]:
    """Starts a run and kills one of its processes.

    Returns:
        The kill, or the exit codes of a start that ended before its moment had come.
    """
    processes = begin()
    victim = processes[rng.randrange(hosts)]
    others = [process for process in processes if process is not victim]
    while not next(moment):
        if any(process.poll() is not None for process in processes):
            return [_end(process)[0] for process in processes]
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL if kind.startswith("SIGKILL") else signal.SIGTERM)
    began = time.perf_counter()
    ends = [_end(process) for process in (victim, *others)]
    problems = ["a process did not end"] if any(hung for _, hung in ends) else []
    checkpoints = Checkpoints(run_dir / "checkpoints")
    steps = checkpoints.steps()
    for step in steps:
        try:
            checkpoints.restore(step, _run(run_dir).abstract)
        except UsageError as error:
            problems.append(f"corrupt: {error}")
    checkpoints.close()
    unfinished = ", in a save" if _unfinished(run_dir / "checkpoints") else ""
    return Kill(
        kind=kind if hosts == 1 else f"{kind}, one of {hosts} hosts",
        moment=f"{len(read_metrics(run_dir))} lines, checkpoints {steps}{unfinished}",
        newest=steps[-1] if steps else 0,
        sessions=len(read_sessions(run_dir)),
        codes=[code for code, _ in ends],
        longest_s=time.perf_counter() - began,
        problems=problems,
    )


def _end(process: subprocess.Popen) -> tuple[int, bool]:
    """The exit code of a process that is to end, and whether it had to be made to."""
    try:
        return process.wait(PATIENCE_S), False
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(), True


@functools.lru_cache
def _run(run_dir: Path) -> Run:
    return Run(read_config(run_dir))


def outcome(run_dir: Path) -> tuple[list[np.ndarray], list[dict[str, float]]]:
    """The final state's arrays and the lines of metrics without their timings."""
    checkpoints = Checkpoints(run_dir / "checkpoints")
    state = checkpoints.restore(checkpoints.steps()[-1], _run(run_dir).abstract).state
    checkpoints.close()
    lines = [
        {key: value for key, value in line.items() if not key.startswith("time/")}
        for line in read_metrics(run_dir)
    ]
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)], lines


def differences(run_dir: Path, whole: Path, kills: list[Kill]) -> list[str]:
    """The differences of a run that was killed to one that was not; both have ended."""
    problems = []
    (arrays, lines), (expected, expected_lines) = outcome(run_dir), outcome(whole)
    if any(a.tobytes() != b.tobytes() for a, b in zip(arrays, expected, strict=True)):
        problems.append("the state differs")
    if json.dumps(lines) != json.dumps(expected_lines):
        problems.append("the metrics differ")
    sessions = read_sessions(run_dir)
    for kill in kills:
        starts = [session.start for session in sessions[kill.sessions :]]
        if any(begin < kill.newest for begin in starts):
            problems.append(f"started at {starts} where checkpoint {kill.newest} was there")
    return problems


def kill_run(
    run_dir: Path,
    whole: Path,
    benchmark: Benchmark,
    hosts: int,
    kinds: Iterator[str],
    most: int,
    rng: random.Random,
) -> list[Kill]:
    """Runs to the end, with up to so many kills; what is wrong at the end is wrong with all."""
    kills: list[Kill] = []
    workers = itertools.cycle(benchmark.workers)

    def begin() -> list[subprocess.Popen]:
        return start(run_dir, benchmark, hosts, next(workers))

    codes = None
    while codes is None and len(kills) < most:
        kind = next(kinds)
        if kind.endswith("in a save"):
            moment = saves_from_now(run_dir / "checkpoints", rng.randint(1, 8))
        else:
            moment = random_moment(run_dir, whole, rng)
        killed = kill_one(kind, run_dir, hosts, begin, moment, rng)
        if isinstance(killed, Kill):
            kills.append(killed)
            print(f"  {killed.kind} at {killed.moment}; ended with {killed.codes}", flush=True)
        else:
            codes = killed
    if codes is None:
        codes = [process.wait() for process in begin()]
    if any(codes) and not kills:
        sys.exit(f"{run_dir} ended with {codes}, and nobody had killed it")
    problems = [f"ended with {codes}"] if any(codes) else differences(run_dir, whole, kills)
    for kill in kills:
        kill.problems += problems
    return kills


def main() -> None:
    """Runs the benchmark."""
    benchmark = tyro.cli(Benchmark, description=__doc__)
    rng = random.Random(benchmark.seed)
    folder = benchmark.folder or Path(tempfile.mkdtemp(prefix="kill-and-resume-"))
    folder.mkdir(parents=True, exist_ok=True)
    wholes = {}
    for hosts in benchmark.hosts:
        wholes[hosts] = folder / f"whole-{hosts}"
        codes = [process.wait() for process in start(wholes[hosts], benchmark, hosts, 0)]
        if any(codes):
            sys.exit(f"the uninterrupted run of {hosts} hosts ended with {codes}: see {folder}")
        seconds = read_sessions(wholes[hosts])[-1].wall_s
        print(f"{hosts} hosts, uninterrupted: {seconds:.0f} s", flush=True)

    kills: list[Kill] = []
    kinds = {hosts: itertools.cycle(benchmark.kinds) for hosts in wholes}
    redone = 0
    for index in itertools.count():
        if len(kills) >= benchmark.kills:
            break
        hosts = benchmark.hosts[index % len(benchmark.hosts)]
        run_dir = folder / f"killed-{index}"
        print(f"run {index}, {hosts} hosts:", flush=True)
        most = min(benchmark.kills_per_run, benchmark.kills - len(kills))
        new = kill_run(run_dir, wholes[hosts], benchmark, hosts, kinds[hosts], most, rng)
        kills += new
        redone += goodput_of(read_sessions(run_dir)).redone_steps
        problems = sorted({problem for kill in new for problem in kill.problems})
        print(f"  {'; '.join(problems) or 'identical to the uninterrupted run'}", flush=True)
    _tell(benchmark, kills, runs=index, redone=redone)
    sys.exit(any(kill.problems for kill in kills))


def _tell(benchmark: Benchmark, kills: list[Kill], runs: int, redone: int) -> None:
    """Prints the counts and writes them down."""
    all_of, good = (
        collections.Counter(kill.kind for kill in some)
        for some in (kills, [kill for kill in kills if not kill.problems])
    )
    for kind, count in sorted(all_of.items()):
        print(f"{kind:<36}{good[kind]:>4} of {count}")
    slowest = max(kill.longest_s for kill in kills)
    print(
        f"{good.total()} of {all_of.total()} kills in {runs} runs resumed, nothing lost, no "
        f"checkpoint corrupt; {redone} steps redone;\n"
        f"the last process ended at most {slowest:.1f} s after a signal"
    )
    measure.write(
        benchmark.out,
        [dataclasses.asdict(kill) for kill in kills],
        runs=runs,
        resumed={kind: f"{good[kind]} of {count}" for kind, count in sorted(all_of.items())},
        in_all=f"{good.total()} of {all_of.total()}",
        redone_steps=redone,
        slowest_end_s=slowest,
    )


if __name__ == "__main__":
    main()
