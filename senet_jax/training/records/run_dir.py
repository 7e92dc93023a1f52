"""The folder of a run: the run that it belongs to, its config, and the facts of its data."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import jax

from senet_jax.config import TrainConfig
from senet_jax.data.card import Card
from senet_jax.errors import UsageError
from senet_jax.files import os_reason, read_json_object, write_text
from senet_jax.training.checkpoints.folder import CheckpointFolder, checkpoints_of
from senet_jax.training.distributed.hosts import barrier, is_first
from senet_jax.training.records.goodput import read_sessions
from senet_jax.training.records.lock import LOCK
from senet_jax.training.records.metrics import read_metrics

LOGGER = logging.getLogger(__name__)

CONFIG, CARD = "config.json", "dataset.json"

NEWEST = "newest_checkpoint.json"
"""The file that says the step of the newest finished checkpoint; it outlives the checkpoints."""

SEEN_AFTER_S = 30.0
"""Seconds after which a host sees on a network drive a file that another host wrote."""

_WEIGHTS_SHA256 = "init_weights_sha256"
"""The checksum of the initial weights, beside the fields of the config in its file."""

_RECOGNISED = ("data.dir", "init_weights")
"""Fields that name a place: the content that lies there is compared instead."""


def check_run_dir(config: TrainConfig, *, flag: str = "--run-dir") -> None:
    """Refuses a folder that is another run's or no run's, without writing.

    A folder whose run has made no step of training yet may be taken over by another config.

    Args:
        config: The run; it names the folder.
        flag: The flag that chooses the folder on the command line.

    Raises:
        UsageError: The folder holds steps of another config (the message says which fields
            differ), or other things, or cannot be written; its records cannot be read.
    """
    folder = config.run_dir
    if (folder / CONFIG).exists():
        read_metrics(folder)
        read_sessions(folder)
        differences = _differences(config, folder)
        if differences and has_steps(folder):
            raise UsageError(
                f"{folder} holds another run, which differs in {'; '.join(differences)}: "
                f"give this one a folder of its own with {flag}."
            )
    elif folder.exists() and (not folder.is_dir() or not all(map(_is_ours, folder.iterdir()))):
        raise UsageError(f"{folder} is there and is not the folder of a run: choose another.")
    check_can_be_made(folder)


def check_can_be_made(folder: Path) -> None:
    """Refuses a folder that cannot be made or written, as far as that is seen without writing.

    Raises:
        UsageError: The nearest folder that exists cannot be written, or is a file.
    """
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {os_reason(error)}.") from error
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be written, because {there} cannot: choose another.")


def _is_ours(path: Path) -> bool:
    """Tells whether a start that ended before it wrote the config may have left the file."""
    if path.name == "checkpoints" and path.is_dir():
        return not any(path.iterdir())
    return path.name == LOCK or path.name.endswith(".partial")


def _differences(config: TrainConfig, folder: Path) -> list[str]:
    """The differences of a config from the one in a folder, as ``TrainConfig.differences``."""
    theirs, mine = read_config(folder), config.absolute()
    differences = mine.differences(theirs, besides=_RECOGNISED)
    if not _same_weights(mine.init_weights, theirs.init_weights, folder):
        differences.append(f"init_weights: {mine.init_weights}, not {theirs.init_weights}")
    return differences


def _same_weights(mine: str | None, theirs: str | None, folder: Path) -> bool:
    """Compares initial weights by their content, so that a file may have been moved."""
    if mine == theirs:
        return True
    if mine is None or theirs is None or not Path(mine).is_file():
        return False
    known = _read_values(folder).get(_WEIGHTS_SHA256) or _sha256(theirs)
    return known == _sha256(mine)


def _sha256(file: str | None) -> str | None:
    if file is None or not Path(file).is_file():
        return None
    with Path(file).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def has_steps(run_dir: Path) -> bool:
    """Tells whether a run has recorded or saved a step of training.

    Raises:
        UsageError: The records of the run cannot be read.
    """
    if (run_dir / NEWEST).exists() or read_metrics(run_dir):
        return True
    return bool(CheckpointFolder(checkpoints_of(run_dir, read_config(run_dir))).steps())


def newest_saved(run_dir: Path) -> int | None:
    """The step of the newest checkpoint that a run has finished; None where none is known.

    Raises:
        UsageError: The file cannot be read.
    """
    file = run_dir / NEWEST
    if not file.exists():
        return None
    step = read_json_object(file, "the step of a checkpoint").get("step")
    if not isinstance(step, int):
        raise UsageError(f"{file} does not say the step of a checkpoint: delete the file.")
    return step


def note_saved(run_dir: Path, step: int) -> None:
    """Writes the step of the newest checkpoint that a run has finished."""
    write_text(run_dir / NEWEST, json.dumps({"step": step}) + "\n")


def read_config(run_dir: Path) -> TrainConfig:
    """Reads the config of a run; its paths are absolute.

    A run of an older version wrote paths as they were given. A relative one is searched from the
    folder in which that run was started, where that can be told, and from the current one.

    Raises:
        UsageError: The folder has no config, or one that cannot be read.
    """
    values = _read_values(run_dir)
    values.pop(_WEIGHTS_SHA256, None)
    starts = _starts(run_dir, values.get("run_dir"))
    try:
        return TrainConfig.from_json({**values, "run_dir": str(run_dir)}).absolute(*starts)
    except UsageError as error:
        raise UsageError(f"{run_dir / CONFIG} cannot be read: {error}") from error


def is_older(run_dir: Path) -> bool:
    """Tells whether a version wrote the folder that did not note the checkpoints that it made."""
    return "run_dir" in _read_values(run_dir)


def _read_values(run_dir: Path) -> dict[str, Any]:
    file = run_dir / CONFIG
    if not file.exists():
        raise UsageError(_no_run(run_dir))
    return read_json_object(file, "the config of a run")


def _starts(run_dir: Path, given: Any) -> list[Path]:
    """The folders from which the relative paths of a config may start."""
    here = Path.cwd()
    if not isinstance(given, str) or Path(given).is_absolute():
        return [here]
    parts, end = run_dir.absolute().parts, Path(given).parts
    if end and parts[-len(end) :] == end:
        return [Path(*parts[: -len(end)]), here]
    return [here]


def _no_run(folder: Path) -> str:
    if not folder.exists():
        return f"{folder} does not exist: name the folder of a run."
    depths = ("*/", "*/*/", "*/*/*/")  # GROUP/CELL/SEED, and no search of a whole disk.
    runs = [file.parent for depth in depths for file in folder.glob(f"{depth}{CONFIG}")]
    if runs:
        return f"{folder} is not a run but has some: name one of them, such as {min(runs)}."
    return f"{folder} is not the folder of a run, which has a config.json."


def read_card(run_dir: Path) -> Card | None:
    """Reads the facts of a run's data set; None where the run wrote none.

    Raises:
        UsageError: The file cannot be read.
    """
    file = run_dir / CARD
    if not file.exists():
        return None
    values = read_json_object(file, "the facts of a data set")
    try:
        return Card.from_json(values)
    except UsageError as error:
        raise UsageError(f"{file} cannot be read: {error}") from error


def check_data(run_dir: Path, card: Card) -> None:
    """Refuses a data set that is not the one that the steps of a run were made with.

    A data set is recognised by its facts, not by the place where it lies.

    Raises:
        UsageError: A fact differs; the message says which.
    """
    if not (run_dir / CARD).exists() or not has_steps(run_dir):
        return
    known = read_card(run_dir)
    assert known is not None
    differences = [
        _difference(field.name, getattr(card, field.name), getattr(known, field.name))
        for field in dataclasses.fields(card)
        if getattr(card, field.name) != getattr(known, field.name)
    ]
    if differences:
        raise UsageError(
            f"the data set is not the one that {run_dir} was trained with: {'; '.join(differences)}"
            ". Bring that data set back, or train with this one in another --run-dir."
        )


def _difference(field: str, mine: Any, theirs: Any) -> str:
    if field != "classes":
        return f"{field} is {mine}, not {theirs}"
    new, gone = sorted({*mine} - {*theirs})[:3], sorted({*theirs} - {*mine})[:3]
    if new or gone:
        return f"{len(mine)} classes, not {len(theirs)} (new: {new}, gone: {gone})"
    return "the classes have another order"


def claim_run_dir(config: TrainConfig, card: Card) -> None:
    """Makes the folder of a run and writes its config and the facts of its data, each atomically.

    The first of several hosts writes; the others check that they see the files.

    Args:
        config: The run; it names the folder.
        card: The facts that are needed where the data set is not, such as the names of its classes.

    Raises:
        UsageError: The folder cannot be written, or is not shared by all hosts.
    """
    folder = config.run_dir
    if is_first():
        _write_facts(config, card)
    if jax.process_count() == 1:
        return
    barrier("the folder of the run is there")
    until = time.monotonic() + SEEN_AFTER_S
    while not (folder / CARD).exists():
        if time.monotonic() > until:
            raise UsageError(
                f"{folder.absolute()} is not the folder that the first host writes to: choose one "
                "that all hosts share with --run-dir."
            )
        time.sleep(0.5)


def _write_facts(config: TrainConfig, card: Card) -> None:
    folder = config.run_dir
    if (folder / CONFIG).exists() and (differences := _differences(config, folder)):
        LOGGER.warning(
            "%s held a run without a step of training, which differs in %s: this run replaces it",
            *(folder, "; ".join(differences)),
        )
        _remove_start(folder)
    values = saved_config(config)
    if (checksum := _sha256(config.absolute().init_weights)) is not None:
        values[_WEIGHTS_SHA256] = checksum
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.partial"):
            left.unlink()
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {os_reason(error)}.") from error
    # The config first: a folder that has it is known as this run's, whatever else is in it.
    for name, content in ((CONFIG, values), (CARD, dataclasses.asdict(card))):
        write_text(folder / name, json.dumps(content, indent=2) + "\n")


def _remove_start(folder: Path) -> None:
    """Removes the files of a start that ended before its first step of training."""
    for name in ("sessions.jsonl", "metrics.jsonl", CARD):
        (folder / name).unlink(missing_ok=True)
    for name in ("tensorboard", "profile"):
        shutil.rmtree(folder / name, ignore_errors=True)


def saved_config(config: TrainConfig) -> dict[str, Any]:
    """A config as a run writes it: paths are absolute, and the folder of the run is left out."""
    values = config.absolute().to_json()
    del values["run_dir"]
    return values
