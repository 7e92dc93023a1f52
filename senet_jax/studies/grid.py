"""The runs of a study: named configs with several seeds, each a run in a folder of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from senet_jax.config import AttentionOverrides, ModelConfig, TrainConfig
from senet_jax.errors import UsageError
from senet_jax.models.configured import build_model
from senet_jax.training.records.metrics import reached, read_metrics
from senet_jax.training.records.run_dir import check_run_dir
from senet_jax.training.run import data_key, open_data


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a study."""

    cell: str
    """Name of its config."""
    config: TrainConfig

    @property
    def name(self) -> str:
        """The cell and the seed."""
        return f"{self.cell}/seed{self.config.seed}"

    @property
    def done(self) -> bool:
        """Tells whether the run has ended."""
        return reached(read_metrics(self.config.run_dir), self.config.epochs)


def jobs(cells: Mapping[str, TrainConfig], folder: Path, seeds: Sequence[int]) -> list[Job]:
    """The runs of a grid; the first seed of all cells comes first, so that early results compare.

    Args:
        cells: Configs by name.
        folder: Folder of the study; a run lies in ``NAME/seedS`` under it.
        seeds: The seeds of each config.

    Raises:
        UsageError: A config that is wrong or has no such network, two cells that are the same, or a
            folder that holds another run.
    """
    _check_distinct(cells)
    found = [
        Job(name, dataclasses.replace(config, seed=seed, run_dir=folder / name / f"seed{seed}"))
        for seed in seeds
        for name, config in cells.items()
    ]
    for config in cells.values():
        config.validate()
        # Two, because a detector counts the background.
        build_model(config.model, num_classes=2)
    for job in found:
        check_run_dir(job.config, flag="--out")
    return found


def check_data(jobs: Sequence[Job]) -> None:
    """Opens each data set of the jobs once.

    Raises:
        UsageError: One is not there.
    """
    waiting = [job.config for job in jobs if not job.done]
    for config in {data_key(each): each for each in waiting}.values():
        open_data(config)


def _check_distinct(cells: Mapping[str, TrainConfig]) -> None:
    names = list(cells)
    for place, name in enumerate(names):
        for other in names[:place]:
            if not cells[name].differences(cells[other]):
                raise UsageError(
                    f"the cells {other} and {name} are the same config: leave one out."
                )


def with_model(config: TrainConfig, **fields: object) -> TrainConfig:
    """A config in which fields of the model differ."""
    return dataclasses.replace(config, model=_replace(config.model, fields))


def with_attention(config: TrainConfig, **fields: object) -> TrainConfig:
    """A config in which fields of the attention differ."""
    attention = dataclasses.replace(config.model.attention, **fields)  # type: ignore[arg-type]
    return with_model(config, attention=attention)


def without_attention(config: TrainConfig) -> TrainConfig:
    """A config whose network has no attention, nor what says where it stands."""
    attention = AttentionOverrides(kind="none")
    return with_model(config, attention=attention, placement=None, stages=None)


def _replace(model: ModelConfig, fields: Mapping[str, object]) -> ModelConfig:
    return dataclasses.replace(model, **fields)  # type: ignore[arg-type]
