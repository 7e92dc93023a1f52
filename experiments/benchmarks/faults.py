"""Faults that checkpoints must survive, each made to happen; run by ``checkpoints.py faults``."""

import contextlib
import dataclasses
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from senet_jax.config import CheckpointConfig
from senet_jax.errors import UsageError
from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault and its outcome."""

    what: str
    message: str
    """The sentence."""
    survived: bool
    """One sentence, and the older checkpoints intact."""


def numbers(step: int, size: int = 1000) -> TrainState:
    """A state whose numbers depend on its step and do not compress."""
    drawn = np.random.default_rng(step).standard_normal(size, np.float32)
    leaf = jnp.asarray(drawn)
    return TrainState(jnp.int32(step), {"w": leaf}, {"m": leaf[:9]}, (leaf[::2],), None)


def abstract(size: int = 1000) -> TrainState:
    """The shapes that such a state is restored into."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: numbers(0, size))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)


def same(one: TrainState, other: TrainState) -> bool:
    """Tells whether two states have the same bits."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def damaged_files(folder: Path) -> Iterator[Fault]:
    """Each file of the newest checkpoint truncated, emptied and deleted in turn."""
    good = folder / "good"
    with Checkpoints(good, CheckpointConfig(keep_last=3)) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(numbers(step), {}, {})
    files = sorted(p.relative_to(good) for p in (good / "3").rglob("*") if p.is_file())
    for file in files:
        for name, damage in _DAMAGES.items():
            copy = folder / "copy"
            shutil.copytree(good, copy)
            damage(copy / file)
            yield _read_damaged(f"{file} {name}", copy)
            shutil.rmtree(copy)
            shutil.rmtree(folder / "copy-damaged", ignore_errors=True)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


_DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": _truncate,
    "emptied": lambda file: file.write_bytes(b""),
    "deleted": lambda file: file.unlink(),
}


def _read_damaged(what: str, folder: Path) -> Fault:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("senet_jax")
    logger.addHandler(handler)
    try:
        restored = Checkpoints(folder, CheckpointConfig(keep_last=3)).restore_newest(abstract())
    except UsageError as error:
        return Fault(what, f"nothing restored: {error}", False)
    finally:
        logger.removeHandler(handler)
    assert restored is not None
    right = same(restored.state, numbers(restored.step))
    if restored.step == 3:
        return Fault(what, "not needed to read the numbers, which are right", right)
    return Fault(what, messages[0] if messages else "nothing", right and restored.step == 2)


def full_disk(folder: Path) -> Iterator[Fault]:
    """A disk that fills up while a state is saved."""
    with _disk(folder / "disk", "size=24m") as disk:
        if disk is None:
            return
        size = 1_000_000
        checkpoints = Checkpoints(disk / "checkpoints", CheckpointConfig(keep_last=9))
        saved, message = 0, ""
        try:
            for step in range(1, 10):
                checkpoints.save(numbers(step, size), {}, {})
                saved = step - 1  # What this save has waited for.
        except UsageError as error:
            message = str(error)
        checkpoints.close()
        there = Checkpoints(disk / "checkpoints", CheckpointConfig(keep_last=9))
        intact = there.steps() == list(range(1, saved + 1)) and all(
            same(there.restore(step, abstract(size)).state, numbers(step, size))
            for step in there.steps()
        )
        yield Fault("disk full at a save", message, bool(message) and saved > 0 and intact)
    with _disk(folder / "small", "size=1m") as disk:
        if disk is not None:
            yield _train("disk full during training", folder / "run", disk / "checkpoints")


def read_only(folder: Path) -> Iterator[Fault]:
    """Folders that cannot be written."""
    with _disk(folder / "disk", "ro") as disk:
        if disk is None:
            return
        yield _train("checkpoints on a read-only disk", folder / "run", disk / "checkpoints")
        yield _train("a run on a read-only disk", disk / "run", None)


def two_runs(folder: Path) -> Iterator[Fault]:
    """A second run in the folder of one that is at work."""
    run_dir = folder / "run"
    command = [*_command(run_dir, None), "--epochs", "1000"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while not (saved := _finished(run_dir / "checkpoints")) and time.monotonic() < until:
            time.sleep(0.2)
        done = subprocess.run(command, capture_output=True, text=True)
        message = _sentence(done)
        alive = first.poll() is None and bool(saved)
    finally:
        first.kill()
        first.wait()
    named = f"process {first.pid} on " in message
    yield Fault("two runs in one folder", message, done.returncode == 2 and named and alive)
    yield Fault("the lock after SIGKILL", *_locked_after(run_dir))


def _locked_after(run_dir: Path) -> tuple[str, bool]:
    from senet_jax.training.records.lock import run_lock

    try:
        with run_lock(run_dir):
            return "is free", True
    except UsageError as error:
        return str(error), False


def _train(what: str, run_dir: Path, checkpoints: Path | None) -> Fault:
    done = subprocess.run(_command(run_dir, checkpoints), capture_output=True, text=True)
    message = _sentence(done)
    where = checkpoints or run_dir / "checkpoints"
    intact = True
    if _finished(where):
        listed = [sys.executable, "-m", "senet_jax.cli", "checkpoints", str(where), "--verify"]
        intact = subprocess.run(listed, capture_output=True).returncode == 0
    return Fault(what, message, done.returncode == 2 and bool(message) and intact)


def _command(run_dir: Path, checkpoints: Path | None) -> list[str]:
    flags = ["--checkpoint.every-steps", "5", "--checkpoint.keep-last", "99"]
    flags += [] if checkpoints is None else ["--checkpoint.dir", str(checkpoints)]
    program = [sys.executable, "-m", "senet_jax.cli", "train", "demo"]
    return [*program, "--run-dir", str(run_dir), "--compilation-cache", "False", *flags]


def _sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The error of a command; empty if that is not all it said, or there is none."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("senet-jax: error: ")]
    return lines[0] if len(lines) == 1 and "Traceback" not in done.stderr else ""


def _finished(checkpoints: Path) -> list[str]:
    if not checkpoints.is_dir():
        return []
    return [path.name for path in checkpoints.iterdir() if path.name.isdecimal()]


@contextlib.contextmanager
def _disk(folder: Path, options: str) -> Iterator[Path | None]:
    """A disk in memory; None where there is no right to mount one."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        print("a disk cannot be mounted here: its faults are left out")
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


FAULTS: tuple[Callable[[Path], Iterator[Fault]], ...] = (
    damaged_files,
    full_disk,
    read_only,
    two_runs,
)
