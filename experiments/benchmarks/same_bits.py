"""Compares every bit of small training runs between a commit and this source tree.

    python -m experiments.benchmarks.same_bits --before COMMIT

checks COMMIT out into a temporary worktree, trains the same few small runs with the code of both on
this machine, one after the other, and compares the states of all checkpoints and all metrics but
times, bit by bit. It prints a line for each run, and its exit code is 1 if anything differs. Both
sides compute on the CPU with the packages of this environment. The bits themselves are of no use
to another machine, so that none are kept.

The runs: plain; mixup with accumulation and averaged weights; photographs that two workers decode;
a plateau schedule; eight virtual devices; eight with sharded parameters; two hosts.
"""

import dataclasses
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from experiments.benchmarks.harness.worktree import ROOT, worktree
from senet_jax.errors import ExitCode, UsageError, choose

RUNS = {
    "plain": "demo --epochs 2",
    "mixed": "demo --epochs 2 --data.augment.mixup 0.2 --data.augment.cutmix 1 --accumulate 2 "
    "--ema-decay 0.9 --label-smoothing 0.1 --model.dropout 0.2",
    "photographs": "--data.name folder --data.dir {photographs} --data.image-size 32 "
    "--data.workers 2 --data.batch-size 8 --data.eval-batch-size 8 --data.augment.flip "
    "--data.augment.policy randaugment --epochs 3 --model.name cifar_seresnet8",
    "plateau": "demo --epochs 4 --optimizer.schedule plateau --optimizer.patience 1",
    "eight devices": "demo --epochs 1 --mesh.data 8",
    "fsdp": "demo --epochs 1 --mesh.data 2 --mesh.fsdp 4",
    "two hosts": "demo --epochs 1",
}
"""Arguments of `senet-jax train` by the name of the run."""

DEVICES = {"eight devices": 8, "fsdp": 8}
"""Virtual devices of a process; the others have one."""

HOSTS = {"two hosts": 2}


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare the bits of small runs between a commit and this source tree."""

    before: str
    """The commit to compare with."""
    runs: tuple[str, ...] = tuple(RUNS)
    """Names of the runs."""


def main(options: Options) -> int:
    """Compares, prints, and returns the exit code.

    Raises:
        UsageError: An unknown run, or a commit that this repository does not have.
    """
    for name in options.runs:
        choose("run", name, RUNS)
    differing = 0
    with (
        tempfile.TemporaryDirectory() as scratch,
        worktree(options.before, Path(scratch) / "tree") as old,
    ):
        folder = Path(scratch)
        write_photographs(folder / "photographs")
        for name in options.runs:
            results = []
            for side, tree in (("before", old), ("now", ROOT)):
                run_dir = folder / side / name.replace(" ", "-")
                _train(tree, name, run_dir, folder / "photographs")
                results.append({**_metrics(run_dir), **_states(run_dir)})
            unequal = differences(*results)
            differing += bool(unequal)
            compared = f"{len(results[0])} metrics and arrays"
            shown = f"{len(unequal)} differ, as {', '.join(unequal[:3])}" if unequal else "the same"
            print(f"{name}: {compared}, {shown}", flush=True)
    return 1 if differing else 0


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The names whose values are not the same to the bit, or that one side lacks."""
    return [
        name
        for name in sorted(before.keys() | now.keys())
        if name not in before or name not in now or not _same(before[name], now[name])
    ]


def _same(one: Any, other: Any) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


def write_photographs(folder: Path) -> None:
    """Writes JPEG files of noise in two classes: 16 to train and 8 to validate in each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8)):
        for label in ("a", "b"):
            (folder / split / label).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                image = Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC)
                image.save(folder / split / label / f"{index}.jpg")


def _train(tree: Path, name: str, run_dir: Path, photographs: Path) -> None:
    flags = RUNS[name].format(photographs=photographs).split()
    flags += ["--run-dir", str(run_dir), "--log-every-steps", "1"]
    devices = DEVICES.get(name, 1)
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, "-m", "senet_jax.cli", "train", *flags]
    count = HOSTS.get(name, 1)
    if count > 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        command += ["--hosts.coordinator", address, "--hosts.count", str(count)]
    processes = []
    for index in range(count):
        own = [*command, "--hosts.index", str(index)] if count > 1 else command
        with (run_dir.parent.parent / f"log-{index}").open("w") as log:
            processes.append(
                subprocess.Popen(own, cwd=tree, env=environment, stdout=log, stderr=log)
            )
    codes = [process.wait() for process in processes]
    if any(codes):
        text = (run_dir.parent.parent / "log-0").read_text()
        raise RuntimeError(f"{name} ended with {codes}:\n{text[-2000:]}")


def _metrics(run_dir: Path) -> dict[str, Any]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return {
        f"line {number}, {key}": value
        for number, line in enumerate(map(json.loads, lines))
        for key, value in line.items()
        if not key.startswith("time/")
    }


def _states(run_dir: Path) -> dict[str, Any]:
    """The arrays of all checkpoints of a run by their step and path."""
    import jax
    import orbax.checkpoint as ocp

    # Orbax warns that its own metadata file, which the loop does not write, is missing.
    logging.getLogger("absl").setLevel(logging.ERROR)
    found: dict[str, Any] = {}
    for state in sorted((run_dir / "checkpoints").glob("*/state")):
        with ocp.PyTreeCheckpointer() as reader:
            tree = reader.metadata(state).item_metadata.tree
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            restored = reader.restore(state, restore_args=kinds)
        for path, leaf in jax.tree_util.tree_leaves_with_path(restored):
            found[f"step {state.parent.name}, {jax.tree_util.keystr(path)}"] = leaf
    if not found:
        raise RuntimeError(f"{run_dir} has no checkpoint")
    return found


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Options, description=__doc__)))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(ExitCode.BAD_INPUT)
