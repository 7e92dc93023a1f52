"""The folder of a run's checkpoints, on a disk or in a bucket: what is there, and what is moved."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from senet_jax.config import TrainConfig
from senet_jax.errors import UsageError, installs
from senet_jax.files import read_bytes, read_text, write_text
from senet_jax.training.checkpoints.retention import Record

_LEFT_BEHIND = re.compile(r"\d+\.(orbax-checkpoint-tmp.*|removed)")
"""Names of the remains of a run that was killed while it saved or deleted a checkpoint."""


def checkpoints_of(run_dir: Path, config: TrainConfig) -> epath.Path:
    """The folder of the checkpoints of a run."""
    return epath.Path(config.checkpoint.dir or run_dir / "checkpoints")


class CheckpointFolder:
    """A folder with one folder a checkpoint, which is there when it is complete.

    Args:
        path: Where; it need not be there.
    """

    def __init__(self, path: epath.PathLike) -> None:
        self.path = epath.Path(path)
        self.remote = "://" in str(path)
        if not self.remote:
            self.path = epath.Path(Path(self.path).absolute())
        mode = ocp.options.AtomicityMode
        # A bucket cannot rename a folder: there a file that is written last marks it as complete.
        self.atomicity = ocp.options.AtomicityOptions(
            mode.COMMIT_FILE if self.remote else mode.ATOMIC_RENAME
        )

    def __truediv__(self, name: object) -> epath.Path:
        return self.path / str(name)

    def __str__(self) -> str:
        return str(self.path)

    def steps(self) -> list[int]:
        """Steps that have a finished checkpoint, in order.

        Raises:
            UsageError: The folder cannot be read.
        """
        names = ocp.path.step.standard_name_format(atomicity_options=self.atomicity)
        with _access(self, "read", "; is it there, and may you read it?"):
            if not self.path.exists():
                return []
            return sorted(found.step for found in names.find_all(self.path))

    def read_text(self, name: str) -> str | None:
        """Reads a file of the folder; None if it is not there.

        Raises:
            UsageError: It cannot be read.
        """
        with _access(self / name, "read"):
            if not (self / name).exists():
                return None
            if self.remote:
                return (self / name).read_text()
        return read_text(self / name, "a file of a folder of checkpoints")

    def write_text(self, name: str, text: str) -> None:
        """Writes a file of the folder, on a disk atomically.

        Raises:
            UsageError: It cannot be written.
        """
        if not self.remote:
            write_text(self / name, text)
            return
        with _access(self / name, "written"):
            (self / name).write_text(text)

    def meta(self, step: int) -> dict[str, Any] | None:
        """The values that a checkpoint carries beside its state; None where they are damaged."""
        path = self / step / "meta" / "metadata"
        try:
            data = path.read_bytes() if self.remote else read_bytes(path)
            meta = json.loads(data)
        # The clients of buckets raise errors of no common base.
        except Exception:
            return None
        return meta if isinstance(meta, dict) else None

    def record(self, step: int) -> Record:
        """The metrics of a checkpoint; one that cannot be read counts as without metrics."""
        meta = self.meta(step) or {}
        # Before there were other metrics.
        top1 = {} if meta.get("top1") is None else {"val/top1": meta["top1"]}
        metrics = meta.get("metrics", top1)
        return Record(step, metrics if are_numbers(metrics) else {})

    def prepare(self) -> None:
        """Makes the folder, tries that it can be written, and deletes what killed runs left.

        No other run may be at work in it.

        Raises:
            UsageError: It cannot be written.
        """
        trial = self / "writable"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            trial.write_text("")
            trial.unlink()
            for path in self.left_behind():
                path.rmtree()
        except Exception as error:
            raise UsageError(
                f"checkpoints cannot be written to {self}: {reason(error)}; choose another folder "
                "with --checkpoint.dir, or repair this one."
            ) from error

    def left_behind(self) -> list[epath.Path]:
        """The folders that are no checkpoints: a run was killed while it saved or deleted them."""
        if not self.path.exists():
            return []
        finished = {str(step) for step in self.steps()}
        return [
            path
            for path in self.path.iterdir()
            if path.name not in finished
            and (path.name.isdecimal() or _LEFT_BEHIND.fullmatch(path.name))
        ]

    def remove(self, step: int) -> None:
        """Deletes a checkpoint; killed meanwhile, it leaves none that looks complete."""
        path = self / step
        if not self.remote:
            path = path.rename(self / f"{step}.removed")
        path.rmtree()

    @property
    def damaged(self) -> epath.Path:
        """The folder of damaged checkpoints, which are set aside."""
        return self.path.with_name(f"{self.path.name}-damaged")

    def set_aside(self, step: int) -> None:
        """Moves a damaged checkpoint away, and overwrites none that was moved before."""
        self.damaged.mkdir(exist_ok=True)
        names = [str(step), *(f"{step}-{copy}" for copy in range(1, 1000))]
        free = next(path for name in names if not (path := self.damaged / name).exists())
        (self / step).rename(free)


def are_numbers(values: Any) -> bool:
    """Tells whether values read from JSON are an object of numbers."""
    if not isinstance(values, dict):
        return False
    return all(isinstance(value, int | float) for value in values.values())


@contextlib.contextmanager
def _access(path: object, done: str, hint: str = ".") -> Iterator[None]:
    """Turns what the client of a bucket raises into a UsageError that names ``path``."""
    try:
        yield
    except ImportError as error:
        raise UsageError(f"{path} needs the client of its bucket: {installs('gcs')}.") from error
    # The errors of the clients have no common base.
    except Exception as error:
        raise UsageError(f"{path} cannot be {done}: {reason(error)}{hint}") from error


def check_regular_files(path: epath.Path) -> None:
    """Refuses a checkpoint on a disk that has a FIFO or a device among its files.

    A library that opened a FIFO would wait for ever.

    Raises:
        OSError: A file is no regular file.
    """
    for file in Path(path).rglob("*"):
        if not file.is_file() and not file.is_dir():
            raise OSError(f"{file} is no regular file")


def reason(error: BaseException) -> str:
    """The first line of a library's message, without source locations and TensorStore's specs."""
    text = str(error).strip().partition("\n")[0]
    text = re.sub(r"\s*\[(source locations|tensorstore_spec)=.*", "", text)
    text = text.partition(". See full TensorStore details")[0].rstrip(".")
    if len(text) > 240:
        # The attempt comes first, and the answer of the operating system last.
        text = f"{text[:80]} ... {text[-160:]}"
    return text or type(error).__name__
