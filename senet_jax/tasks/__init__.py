"""Tasks: what networks learn."""

import importlib
import importlib.metadata
from collections.abc import Iterable, Iterator

from senet_jax.config import TrainConfig, field_values
from senet_jax.errors import UsageError, choose
from senet_jax.tasks.base import Task
from senet_jax.tasks.metrics import Metric

TASKS = {
    "classification": "senet_jax.tasks.classification:Classification",
    "segmentation": "senet_jax.tasks.segmentation:Segmentation",
    "detection": "senet_jax.tasks.detection:Detection",
}
"""The tasks of this package: a name, and where the class is."""

GROUP = "senet_jax.tasks"
"""Entry points of this group name the tasks of other packages."""


def find_task(name: str) -> type[Task]:
    """The task of a name: one of ``TASKS``, or of an installed package.

    Raises:
        UsageError: There is none, or the package that has it cannot be imported.
    """
    if name in TASKS:
        module, _, attribute = TASKS[name].partition(":")
        found: type[Task] = getattr(importlib.import_module(module), attribute)
        return found
    points = importlib.metadata.entry_points(group=GROUP)
    try:
        choose("task", name, [*TASKS, *(point.name for point in points)])
    except UsageError as error:
        advice = "if another package has it, install that package"
        raise UsageError(f"{str(error)[:-1]}; {advice}.") from error
    point, *more = [point for point in points if point.name == name]
    if more:
        values = " and ".join(each.value for each in (point, *more))
        raise UsageError(f"several packages have a task {name} ({values}): remove all but one.")
    try:
        loaded: type[Task] = point.load()
    # The module of another package may raise anything.
    except Exception as error:
        raise UsageError(f"the task {name} cannot be imported ({point.value}): {error}.") from error
    if not (isinstance(loaded, type) and Task in loaded.__mro__):
        raise UsageError(f"the task {name} ({point.value}) is no subclass of {Task.__qualname__}.")
    return loaded


def task_of(config: TrainConfig) -> type[Task]:
    """The task of a config, none of whose other fields belongs to another task.

    Raises:
        UsageError: There is no such task, or a field is set that the task does not have.
    """
    task, defaults = find_task(config.task), field_values(TrainConfig())
    claimed = [field for other in built_in() for field in other.fields]
    for field, value in field_values(config).items():
        lacks = _covers(claimed, field) and not _covers(task.fields, field)
        if lacks and value != defaults[field]:
            raise UsageError(
                f"--{field.replace('_', '-')} ({field}) is no field of the task {config.task}: "
                "leave it out."
            )
    best_metric(config)
    return task


def best_metric(config: TrainConfig) -> Metric:
    """The metric of the validation by which the best checkpoint of a run is kept.

    Raises:
        UsageError: The task does not measure it.
    """
    metrics = {metric.validation: metric for metric in find_task(config.task).metrics}
    key = config.checkpoint.best_metric or next(iter(metrics))
    return metrics[choose("checkpoint.best_metric", key, metrics)]


def built_in() -> Iterator[type[Task]]:
    """The tasks of this package."""
    return map(find_task, TASKS)


def _covers(names: Iterable[str], field: str) -> bool:
    """Says if a field, or a group that it belongs to, is among the names."""
    return any(field == name or field.startswith(f"{name}.") for name in names)
