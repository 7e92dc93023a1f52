"""The report of a study: its headline over seeds, differences, cost, papers' figures."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn

from senet_jax.analysis.statistics import (
    Difference,
    Estimate,
    correct,
    difference,
    estimate,
)
from senet_jax.analysis.study.cells import (
    Cell,
    Study,
    baseline_of,
    check_baseline,
    has_baseline,
    natural,
)
from senet_jax.analysis.study.papers import Published
from senet_jax.analysis.study.published import published
from senet_jax.data.card import Card
from senet_jax.errors import UsageError
from senet_jax.models.backbone import Backbone
from senet_jax.models.cost import Cost, cost
from senet_jax.models.zoo import Composed
from senet_jax.tasks import find_task
from senet_jax.tasks.base import headline, other_inputs
from senet_jax.tasks.classification import Classification
from senet_jax.tasks.detection import Detection
from senet_jax.tasks.metrics import Metric
from senet_jax.tasks.segmentation import Segmentation

PLAIN = "plain"
"""Names of cells without attention, or without shortcuts."""


@dataclasses.dataclass(frozen=True)
class Row:
    """The line of a cell."""

    cell: Cell
    baseline: str | None
    """The cell that it is compared with, for a baseline itself; None where there is none."""
    final: Estimate
    """The headline of the final validation, as people are shown it."""
    difference: Difference | None
    """Its difference to the baseline's; None for the baseline itself."""
    cost: Cost
    images_per_s: float | None
    """In training, over the seeds."""
    published: Published | None
    published_difference: float | None = None
    """The difference that the same paper has, percentage points."""

    @property
    def is_baseline(self) -> bool:
        """Tells whether others are compared with it."""
        return self.baseline == self.cell.name

    @property
    def group(self) -> str:
        """The folder of the cells that are compared with each other; "" for that of the study."""
        return (self.baseline or self.cell.name).rpartition("/")[0]


@dataclasses.dataclass(frozen=True)
class StudyReport:
    """A study with its statistics."""

    study: Study
    baseline: str
    """Name of the cell that the others are compared with, in every group."""
    rows: list[Row]
    """By group; in each the baseline first, then by name."""

    @property
    def metric(self) -> Metric:
        """The metric that the rows show: the headline of the task."""
        return headline(self.study.task)

    @property
    def groups(self) -> dict[str, list[Row]]:
        """The rows of each group."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(row.group, []).append(row)
        return groups

    @property
    def compared_with(self) -> str:
        """The baseline of the cells, in words."""
        bases = {row.baseline for row in self.rows if row.difference is not None}
        return self.baseline if len(bases) == 1 else f"the cell {self.baseline} of each group"


def report_study(study: Study, baseline: str | None = None) -> StudyReport:
    """Computes what the tables and figures of a study show.

    Args:
        study: The runs.
        baseline: The cell that the others are compared with, by its name, or by what it is called
            in every group: a cell "GROUP/CELL" is compared with "GROUP/BASELINE" if there is that.
            None means what the study says, else "plain" if cells are called so, else the one whose
            network has no attention, if that is a single one, else the first by name.

    Raises:
        UsageError: There is no such cell. One that the study names may not have ended yet; then
            nothing is compared.
    """
    names = [cell.name for cell in study.cells]
    networks = {cell.name: _network(cell) for cell in study.cells}
    name = baseline or study.baseline or _default_baseline(networks)
    if baseline:
        check_baseline(baseline, names)
    compared_with = {each: baseline_of(each, name, names) for each in names}
    metric = headline(study.task)
    values = {cell.name: cell.shown(metric) for cell in study.cells}
    others = {each: base for each, base in compared_with.items() if base and base != each}
    gaps = [difference(values[each], values[base]) for each, base in others.items()]
    compared = dict(zip(others, correct(gaps), strict=True))
    rows = [
        _row(
            cell,
            compared_with[cell.name],
            estimate(list(values[cell.name].values()), within=metric.range),
            compared.get(cell.name),
            *networks[cell.name],
        )
        for cell in study.cells
    ]
    rows.sort(key=lambda row: (natural(row.group), not row.is_baseline, natural(row.cell.name)))
    report = StudyReport(study, name, rows)
    if metric not in PUBLISHED:
        return report
    groups = [_with_published(group) for group in report.groups.values()]
    return dataclasses.replace(report, rows=[row for group in groups for row in group])


def report_studies(studies: Sequence[Study], baseline: str | None = None) -> list[StudyReport]:
    """The reports of the studies of a folder, each of a task and data set.

    Args:
        studies: The runs.
        baseline: As of ``report_study``, for those studies that have such a cell.

    Raises:
        UsageError: No study has such a cell.
    """
    names = [[cell.name for cell in study.cells] for study in studies]
    if baseline:
        check_baseline(baseline, [name for each in names for name in each])
    return [
        report_study(study, baseline if baseline and has_baseline(baseline, own) else None)
        for study, own in zip(studies, names, strict=True)
    ]


PUBLISHED = (headline(Classification), headline(Segmentation), headline(Detection))
"""The metrics that the papers have figures of."""


def _last(name: str) -> str:
    """The name of a cell in its group."""
    return name.rpartition("/")[2]


def _default_baseline(networks: Mapping[str, tuple[nn.Module, Any]]) -> str:
    if any(_last(name) == PLAIN for name in networks):
        return PLAIN
    plain = [
        name
        for name, (network, _) in networks.items()
        if not (isinstance(network, Backbone | Composed) and network.attention)
    ]
    return plain[0] if len(plain) == 1 else next(iter(networks))


def _with_published(group: Sequence[Row]) -> list[Row]:
    """The rows of a group with the papers' figures."""
    figures = published([row.cell.config for row in group])
    base = next((each for row, each in zip(group, figures, strict=True) if row.is_baseline), None)
    return [
        dataclasses.replace(
            row,
            published=figure,
            published_difference=(
                None
                if base is None or figure is None or row.difference is None
                else figure.value - base.value
            ),
        )
        for row, figure in zip(group, figures, strict=True)
    ]


def _card(cell: Cell) -> Card:
    if (card := cell.card) is None:
        raise UsageError(
            f"{cell.runs[min(cell.runs)].folder} has no dataset.json, so that its cost is unknown: "
            "the run is of an older version; train it again."
        )
    return card


def _network(cell: Cell) -> tuple[nn.Module, tuple[jax.ShapeDtypeStruct, ...]]:
    """The network of a cell, and the shapes of its inputs besides the image."""
    dataset = _card(cell).stand_in()
    task = find_task(cell.config.task).of(cell.config, dataset)
    val, *_ = task.examples(dataset, "val")
    return task.build(dataset), other_inputs(task, val)


def _row(
    cell: Cell,
    baseline: str | None,
    final: Estimate,
    gap: Difference | None,
    network: nn.Module,
    others: tuple[jax.ShapeDtypeStruct, ...],
) -> Row:
    height, _, channels = _card(cell).image_shape
    speeds = [run.images_per_s for run in cell.runs.values() if run.images_per_s is not None]
    return Row(
        cell,
        baseline,
        final,
        gap,
        cost(network, height, channels, others),
        sum(speeds) / len(speeds) if speeds else None,
        published=None,
    )
