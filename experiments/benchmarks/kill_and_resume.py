"""Kills a run at random moments, starts it again, and compares it with one that nobody killed.

    python experiments/benchmarks/kill_and_resume.py --runs 20

Each run of digits is started with the same command until it ends; a SIGKILL comes after a random
time, which falls into start-up, compilation, steps, validation and saving alike. At the end the
parameters and the optimizer's state must be bit-identical to those of the uninterrupted run, and
``metrics.jsonl`` must have the same lines, timings apart. Prints the count; exits with 1 if one
run differs. One to three minutes a run on 2 cores.

    python experiments/benchmarks/kill_and_resume.py --data-dir DATA --workers 0 1 2

does it with the photographs of the prepared ``imagenet2012`` instead, at 64 pixels; each start of
a run has the next of the numbers of workers, while the uninterrupted run has none.
"""

import dataclasses
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import tyro

from senet_jax.training.checkpoint import Checkpoints
from senet_jax.training.logging import read_metrics
from senet_jax.training.run import Run
from senet_jax.training.run_dir import read_config


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Kill runs at random and compare them with an uninterrupted one."""

    runs: int = 20
    """How many runs are killed."""
    kills: int = 1
    """How often each is killed before it may end."""
    seed: int = 0
    """Seed of the moments."""
    data_dir: Path | None = None
    """Where `senet-jax prepare` put imagenet2012; None means digits."""
    workers: tuple[int, ...] = (0,)
    """Worker processes of the starts of a run, in turn."""
    out: Path | None = None
    """Folder of the runs; None means a temporary one."""


def command(run_dir: Path, data_dir: Path | None, workers: int = 0) -> list[str]:
    """The command of a run: it saves every few steps, so that many kills fall into a save."""
    flags = "--checkpoint.every-steps 5 --ema-decay 0.99 --log-every-steps 7"
    if data_dir is None:
        flags += " --epochs 12"
    else:
        flags += (
            f" --epochs 2 --data.name imagenet2012 --data.dir {data_dir} --data.image-size 64"
            f" --data.batch-size 32 --data.augment.pad 0 --data.augment.flip"
            f" --data.workers {workers}"
        )
    return [
        *(sys.executable, "-m", "senet_jax.cli", "train", "demo"),
        *("--run-dir", str(run_dir), *flags.split()),
    ]


def kill_and_resume(
    run_dir: Path, benchmark: Benchmark, longest: float, rng: random.Random
) -> list[str]:
    """Runs to the end with so many kills; returns what was on disk at each kill.

    A run that ends before its moment has come does not count and starts anew.
    """
    moments: list[str] = []
    starts = itertools.cycle(benchmark.workers)
    while len(moments) < benchmark.kills:
        start = command(run_dir, benchmark.data_dir, next(starts))
        process = subprocess.Popen(start, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.3, 1.0) * longest)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        else:
            shutil.rmtree(run_dir)
            moments.clear()
            continue
        saved = sorted(path.name for path in (run_dir / "checkpoints").glob("*"))
        lines = len(read_metrics(run_dir))
        moments.append(f"{lines} lines, {saved[-1] if saved else 'no checkpoint'}")
    last = command(run_dir, benchmark.data_dir, next(starts))
    subprocess.run(last, check=True, stdout=subprocess.DEVNULL)
    return moments


def outcome(run_dir: Path) -> tuple[list[np.ndarray], list[dict[str, float]]]:
    """The final state's arrays and the lines of metrics without their timings."""
    checkpoints = Checkpoints(run_dir / "checkpoints")
    run = Run(read_config(run_dir))
    state = checkpoints.restore(checkpoints.steps()[-1], run.abstract).state
    lines = [
        {key: value for key, value in line.items() if not key.startswith("time/")}
        for line in read_metrics(run_dir)
    ]
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)], lines


def main() -> None:
    """Runs the benchmark."""
    benchmark = tyro.cli(Benchmark, description=__doc__)
    rng = random.Random(benchmark.seed)
    folder = benchmark.out or Path(tempfile.mkdtemp(prefix="kill-and-resume-"))
    began = time.perf_counter()
    whole = command(folder / "whole", benchmark.data_dir)
    subprocess.run(whole, check=True, stdout=subprocess.DEVNULL)
    longest = time.perf_counter() - began
    print(f"uninterrupted: {longest:.0f} s", flush=True)
    arrays, lines = outcome(folder / "whole")
    same = 0
    for index in range(benchmark.runs):
        run_dir = folder / f"killed{index}"
        moments = kill_and_resume(run_dir, benchmark, longest, rng)
        killed_arrays, killed_lines = outcome(run_dir)
        identical = json.dumps(lines) == json.dumps(killed_lines) and all(
            a.tobytes() == b.tobytes() for a, b in zip(arrays, killed_arrays, strict=True)
        )
        same += identical
        verdict = "identical" if identical else "DIFFERENT"
        print(f"run {index}: {verdict}; killed at {'; '.join(moments)}", flush=True)
    print(
        f"{same} of {benchmark.runs} runs, each with {benchmark.kills} SIGKILLs, ended identical "
        f"(jax {jax.__version__}, {jax.devices()[0].device_kind})"
    )
    sys.exit(same != benchmark.runs)


if __name__ == "__main__":
    main()
