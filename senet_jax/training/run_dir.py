"""The folder of a run: whose it is, and its config."""

import json
import os
from pathlib import Path

from senet_jax.errors import UsageError
from senet_jax.training.config import TrainConfig

PARTIAL = "config.json.partial"
"""What a run that was killed while it wrote its config leaves behind."""


def check_run_dir(config: TrainConfig) -> None:
    """Refuses a folder that is another run's or none at all, without writing.

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
                "give this one a folder of its own with --run-dir."
            )
    elif folder.exists() and (
        not folder.is_dir() or {path.name for path in folder.iterdir()} - {PARTIAL}
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
    try:
        return TrainConfig.from_json(json.loads(file.read_text()))
    except (OSError, json.JSONDecodeError) as error:
        raise UsageError(f"{file} cannot be read as the config of a run: {error}.") from error


def claim_run_dir(config: TrainConfig) -> None:
    """Makes the folder of a run and writes its config, whole or not at all.

    Raises:
        UsageError: The folder cannot be written.
    """
    folder = config.run_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / PARTIAL
        partial.write_text(json.dumps(config.to_json(), indent=2) + "\n")
        partial.replace(folder / "config.json")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}.") from error
