"""Guards the checkpoints of a run: they are this run's, and none has been lost.

A folder of checkpoints that ``--checkpoint.dir`` names may be given to several runs by mistake.
Each checkpoint carries the config of its run, and such a folder the path of the run's folder. On a
disk the folder is locked as well. A bucket has no locks: there two runs with the same config that
start at the same time are not noticed.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from senet_jax.config import TrainConfig
from senet_jax.errors import UsageError
from senet_jax.files import parse_json
from senet_jax.training.checkpoints.folder import CheckpointFolder, checkpoints_of
from senet_jax.training.distributed.hosts import is_first
from senet_jax.training.records.lock import folder_lock, run_lock
from senet_jax.training.records.metrics import read_metrics
from senet_jax.training.records.run_dir import (
    CONFIG,
    check_can_be_made,
    is_older,
    newest_saved,
    read_config,
)

OWNER = "run.json"
"""The file in a folder of checkpoints that names the folder of their run."""

_ELSEWHERE = "give this one a folder of its own with --checkpoint.dir"


def check_checkpoints(config: TrainConfig) -> None:
    """Refuses checkpoints of another run, and a run whose checkpoints are gone; writes nothing.

    Args:
        config: The run; its paths are absolute.

    Raises:
        UsageError: The folder of checkpoints belongs to another run, cannot be read or written,
            or lacks the checkpoints that the run has made.
    """
    folder = CheckpointFolder(checkpoints_of(config.run_dir, config))
    steps = folder.steps()
    _check_owner(folder, config)
    if not folder.remote:
        try:
            check_can_be_made(Path(folder.path))
        except UsageError as error:
            raise UsageError(
                f"checkpoints cannot be written to {folder}: choose another folder with "
                f"--checkpoint.dir ({error})"
            ) from error
    for step in steps:
        check_config(folder, step, config, _ELSEWHERE)
    if not steps and (newest := _newest_known(config)) is not None:
        raise UsageError(
            f"{config.run_dir} has made checkpoints, the newest at step {newest:,}, and {folder} "
            "has none: bring them back (is the disk mounted?) or name their folder with "
            "--checkpoint.dir; to start again, delete the folder of the run."
        )


def check_config(folder: CheckpointFolder, step: int, config: TrainConfig, advice: str) -> None:
    """Refuses a checkpoint of another config than a run's.

    A checkpoint of an older version, without a config, and one that is damaged pass.

    Args:
        folder: The checkpoints.
        step: The step of one of them.
        config: The run.
        advice: The end of the message.

    Raises:
        UsageError: The configs differ; the message says in which fields.
    """
    values = (folder.meta(step) or {}).get("config")
    if not isinstance(values, dict):
        return
    try:
        theirs = TrainConfig.from_json(values)
    except UsageError as error:
        raise UsageError(f"checkpoint {folder / step} cannot be read: {error}") from error
    # Paths differ where files were moved; check_run_dir compares what they name.
    differences = config.differences(theirs, besides=("data.dir", "init_weights"))
    if differences:
        raise UsageError(
            f"{folder} holds the checkpoints of another run, which differs in "
            f"{'; '.join(differences)}: {advice}."
        )


def _check_owner(folder: CheckpointFolder, config: TrainConfig) -> None:
    owner = _owner(folder)
    if owner is None or not (owner / CONFIG).exists():
        return  # That run is gone, or was moved; the configs are compared.
    if not config.run_dir.exists() or not owner.samefile(config.run_dir):
        raise UsageError(f"{folder} holds the checkpoints of the run in {owner}: {_ELSEWHERE}.")


def _owner(folder: CheckpointFolder) -> Path | None:
    """The folder of the run that a folder of checkpoints belongs to, if that is known."""
    text = folder.read_text(OWNER)
    if text is not None:
        values = parse_json(text, f"{folder / OWNER} cannot be read as the owner of checkpoints")
        run_dir = values.get("run_dir") if isinstance(values, dict) else None
        if not isinstance(run_dir, str):
            raise UsageError(f"{folder / OWNER} does not name the folder of a run: delete it.")
        return Path(run_dir)
    if not folder.remote and folder.path.name == "checkpoints":
        return Path(folder.path).parent
    return None


def _newest_known(config: TrainConfig) -> int | None:
    """The step of the newest checkpoint that a run has made, by its records; None if none."""
    if not (config.run_dir / CONFIG).exists():
        return None
    newest = newest_saved(config.run_dir)
    if newest is not None:
        return newest
    # That record is missing: an older version kept none. The run saved right after these lines.
    every = read_config(config.run_dir).checkpoint.every_epochs
    saved = [
        int(line["step"])
        for line in read_metrics(config.run_dir)
        if line["epoch"] >= every and line["epoch"] % every == 0
    ]
    if not is_older(config.run_dir):
        # A run that was killed in its first save has made none; the next save waits for it.
        del saved[-1:]
    return max(saved, default=None)


@contextlib.contextmanager
def locked_run(config: TrainConfig) -> Iterator[None]:
    """Locks the folder of a run on the first host, and that of its checkpoints where it is apart.

    Args:
        config: The run; its paths are absolute.

    Raises:
        UsageError: Another process holds a lock, or a folder cannot be written.
    """
    folder = CheckpointFolder(checkpoints_of(config.run_dir, config))
    with contextlib.ExitStack() as stack:
        if config.checkpoint.dir is not None and is_first() and not folder.remote:
            stack.enter_context(folder_lock(Path(folder.path), _ELSEWHERE))
        stack.enter_context(run_lock(config.run_dir))
        yield


def note_owner(config: TrainConfig) -> None:
    """Writes the path of the run's folder into a folder of checkpoints outside it.

    Raises:
        UsageError: The file cannot be written.
    """
    folder = CheckpointFolder(checkpoints_of(config.run_dir, config))
    if config.checkpoint.dir is None or not is_first():
        return
    text = json.dumps({"run_dir": str(config.run_dir.absolute())}) + "\n"
    folder.write_text(OWNER, text)
