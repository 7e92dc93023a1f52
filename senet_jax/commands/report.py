"""`senet-jax report`."""

import argparse

from senet_jax.command_line.arguments import path

EXAMPLES = """examples:
  senet-jax report runs/gates
  senet-jax report runs/gates --baseline plain --out paper/figures
  senet-jax report experiments/results/cifar10_gates

DIR holds folders of runs. Those that lie side by side as NAME/seed0, NAME/seed1, ... are one cell,
NAME; any other run is a cell by itself. A cell GROUP/NAME is compared with the baseline of its
group, GROUP/BASELINE. The table is printed in Markdown; beside it report.md, report.tex,
report.csv and runs.csv, and curves, errors, differences and cost as PNG and SVG are written.
Runs of several tasks or data sets are reported apart, a table of each; their files are written
into DIR/TASK, or DIR/TASK-DATA where a task has several data sets."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("dir", type=path, metavar="DIR", help="folder with runs under it")
    parser.add_argument(
        "--baseline",
        metavar="NAME",
        help="cell that the others are compared with, or what it is called in every group; "
        "default: the study's, else plain, else the one without attention, else the first by name",
    )
    parser.add_argument("--out", type=path, help="folder of what is written; default: DIR")


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    from senet_jax.analysis.study.cells import read_studies
    from senet_jax.analysis.study.report import report_studies
    from senet_jax.analysis.study.report_files import (
        check_report_folder,
        report_folders,
        write_report,
    )
    from senet_jax.analysis.study.tables import markdown
    from senet_jax.text import markdown as escaped

    studies, out = read_studies(options.dir), options.out or options.dir
    check_report_folder(out)
    folders = report_folders(studies, out)
    for folder in folders:
        check_report_folder(folder)
    reports = report_studies(studies, options.baseline)
    # Before they are written: a disk that is full does not take them from who asked.
    for study, report in zip(studies, reports, strict=True):
        if len(studies) > 1:
            print(f"## {escaped(study.task.name)} on {escaped(study.data_name)}\n")
        print(markdown(report), flush=True)
        if study is not studies[-1]:
            print()
    for report, folder in zip(reports, folders, strict=True):
        write_report(report, folder)
    return 0
