"""The metrics of a run: ``metrics.jsonl`` and TensorBoard files."""

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from senet_jax.errors import UsageError
from senet_jax.files import os_reason, read_json_lines, write_text
from senet_jax.tasks import built_in
from senet_jax.tasks.base import headline
from senet_jax.training.records.goodput import read_sessions
from senet_jax.training.records.tensorboard import EventFile

Line = dict[str, float]

LARGEST = 3.5e38
"""No metric is larger: they are float32 numbers, seconds or counts."""


def metrics_file(run_dir: Path) -> Path:
    """The file of a run's metrics."""
    return run_dir / "metrics.jsonl"


def read_metrics(run_dir: Path) -> list[Line]:
    """Reads the metrics of a run; a torn last line is left out.

    Every line has ``step`` and ``epoch``, numbers alone, and with the headline of a task of this
    package also its other metrics, but for the optional ones.

    Returns:
        The lines; none if there is no file.

    Raises:
        UsageError: The file cannot be read, or a line is none that a run writes.
    """
    file = metrics_file(run_dir)
    lines = read_json_lines(file, "the metrics of a run")
    for number, line in enumerate(lines, 1):
        if problem := _problem(line):
            raise UsageError(f"{file} is damaged in line {number}: {problem}.")
    return lines


def read_last_metrics(run_dir: Path, *needed: str) -> Line:
    """Reads the last line of a run that has ended, with the final validation.

    Args:
        run_dir: Folder of the run.
        needed: Keys that the line must have besides the count of the images.

    Raises:
        UsageError: As ``read_metrics``, or there is no such line.
    """
    lines = read_metrics(run_dir)
    if not lines or not {_VALIDATED, *needed} <= lines[-1].keys():
        raise UsageError(
            f"{metrics_file(run_dir)} lacks the final validation of the run; its checkpoints may "
            "be intact: `senet-jax evaluate` evaluates them."
        )
    return lines[-1]


def _problem(line: dict[str, object]) -> str | None:
    """The reason why a line is none that a run writes; None if it is one."""
    tasks = list(built_in())
    rates = tuple(f"/{metric.key}" for task in tasks for metric in task.metrics if metric.fraction)
    for key, value in line.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{key!r} is no number"
        # A comparison, because a whole number of JSON may be too large for a float.
        if not abs(value) <= LARGEST:
            return f"{key!r} is no finite number of a metric"
        if (key.endswith(rates) and not 0 <= value <= 1) or (key in _NEEDED and value < 0):
            return f"{key!r} is out of range"
    needed = [*_NEEDED]
    for task in tasks:
        if headline(task).validation in line:
            needed += [metric.validation for metric in task.metrics if not metric.optional]
    missing = next((key for key in needed if key not in line), None)
    return None if missing is None else f"it lacks {missing!r}"


_NEEDED = ("step", "epoch")

_VALIDATED = "val/count"
"""The key that the line of every validation has: its images."""


def training_speed(lines: Sequence[Line]) -> float | None:
    """Images trained on in a second, without what is between the steps.

    None where no step was timed, as in a run that resumed just before its end.
    """
    timed = [line for line in lines if {"time/images_per_s", "time/steps_s"} <= line.keys()]
    seconds = sum(line["time/steps_s"] for line in timed)
    images = sum(line["time/images_per_s"] * line["time/steps_s"] for line in timed)
    return images / seconds if seconds else None


def reached(lines: Sequence[Line], epochs: int) -> bool:
    """Tells whether a run has ended: its last line is of the last epoch, with the validation."""
    return bool(lines) and lines[-1]["epoch"] >= epochs and _VALIDATED in lines[-1]


class MetricsLog:
    """Writes a line of metrics to ``metrics.jsonl`` and to TensorBoard.

    Lines of later steps, of a run that was killed, stay until the first new line replaces them.

    Args:
        run_dir: Folder of the run.
        step: Steps done.

    Raises:
        UsageError: The records that are there cannot be read, and stay as they are; or a file
            cannot be written, as from every method.
    """

    def __init__(self, run_dir: Path, step: int) -> None:
        self._path = metrics_file(run_dir)
        self._kept = [line for line in read_metrics(run_dir) if line["step"] <= step]
        # Sessions that ``SessionLog`` would refuse are refused before anything is written.
        read_sessions(run_dir)
        self._file: io.RawIOBase | None = None
        self._board = EventFile(run_dir / "tensorboard", purge_step=step + 1)

    def write(self, line: Line) -> None:
        """Appends a line, on disk when this returns."""
        try:
            if self._file is None:
                # With the new line in one go: no moment sees a file that is empty.
                lines = (*self._kept, line)
                write_text(self._path, "".join(json.dumps(each) + "\n" for each in lines))
                # Without a buffer, which would be written again when a full disk has ended the run.
                self._file = self._path.open("ab", buffering=0)
            else:
                rest = memoryview((json.dumps(line) + "\n").encode())
                while rest:
                    rest = rest[self._file.write(rest) :]
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        tags = {key: value for key, value in line.items() if "/" in key}
        self._board.scalars(int(line["step"]), tags)
        self._board.flush()

    def images(self, step: int, images: UInt8[np.ndarray, "b h w c"]) -> None:
        """Shows the first sixteen images of a batch in TensorBoard, as the step is given them.

        Args:
            step: The step that trains on them, from 1.
            images: The batch.
        """
        self._board.images(step, "train/images", images[:16])
        self._board.flush()

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
        self._board.close()

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(
            f"{self._path} cannot be written: {os_reason(error)}; fix that, and the same command "
            "goes on from the newest checkpoint."
        )


class Meter:
    """Means of the training metrics since the last line, exact across a restart."""

    def __init__(self, sums: dict[str, float] | None = None) -> None:
        self.sums: dict[str, float] = dict(sums or {})

    def add(self, metrics: dict[str, float]) -> None:
        """Adds the metrics of a step."""
        for name, value in {**metrics, "steps": 1.0}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> Line:
        """The means over the steps, as keys of ``metrics.jsonl``; starts anew."""
        sums, self.sums = self.sums, {}
        steps = sums.pop("steps")
        return {f"train/{name}": value / steps for name, value in sums.items()}
