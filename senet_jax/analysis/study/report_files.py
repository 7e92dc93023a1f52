"""The report of a study, written into its folder: tables and figures."""

import re
from collections.abc import Sequence
from pathlib import Path

from senet_jax.analysis.study.cells import Study
from senet_jax.analysis.study.plots import FIGURES, FORMATS, draw_study
from senet_jax.analysis.study.report import StudyReport
from senet_jax.analysis.study.tables import (
    cells_csv,
    latex,
    markdown,
    runs_csv,
)
from senet_jax.files import check_folder, check_target, make_folder, write_text

WRITTEN = (
    *("report.md", "report.tex", "report.csv", "runs.csv"),
    *(f"{name}.{kind}" for name in FIGURES for kind in FORMATS),
)
"""The files of the report of a study."""


def report_folders(studies: Sequence[Study], out: Path) -> list[Path]:
    """The folder of the report of each study: ``out`` of a single one, else one under it.

    These are called as the tasks, such as ``out/segmentation``; where a task has several studies,
    as the task and the data set.
    """
    if len(studies) == 1:
        return [out]
    tasks = [study.task.name for study in studies]
    folders: list[Path] = []
    for study in studies:
        name = study.task.name
        if tasks.count(name) > 1:
            name += "-" + re.sub(r"[^\w.-]+", "_", study.data_name)
        folder = out / name
        folders.append(folder if folder not in folders else out / f"{name}-{len(folders)}")
    return folders


def check_report_folder(folder: Path) -> None:
    """Checks that the report of a study can be written into a folder, and writes nothing.

    Raises:
        UsageError: It cannot.
    """
    check_folder(folder)
    for name in WRITTEN if folder.is_dir() else ():
        check_target(folder / name)


def write_report(report: StudyReport, folder: Path) -> str:
    """Writes the tables and figures of a study into a folder, which is made if it is not there.

    Each file is written atomically: a report that was there before is never left half.

    Returns:
        The table in Markdown, which ``report.md`` has too.

    Raises:
        UsageError: The folder cannot be written.
    """
    text = markdown(report)
    check_report_folder(folder)
    make_folder(folder)
    write_text(folder / "report.md", text + "\n")
    write_text(folder / "report.tex", latex(report))
    write_text(folder / "report.csv", cells_csv(report))
    write_text(folder / "runs.csv", runs_csv(report))
    draw_study(report, folder)
    return text
