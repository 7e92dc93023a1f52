"""The table of a study: errors over seeds, differences to a baseline, cost, the papers' figures."""

import csv
import dataclasses
import io
from collections.abc import Sequence

from senet_jax.analysis.cells import Cell, Study
from senet_jax.analysis.papers import Published, published
from senet_jax.analysis.statistics import (
    LEVEL,
    Difference,
    Estimate,
    correct,
    difference,
    estimate,
)
from senet_jax.errors import UsageError, choose
from senet_jax.models.cost import Cost, cost
from senet_jax.training.network import build_model

TOP1 = "val/top1"


@dataclasses.dataclass(frozen=True)
class Row:
    """What is said of a cell."""

    cell: Cell
    error: Estimate
    """Top-1 error of the final validation, %."""
    difference: Difference | None
    """Its difference to the baseline's, percentage points; None for the baseline itself."""
    cost: Cost
    images_per_s: float | None
    """In training, over the seeds."""
    published: Published | None


@dataclasses.dataclass(frozen=True)
class StudyReport:
    """A study with its statistics."""

    study: Study
    baseline: str
    """Name of the cell that the others are compared with."""
    rows: list[Row]
    """The baseline first, then by name."""


def report_study(study: Study, baseline: str | None = None) -> StudyReport:
    """Computes what the tables and figures of a study show.

    Args:
        study: The runs.
        baseline: The cell that the others are compared with; None means the one whose network has
            no attention, if that is a single one, else the first by name.

    Raises:
        UsageError: There is no such cell.
    """
    names = [cell.name for cell in study.cells]
    name = _default_baseline(study.cells) if baseline is None else baseline
    choose("cell", name, names)
    errors = {cell.name: _errors(cell) for cell in study.cells}
    others = [cell for cell in study.cells if cell.name != name]
    gaps = correct([difference(errors[cell.name], errors[name]) for cell in others])
    compared = dict(zip((cell.name for cell in others), gaps, strict=True))
    first = next(cell for cell in study.cells if cell.name == name)
    rows = [_row(cell, errors[cell.name], compared.get(cell.name)) for cell in (first, *others)]
    return StudyReport(study, name, rows)


def _default_baseline(cells: Sequence[Cell]) -> str:
    plain = [
        cell.name
        for cell in cells
        if getattr(build_model(cell.config.model, num_classes=1), "attention", None) is None
    ]
    return plain[0] if len(plain) == 1 else cells[0].name


def _errors(cell: Cell) -> dict[int, float]:
    return {seed: 100 * (1 - top1) for seed, top1 in cell.by_seed(TOP1).items()}


def _row(cell: Cell, errors: dict[int, float], gap: Difference | None) -> Row:
    card = cell.card
    if card is None:
        raise UsageError(
            f"{cell.runs[min(cell.runs)].folder} has no dataset.json, so that its cost is unknown: "
            "the run is of an older version; train it again."
        )
    model = build_model(cell.config.model, len(card.classes))
    height, _, channels = card.image_shape
    speeds = [run.images_per_s for run in cell.runs.values() if run.images_per_s is not None]
    return Row(
        cell,
        estimate(list(errors.values())),
        gap,
        cost(model, height, channels),
        sum(speeds) / len(speeds) if speeds else None,
        published(cell.config),
    )


HEADER = (
    "cell",
    "seeds",
    "error (%)",
    "95 % interval",
    "difference (points)",
    "p",
    "",
    "parameters",
    "MMACs",
    "images/s",
    "paper (%)",
)


def _cells_of(row: Row, baseline: str) -> tuple[str, ...]:
    """A row as text, in the order of ``HEADER``."""
    error, gap = row.error, row.difference
    spread = "" if error.std is None else f" ± {error.std:.2f}"
    return (
        row.cell.name,
        str(error.count),
        f"{error.mean:.2f}{spread}",
        _interval(error),
        "" if gap is None else f"{gap.estimate.mean:+.2f} {_interval(gap.estimate)}".strip(),
        "" if gap is None or gap.corrected_p is None else _p(gap.corrected_p),
        _verdict(row, baseline),
        f"{row.cost.params:,}",
        f"{row.cost.macs / 1e6:,.2f}",
        "" if row.images_per_s is None else f"{row.images_per_s:,.0f}",
        "" if row.published is None else f"{row.published.top1:.2f}",
    )


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{estimate.low:.2f}, {estimate.high:.2f}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _verdict(row: Row, baseline: str) -> str:
    """The difference in words."""
    gap = row.difference
    if gap is None:
        return "baseline" if row.cell.name == baseline else "no seed in common"
    if gap.significant is None:
        return "one seed: no test"
    if not gap.significant:
        return "no significant difference"
    return "better" if gap.estimate.mean < 0 else "worse"


def markdown(report: StudyReport) -> str:
    """The table and what one must know to read it, in Markdown."""
    head, *rows = _lines(report)
    table = "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))
    return f"{table}\n\n{notes(report)}"


def latex(report: StudyReport) -> str:
    """The table in LaTeX, with the rules of ``booktabs``."""
    columns = "lr" + "r" * (len(HEADER) - 2)
    head, *lines = (" & ".join(map(_escape, line)) + r" \\" for line in _lines(report))
    body = "\n".join(lines)
    return (
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\n\\midrule\n{body}\n\\bottomrule\n"
        "\\end{tabular}\n"
    )


def _lines(report: StudyReport) -> list[tuple[str, ...]]:
    """The table as text, with its head."""
    return [HEADER, *(_cells_of(row, report.baseline) for row in report.rows)]


def _escape(text: str) -> str:
    for character in "%_&#":
        text = text.replace(character, f"\\{character}")
    return text.replace("±", r"$\pm$").replace("<", "$<$")


def comma_separated(report: StudyReport) -> str:
    """The numbers, unrounded, a line for each run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["cell", "seed", "top1_error", "loss", "params", "macs", "images_per_s"])
    for row in report.rows:
        for seed, run in sorted(row.cell.runs.items()):
            last = run.last
            writer.writerow(
                [
                    row.cell.name,
                    seed,
                    100 * (1 - last[TOP1]),
                    last["val/loss"],
                    row.cost.params,
                    row.cost.macs,
                    run.images_per_s,
                ]
            )
    return out.getvalue()


def notes(report: StudyReport) -> str:
    """How many runs, what was compared how, where the papers' figures come from, in sentences."""
    cells, study = report.study.cells, report.study
    runs = sum(len(cell.runs) for cell in cells)
    config = cells[0].config
    said = [
        f"{runs} runs of {len(cells)} cells on {config.data.name}, top-1 error of the final "
        "validation: mean ± standard deviation over the seeds."
    ]
    compared = [row for row in report.rows if row.difference is not None]
    tested = [row for row in compared if row.difference and row.difference.p is not None]
    if tested:
        said.append(
            f"Differences to {report.baseline}, paired by seed; p of the two-sided paired t-test, "
            f"corrected for {len(tested)} comparison{'s' * (len(tested) > 1)} (Holm); "
            f"intervals are of {LEVEL:.0%} and not corrected."
        )
    single = [row.cell.name for row in report.rows if row.error.count == 1]
    if single:
        said.append(f"One seed only, so neither interval nor test: {', '.join(single)}.")
    unpaired = [row.cell.name for row in report.rows[1:] if row.difference is None]
    if unpaired:
        said.append(f"No seed in common with the baseline: {', '.join(unpaired)}.")
    if study.unfinished:
        count = len(study.unfinished)
        words = "has not ended and is" if count == 1 else "have not ended and are"
        said.append(f"{count} of {count + runs} runs {words} left out.")
    sources = sorted(
        {f"{row.published.what} ({row.published.source})" for row in report.rows if row.published}
    )
    if sources:
        said.append(f"The papers' figures: {'; '.join(sources)}.")
    return "\n".join(said)
