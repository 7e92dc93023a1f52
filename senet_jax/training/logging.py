"""What a run writes down: ``metrics.jsonl`` and TensorBoard files."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import tensorboardX
from jaxtyping import UInt8

from senet_jax.errors import UsageError
from senet_jax.files import write_text

Line = dict[str, float]


def read_metrics(run_dir: Path) -> list[Line]:
    """Reads the whole lines of a run's ``metrics.jsonl``; a torn last line is left out.

    Raises:
        UsageError: Another line cannot be read.
    """
    file = run_dir / "metrics.jsonl"
    if not file.exists():
        return []
    lines: list[Line] = []
    for number, text in enumerate(file.read_text().split("\n")[:-1], 1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise UsageError(f"{file} is damaged in line {number}: {error}.") from error
    return lines


def training_speed(lines: Sequence[Line]) -> float | None:
    """Images trained on in a second, without what is between the steps.

    None where no step was timed, as in a run that resumed just before its end.
    """
    timed = [line for line in lines if "time/images_per_s" in line]
    seconds = sum(line["time/steps_s"] for line in timed)
    images = sum(line["time/images_per_s"] * line["time/steps_s"] for line in timed)
    return images / seconds if seconds else None


def reached(lines: Sequence[Line], epochs: int) -> bool:
    """Whether a run has ended: its last line is that of the last epoch, with its validation."""
    return bool(lines) and lines[-1]["epoch"] >= epochs and "val/top1" in lines[-1]


class MetricsLog:
    """Writes a line of metrics to ``metrics.jsonl`` and to TensorBoard.

    Lines of later steps, of a run that was killed, stay until the first new line replaces them.

    Args:
        run_dir: Folder of the run.
        step: Steps done.
    """

    def __init__(self, run_dir: Path, step: int) -> None:
        self._path = run_dir / "metrics.jsonl"
        self._kept = [line for line in read_metrics(run_dir) if line["step"] <= step]
        self._file: IO[str] | None = None
        self._board = tensorboardX.SummaryWriter(
            str(run_dir / "tensorboard"), purge_step=step + 1, write_to_disk=True
        )

    def write(self, line: Line) -> None:
        """Appends a line, on disk when this returns."""
        if self._file is None:
            write_text(self._path, "".join(json.dumps(each) + "\n" for each in (*self._kept, line)))
            self._file = self._path.open("a")
        else:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        for key, value in line.items():
            if "/" in key:
                self._board.add_scalar(key, value, int(line["step"]))
        self._board.flush()

    def images(self, step: int, images: UInt8[np.ndarray, "b h w c"]) -> None:
        """Shows the first sixteen images of a batch in TensorBoard, as the step is given them.

        Args:
            step: The step that trains on them, from 1.
            images: The batch.
        """
        self._board.add_images("train/images", images[:16], step, dataformats="NHWC")
        self._board.flush()

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
        self._board.close()


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
