"""The checkpoints of a folder: complete ones, and the remains of others."""

import dataclasses
from pathlib import Path
from typing import Any

from etils import epath

from senet_jax.config import TrainConfig
from senet_jax.errors import UsageError
from senet_jax.files import is_folder
from senet_jax.tasks import best_metric
from senet_jax.training.checkpoints.folder import CheckpointFolder, checkpoints_of
from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.checkpoints.retention import reasons
from senet_jax.training.records.run_dir import read_config


@dataclasses.dataclass(frozen=True)
class Entry:
    """A checkpoint, or what is left of one."""

    name: str
    """Its folder's."""
    state: str
    """"whole", "damaged", "set aside" (it was damaged when a run resumed) or "partial" (its save,
    or its deletion, has not ended)."""
    size: int
    """Bytes."""
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    """``epoch`` and its validation."""
    kept: list[str] = dataclasses.field(default_factory=list)
    """Why it is kept: "newest", "best" or "every"."""
    saved: str | None = None
    """When, UTC."""
    code: str | None = None
    """Version of the code, and the commit, with a plus if files differed from it."""
    problem: str | None = None
    """The fault of a damaged one."""


def find_folder(path: str) -> tuple[epath.Path, TrainConfig]:
    """The checkpoints of a run, and its config; the default one where that is not known.

    Args:
        path: Folder of a run or of its checkpoints, or the address of a bucket.

    Raises:
        UsageError: There is no such folder.
    """
    local = "://" not in path
    if local and not is_folder(path):
        raise UsageError(
            f"{path} is not there or no folder: give the folder of a run, or that of its "
            "checkpoints."
        )
    if local and (Path(path) / "config.json").exists():
        config = read_config(Path(path))
        return checkpoints_of(Path(path), config), config
    folder = CheckpointFolder(path)
    if not (steps := folder.steps()) and not folder.path.exists():
        raise UsageError(f"{path} is not there: give the folder of checkpoints in a bucket.")
    meta = folder.meta(steps[-1]) if steps else None
    if meta is None or "config" not in meta:
        return folder.path, TrainConfig()
    return folder.path, TrainConfig.from_json(meta["config"])


def take_inventory(
    path: epath.PathLike, config: TrainConfig, *, verify: bool = False
) -> list[Entry]:
    """Lists the checkpoints of a folder by step, then what is left of others.

    Args:
        path: The folder.
        config: The run's, which says which of them are kept.
        verify: Read every one and compare its numbers with those that were saved.

    Raises:
        UsageError: The folder cannot be read.
    """
    checkpoints = Checkpoints(path)
    folder = checkpoints.folder
    records = [folder.record(step) for step in checkpoints.steps()]
    why = reasons(records, config.checkpoint, best_metric(config))
    entries = []
    for step in checkpoints.steps():
        meta, problem = folder.meta(step), None
        if meta is None:
            problem = "it does not say what it is"
        elif verify:
            try:
                checkpoints.verify(step)
            except UsageError as error:
                problem = str(error)
        entries.append(
            Entry(
                name=str(step),
                state="damaged" if problem else "whole",
                size=_size(folder / step),
                metrics=folder.record(step).metrics,
                kept=why[step],
                saved=_text((meta or {}).get("saved")),
                code=_code((meta or {}).get("code")),
                problem=problem,
            )
        )
    checkpoints.close()
    entries += [Entry(path.name, "partial", _size(path)) for path in folder.left_behind()]
    aside = sorted(folder.damaged.iterdir()) if folder.damaged.exists() else []
    return entries + [Entry(path.name, "set aside", _size(path)) for path in aside]


def _size(path: epath.Path) -> int:
    """Bytes; a bucket has no ``rglob``."""
    if path.is_dir():
        return sum(map(_size, path.iterdir()))
    try:
        length: int = path.stat().length
    except OSError:  # A link to nothing or to itself.
        return 0
    return length


def _text(value: Any) -> str | None:
    """The value if it is a text: metadata may be damaged."""
    return value if isinstance(value, str) else None


def _code(code: Any) -> str | None:
    """The version and the commit that wrote a checkpoint, for one line."""
    if not isinstance(code, dict) or not (version := _text(code.get("senet_jax"))):
        return None
    if not (commit := _text(code.get("commit"))):
        return version
    return f"{version} {commit[:9]}{'+' if code.get('changed') else ''}"
