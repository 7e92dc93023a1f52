"""The folder of a run: whose it is, its config, and the facts of its data."""

import dataclasses
import json
import os
import time
from pathlib import Path

import jax

from senet_jax.data.card import Card
from senet_jax.errors import UsageError
from senet_jax.training.config import TrainConfig
from senet_jax.training.hosts import is_first, meet
from senet_jax.training.lock import LOCK

PARTIAL = "config.json.partial"
"""What a run that was killed while it wrote its config leaves behind."""

SEEN_AFTER_S = 30.0
"""Seconds after which a host sees on a network drive what another one wrote."""


def check_run_dir(config: TrainConfig, *, flag: str = "--run-dir") -> None:
    """Refuses a folder that is another run's or none at all, without writing.

    Args:
        config: The run; it names the folder.
        flag: What chooses the folder on the command line.

    Raises:
        UsageError: The folder holds another config (the message says which fields differ), or
            other things.
    """
    folder = config.run_dir
    if (folder / "config.json").exists():
        differences = config.differences(read_config(folder))
        if differences:
            raise UsageError(
                f"{folder} holds another run, which differs in {'; '.join(differences)}: "
                f"give this one a folder of its own with {flag}."
            )
    elif folder.exists() and (
        not folder.is_dir() or {path.name for path in folder.iterdir()} - {PARTIAL, LOCK}
    ):
        raise UsageError(f"{folder} is there and is not the folder of a run: choose another.")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be written, because {there} cannot: choose another.")


def read_config(run_dir: Path) -> TrainConfig:
    """Reads the config of a run.

    Raises:
        UsageError: The folder has no config, or one that cannot be read.
    """
    file = run_dir / "config.json"
    if not file.exists():
        raise UsageError(_no_run(run_dir))
    try:
        return TrainConfig.from_json(json.loads(file.read_text()))
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(f"{file} cannot be read as the config of a run: {error}.") from error


def _no_run(folder: Path) -> str:
    if not folder.exists():
        return f"{folder} does not exist: name the folder of a run."
    depths = ("*/", "*/*/", "*/*/*/")  # GROUP/CELL/SEED, and no search of a whole disk.
    runs = [file.parent for depth in depths for file in folder.glob(f"{depth}config.json")]
    if runs:
        return f"{folder} is not a run but has some: name one of them, such as {min(runs)}."
    return f"{folder} is not the folder of a run, which has a config.json."


def read_card(run_dir: Path) -> Card | None:
    """Reads what a run knows of its data set; None where it wrote nothing.

    Raises:
        UsageError: The file cannot be read.
    """
    file = run_dir / "dataset.json"
    try:
        return Card.from_json(json.loads(file.read_text())) if file.exists() else None
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as what a run writes: {error}.") from error


def claim_run_dir(config: TrainConfig, card: Card) -> None:
    """Makes the folder of a run and writes its config and the facts of its data, each whole.

    Of several hosts the first one does; the others make sure that they see what it wrote.

    Args:
        config: The run; it names the folder.
        card: What can be asked of the data set where it is not, such as the names of its classes.

    Raises:
        UsageError: The folder cannot be written, or is not shared by all hosts.
    """
    folder = config.run_dir
    if is_first():
        _write_facts(config, card)
    if jax.process_count() == 1:
        return
    meet("the folder of the run is there")
    until = time.monotonic() + SEEN_AFTER_S
    while not (folder / "dataset.json").exists():
        if time.monotonic() > until:
            raise UsageError(
                f"{folder.absolute()} is not the folder that the first host writes to: choose one "
                "that all hosts share with --run-dir."
            )
        time.sleep(0.5)


def _write_facts(config: TrainConfig, card: Card) -> None:
    folder = config.run_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The config first: a folder that has it is known as this run's, whatever else is in it.
        for name, values in (
            ("config.json", config.to_json()),
            ("dataset.json", dataclasses.asdict(card)),
        ):
            partial = folder / f"{name}.partial"
            partial.write_text(json.dumps(values, indent=2) + "\n")
            partial.replace(folder / name)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}.") from error
