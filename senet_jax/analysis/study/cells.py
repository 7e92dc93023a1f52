"""The runs of a study, read and grouped: a cell is one config with several seeds."""

import dataclasses
import json
import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from senet_jax.config import TrainConfig
from senet_jax.data.card import Card
from senet_jax.errors import UsageError, choose
from senet_jax.files import make_folder, os_reason, read_json_object, write_text
from senet_jax.tasks import find_task
from senet_jax.tasks.base import Task, reported
from senet_jax.tasks.metrics import Metric
from senet_jax.training.records.goodput import read_sessions
from senet_jax.training.records.metrics import Line, reached, read_metrics, training_speed
from senet_jax.training.records.run_dir import read_card, read_config

_SEED = re.compile(r"seed\d+")


@dataclasses.dataclass(frozen=True)
class StudiedRun:
    """A run that ended."""

    folder: Path
    config: TrainConfig
    lines: list[Line]

    @property
    def last(self) -> Line:
        """The last line of metrics, with the final validation."""
        return self.lines[-1]

    @property
    def card(self) -> Card | None:
        """The facts of its data set."""
        return read_card(self.folder)

    @property
    def data_name(self) -> str:
        """The name of its data set."""
        return self.config.data.name if self.card is None else self.card.name

    @property
    def images_per_s(self) -> float | None:
        """Images trained on in a second, without what is between the steps; None if not timed."""
        return training_speed(self.lines)

    @property
    def hardware(self) -> set[str]:
        """The devices of its starts, as far as they are recorded."""
        return {each.hardware for each in read_sessions(self.folder) if each.hardware}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A config and its runs, which differ by the seed alone."""

    name: str
    """The folder of the runs, relative to that of the study."""
    runs: dict[int, StudiedRun]
    """By seed; at least one."""

    @property
    def config(self) -> TrainConfig:
        """The config of the first seed."""
        return self.runs[min(self.runs)].config

    @property
    def card(self) -> Card | None:
        """The facts of the data set."""
        return self.runs[min(self.runs)].card

    @property
    def data_name(self) -> str:
        """The name of the data set."""
        return self.runs[min(self.runs)].data_name

    def by_seed(self, key: str) -> dict[int, float]:
        """A number of the final validation by seed."""
        return {seed: run.last[key] for seed, run in sorted(self.runs.items())}

    def shown(self, metric: Metric) -> dict[int, float]:
        """A metric of the final validation by seed, as people are shown it."""
        values = self.by_seed(metric.validation)
        return {seed: metric.shown(value) for seed, value in values.items()}


@dataclasses.dataclass(frozen=True)
class Study:
    """The cells under a folder."""

    folder: Path
    cells: list[Cell]
    """By name."""
    unfinished: list[Path]
    """Runs that have not ended, which are no part of the cells."""
    baseline: str | None = None
    """The baseline of the study itself, if it has one."""

    @property
    def task(self) -> type[Task]:
        """The task of all runs."""
        return find_task(self.cells[0].config.task)

    @property
    def data_name(self) -> str:
        """The name of the data set of all runs."""
        return self.cells[0].data_name


def read_study(folder: Path) -> Study:
    """Reads the runs under a folder, which are of one task and data set.

    Raises:
        UsageError: As in ``read_studies``, or runs are of several data sets or tasks.
    """
    studies = read_studies(folder)
    for what, names in (
        ("on", {study.data_name for study in studies}),
        ("of the tasks", {study.task.name for study in studies}),
    ):
        if len(names) > 1:
            raise UsageError(
                f"{folder} has runs {what} {' and '.join(sorted(names))}, whose results cannot be "
                "compared: report their folders apart."
            )
    return studies[0]


def read_studies(folder: Path) -> list[Study]:
    """Reads the runs under a folder: a study of each task and data set, in the order of these.

    A run that lies in ``NAME/seed3`` belongs to the cell NAME, any other one is a cell by itself.

    Raises:
        UsageError: There are no runs that ended, or runs of one cell differ by more than the seed
            or have the same one; or the study says of itself what cannot be read.
    """
    try:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            raise UsageError(f"{folder} {what}: name a folder of runs.")
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {os_reason(error)}.") from error
    found = sorted(file.parent for file in folder.rglob("config.json"))
    if not found:
        raise UsageError(f"{folder} has no runs: they are folders with a config.json.")
    cells: dict[str, dict[int, StudiedRun]] = {}
    unfinished: list[StudiedRun] = []
    for path in found:
        run = StudiedRun(path, read_config(path), read_metrics(path))
        keys = {metric.validation for metric in reported(find_task(run.config.task))}
        if not reached(run.lines, run.config.epochs) or not keys <= run.last.keys():
            unfinished.append(run)
            continue
        runs = cells.setdefault(_cell_name(folder, path), {})
        _check_alike(run, runs)
        runs[run.config.seed] = run
    if not cells:
        raise UsageError(f"none of the {len(found)} runs in {folder} has ended: wait, or resume.")
    baseline = _read_baseline(folder)
    studies: dict[tuple[str, str], Study] = {}
    for name in sorted(cells, key=natural):
        cell = Cell(name, cells[name])
        key = cell.config.task, cell.data_name
        studies.setdefault(key, Study(folder, [], [], baseline)).cells.append(cell)
    # A run of a task and data set without one that ended is told to the first study.
    first = min(studies)
    for run in unfinished:
        key = run.config.task, run.data_name
        studies[key if key in studies else first].unfinished.append(run.folder)
    return [studies[key] for key in sorted(studies)]


def write_baseline(folder: Path, baseline: str) -> None:
    """Writes into the folder of a study, made if need be, what its report compares with.

    Raises:
        UsageError: It cannot be written.
    """
    make_folder(folder)
    write_text(folder / STUDY, json.dumps({"baseline": baseline}) + "\n")


def _read_baseline(folder: Path) -> str | None:
    file = folder / STUDY
    if not file.exists():
        return None
    instead = "take it away, and give --baseline."
    try:
        baseline = read_json_object(file, "what a study says of itself").get("baseline")
    except UsageError as error:
        raise UsageError(f"{str(error).rstrip('.')}: {instead}") from error
    if not isinstance(baseline, str):
        raise UsageError(f"{file} does not name the baseline of a study: {instead}")
    return baseline


STUDY = "study.json"
"""The file in which a study describes itself."""


def natural(name: str) -> list[str | int]:
    """A key that sorts names with their numbers by value: 2x64d comes before 16x64d."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def check_baseline(baseline: str, names: Collection[str]) -> None:
    """Refuses a baseline with which no cell would be compared.

    Raises:
        UsageError: No cell has that name, nor is called so in its group.
    """
    if not has_baseline(baseline, names):
        choose("cell", baseline, {*names, *(name.rpartition("/")[2] for name in names)})


def has_baseline(baseline: str, names: Collection[str]) -> bool:
    """Says if a baseline is one of these cells, or is called so in a group of them."""
    return any(baseline_of(name, baseline, names) for name in names)


def baseline_of(name: str, baseline: str, names: Collection[str]) -> str | None:
    """The cell that a cell is compared with; a baseline's own is itself.

    Args:
        name: The name of the cell, "GROUP/CELL" or "CELL".
        baseline: Name of the baseline, or what it is called in every group.
        names: The names of all cells.

    Returns:
        The baseline in the folder of the cell, or else in the nearest of the folders around it;
        None where there is none.
    """
    folders = [parent.as_posix() for parent in PurePosixPath(name).parents]
    around = [baseline if folder == "." else f"{folder}/{baseline}" for folder in folders]
    return next((each for each in around if each in names), None)


def _cell_name(folder: Path, path: Path) -> str:
    relative = path.relative_to(folder)
    cell = relative.parent if _SEED.fullmatch(path.name) else relative
    return cell.as_posix() if cell != Path() else folder.absolute().name


def _check_alike(run: StudiedRun, others: dict[int, StudiedRun]) -> None:
    if not others:
        return
    first = next(iter(others.values()))
    config = dataclasses.replace(run.config, seed=first.config.seed)
    differences = config.differences(first.config)
    if differences:
        raise UsageError(
            f"{run.folder} and {first.folder} are of one cell and differ by more than the seed "
            f"({'; '.join(differences)}): give one of them a folder of its own."
        )
    if run.config.seed in others:
        raise UsageError(
            f"{run.folder} and {others[run.config.seed].folder} are of one cell and have the same "
            f"seed {run.config.seed}: take one of them away."
        )
