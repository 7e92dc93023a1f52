"""The table of a study and its notes, in Markdown, LaTeX and CSV."""

import dataclasses
from collections.abc import Callable, Iterable

from senet_jax import text
from senet_jax.analysis.statistics import LEVEL, Estimate
from senet_jax.analysis.study.report import PUBLISHED, Row, StudyReport
from senet_jax.tasks.base import reported
from senet_jax.tasks.metrics import Metric, with_unit


def _header(metric: Metric) -> tuple[str, ...]:
    title, paper = (with_unit(each, metric.shown_unit) for each in (metric.short_title, "paper"))
    compared = ("95 % interval", with_unit("difference", metric.points), "p", "")
    cost = ("parameters", "MMACs", "images/s")
    papers = (paper, "paper's difference") if metric in PUBLISHED else ()
    return ("cell", "seeds", title, *compared, *cost, *papers)


def _cells_of(row: Row, metric: Metric, escape: Callable[[str], str]) -> tuple[str, ...]:
    """A row as text, in the order of the header, with the name of the cell escaped."""
    final, gap, digits = row.final, row.difference, metric.digits
    spread = "" if final.std is None else f" ± {final.std:.{digits}f}"
    between = "" if gap is None else _interval(gap.estimate, digits)
    cells = (
        escape(row.cell.name),
        str(final.count),
        f"{final.mean:.{digits}f}{spread}",
        _interval(final, digits),
        "" if gap is None else f"{gap.estimate.mean:+.{digits}f} {between}".strip(),
        "" if gap is None or gap.corrected_p is None else _p(gap.corrected_p),
        _verdict(row, metric),
        f"{row.cost.params:,}",
        f"{row.cost.macs / 1e6:,.2f}",
        "" if row.images_per_s is None else f"{row.images_per_s:,.0f}",
        "" if row.published is None else f"{row.published.value:.2f}",
        "" if row.published_difference is None else f"{row.published_difference:+.2f}",
    )
    return cells[: len(_header(metric))]


def _interval(estimate: Estimate, digits: int) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _verdict(row: Row, metric: Metric) -> str:
    """The difference in words."""
    gap = row.difference
    if gap is None:
        without = "no baseline" if row.baseline is None else "no seed in common"
        return "baseline" if row.is_baseline else without
    if gap.significant is None:
        return "one seed: no test" if gap.estimate.count == 1 else "no spread: no test"
    if not gap.significant:
        return "no significant difference"
    return "better" if (gap.estimate.mean < 0) == metric.shown_lower_is_better else "worse"


def markdown(report: StudyReport) -> str:
    """The table and what one must know to read it, in Markdown."""
    header = tuple(map(text.markdown, _header(report.metric)))
    rows = [_cells_of(row, report.metric, text.markdown) for row in report.rows]
    return f"{text.markdown_table(header, rows)}\n\n{notes(report, text.markdown)}"


def latex(report: StudyReport) -> str:
    """The table in LaTeX, with the rules of ``booktabs``, one between two groups.

    The notes stand before it as comments.
    """
    header = tuple(map(text.latex, _header(report.metric)))
    columns = "lr" + "r" * (len(header) - 2)
    parts = [[header]]
    for rows in report.groups.values():
        cells = [_cells_of(row, report.metric, text.latex) for row in rows]
        parts.append([(name, *map(_escape, others)) for name, *others in cells])
    body = "\\midrule\n".join(
        "".join(" & ".join(line) + " \\\\\n" for line in part) for part in parts
    )
    comments = "".join(f"% {line}\n" for line in notes(report, text.printable).splitlines())
    top, bottom = f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n", "\\bottomrule\n\\end{tabular}\n"
    return f"{comments}{top}{body}{bottom}"


def _escape(cell: str) -> str:
    """Escapes what this module writes, whose plus-minus and less-than are mathematics."""
    return cell.replace("%", r"\%").replace("±", r"$\pm$").replace("<", "$<$")


def cells_csv(report: StudyReport) -> str:
    """The numbers of the table, unrounded, a line for each cell; empty where there is none."""
    head = (
        *("cell", "seeds", report.metric.column, "std", "low", "high"),
        *("baseline", "difference", "difference_low", "difference_high", "p", "corrected_p"),
        *("params", "macs", "images_per_s", "published", "published_difference", "source"),
    )

    def line(row: Row) -> tuple[object, ...]:
        final, gap, figure = row.final, row.difference, row.published
        return (
            *(text.spreadsheet(row.cell.name), final.count, final.mean, final.std),
            *(final.low, final.high, row.baseline and text.spreadsheet(row.baseline)),
            *((None,) * 3 if gap is None else _bounds(gap.estimate)),
            *(gap and gap.p, gap and gap.corrected_p),
            *(row.cost.params, row.cost.macs, row.images_per_s),
            *(figure and figure.value, row.published_difference, figure and figure.source),
        )

    return text.comma_separated([head, *map(line, report.rows)])


def _bounds(estimate: Estimate) -> tuple[float | None, ...]:
    return estimate.mean, estimate.low, estimate.high


def runs_csv(report: StudyReport) -> str:
    """The final numbers, unrounded, a line for each run."""
    metrics = reported(report.study.task)
    head = ("cell", "seed", *(m.column for m in metrics), "params", "macs", "images_per_s")
    lines = [
        (
            *(text.spreadsheet(row.cell.name), seed),
            *(metric.shown(run.last[metric.validation]) for metric in metrics),
            *(row.cost.params, row.cost.macs, run.images_per_s),
        )
        for row in report.rows
        for seed, run in sorted(row.cell.runs.items())
    ]
    return text.comma_separated([head, *lines])


def notes(report: StudyReport, escape: Callable[[str], str]) -> str:
    """Sentences about the runs, the comparison and the source of the papers' figures.

    Args:
        report: The study.
        escape: Is applied to what others wrote, such as the names of cells.
    """
    cells, study = report.study.cells, report.study

    def listed(rows: Iterable[Row]) -> str:
        return ", ".join(escape(row.cell.name) for row in rows)

    runs = sum(len(cell.runs) for cell in cells)
    sentences = [
        f"{_count(runs, 'run')} of {_count(len(cells), 'cell')} on {escape(cells[0].data_name)}, "
        f"{escape(report.metric.shown_title)} of the final validation: mean ± standard deviation "
        "over the seeds."
    ]
    compared = [row for row in report.rows if row.difference is not None]
    tested = [row for row in compared if row.difference and row.difference.p is not None]
    if tested:
        sentences.append(
            f"Differences to {escape(report.compared_with)}, paired by seed; p of the two-sided "
            f"paired t-test, corrected for {_count(len(tested), 'comparison')} (Holm); "
            f"intervals are of {LEVEL:.0%} and not corrected."
        )
    single = [row for row in report.rows if row.final.count == 1]
    if single:
        sentences.append(f"One seed only, so neither interval nor test: {listed(single)}.")
    equal = [row for row in report.rows if row.final.std == 0]
    if equal:
        sentences.append(f"All seeds came out the same, which gives no interval: {listed(equal)}.")
    fewer = [
        f"{escape(row.cell.name)} ({row.difference.estimate.count})"
        for row in compared
        if row.difference and row.difference.estimate.count < _most_seeds(row, report)
    ]
    if fewer:
        sentences.append(
            "Differences over the seeds that both have, which are fewer than the means are of: "
            f"{', '.join(fewer)}."
        )
    sentences += _other_differences(report, escape)
    unpaired = [row for row in report.rows if row.difference is None and not row.is_baseline]
    for reason, those in (
        ("No seed in common with the baseline", [row for row in unpaired if row.baseline]),
        ("No baseline to compare with", [row for row in unpaired if not row.baseline]),
    ):
        if those:
            sentences.append(f"{reason}: {listed(those)}.")
    if study.unfinished:
        count = len(study.unfinished)
        words = "has not ended and is" if count == 1 else "have not ended and are"
        sentences.append(f"{count} of {count + runs} runs {words} left out.")
    hardware = sorted(set().union(*(r.hardware for cell in cells for r in cell.runs.values())))
    if hardware:
        mixed = ": images/s are no comparison" if len(hardware) > 1 else ""
        sentences.append(f"Computed on {' and '.join(map(escape, hardware))}{mixed}.")
    sources: dict[str, list[str]] = {}
    for figure in filter(None, (row.published for row in report.rows)):
        whats = sources.setdefault(figure.source, [])
        whats += [figure.summary] if figure.summary not in whats else []
    if sources:
        cited = (f"{', '.join(whats)} ({source})" for source, whats in sources.items())
        sentences.append(f"The papers' figures: {'; '.join(cited)}.")
    return "\n".join(sentences)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _most_seeds(row: Row, report: StudyReport) -> int:
    base = next(each for each in report.rows if each.cell.name == row.baseline)
    return max(row.final.count, base.final.count)


def _other_differences(report: StudyReport, escape: Callable[[str], str]) -> list[str]:
    """In what cells differ from their baselines besides the network, a sentence for each."""
    configs = {row.cell.name: row.cell.config for row in report.rows}
    found: dict[str, list[str]] = {}
    for row in report.rows:
        if row.difference is None or row.baseline is None:
            continue
        base = configs[row.baseline]
        config = dataclasses.replace(row.cell.config, seed=base.seed, model=base.model)
        if differences := config.differences(base):
            names = found.setdefault(escape("; ".join(differences)), [])
            names.append(escape(row.cell.name))
    return [
        f"Besides the network, {', '.join(names)} differ{'s' * (len(names) == 1)} from the "
        f"baseline in {differences}."
        for differences, names in found.items()
    ]
