"""Reports of a task that is not classification, of runs that were written down by hand."""

import csv
import dataclasses
import io
import json

import pytest

from senet_jax import cli
from senet_jax.analysis import plots
from senet_jax.analysis.run_report import draw_run, report_run
from senet_jax.analysis.study import plots as study_plots
from senet_jax.analysis.study.cells import read_studies, read_study
from senet_jax.analysis.study.report import report_study
from senet_jax.analysis.study.report_files import report_folders, write_report
from senet_jax.analysis.study.tables import latex, markdown
from senet_jax.config import TrainConfig
from senet_jax.errors import UsageError
from senet_jax.tasks.metrics import Metric
from senet_jax.training.records.goodput import Account, SessionLog
from tests.analysis.study_folder import PLAIN, SE, TANH, write_run

VALUES = {"plain": [0.5, 0.6, 0.7], "se": [0.2, 0.3, 0.5], "tanh": [0.7, 0.8, 1.0]}
MODELS = {"plain": PLAIN, "se": SE, "tanh": TANH}


def write_values(folder, key, **others):
    """Nine runs of the task "median", whose validation has the values as a metric."""
    for name, values in VALUES.items():
        for seed, value in enumerate(values):
            run = folder / name / f"seed{seed}"
            write_run(run, MODELS[name], seed, task="median")
            lines = [
                {"step": 390, "epoch": 1, "train/loss": 2.0},
                {"step": 780, "epoch": 2, "train/loss": 1.5, key: value, "val/count": 10, **others},
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (run / "metrics.jsonl").write_text(text)
    return folder


@pytest.fixture
def study(tmp_path, median):
    return write_values(tmp_path / "study", "val/median", **{"val/loss": 0.25})


def test_the_table_shows_the_metric_of_the_task(study):
    report = report_study(read_study(study))
    assert report.metric.key == "median"
    lines = markdown(report).splitlines()
    assert lines[0] == (
        "| cell | seeds | median error (m) | 95 % interval | difference (m) | p |  | parameters | "
        "MMACs | images/s |"
    )
    # Student's t of two degrees of freedom: 4.30265 / sqrt(3) of a deviation to either side. Its
    # p-value is 1 - t / sqrt(t^2 + 2): of t = 8 and 7 0.0153 and 0.0198, corrected both 0.0305.
    for line, start in zip(
        lines[2:5],
        (
            "| plain | 3 | 0.6000 ± 0.1000 | [0.3516, 0.8484] |  |  | baseline |",
            "| se | 3 | 0.3333 ± 0.1528 | [-0.0461, 0.7128] | -0.2667 [-0.4101, -0.1232] | 0.031 "
            "| better |",
            "| tanh | 3 | 0.8333 ± 0.1528 | [0.4539, 1.2128] | +0.2333 [0.0899, 0.3768] | 0.031 "
            "| worse |",
        ),
        strict=True,
    ):
        assert line.startswith(start)
        # No paper has a median error, and the table no columns for one.
        assert line.count("|") == lines[0].count("|")
    assert "on cifar10, median error of the final validation: mean" in lines[6]


def test_the_files_name_the_metric_of_the_task(study, tmp_path):
    out = tmp_path / "out"
    write_report(report_study(read_study(study)), out)
    assert (
        "cell & seeds & median error (m) & 95 \\% interval & diff"
        in (out / "report.tex").read_text()
    )
    cells = list(csv.DictReader(io.StringIO((out / "report.csv").read_text())))
    assert [float(cell["median"]) for cell in cells] == pytest.approx([0.6, 1 / 3, 5 / 6])
    rows = list(csv.reader(io.StringIO((out / "runs.csv").read_text())))
    assert rows[0][:5] == ["cell", "seed", "median", "loss", "params"]
    assert rows[4][:4] == ["se", "0", "0.2", "0.25"]
    # SVGs have their text as glyphs, each line of it in a comment.
    for name, text in (
        ("curves", "median error (m); band: all seeds"),
        ("errors", "median error (m), lines: 95 % interval, dots: seeds"),
        ("differences", "difference in median error to plain (m), lines: 95 % interval"),
        ("cost", "median error (m)"),
    ):
        assert f"<!-- {text} -->" in (out / f"{name}.svg").read_text()
    # Training does not measure it.
    assert "<!-- training -->" not in (out / "curves.svg").read_text()


def test_the_higher_is_the_better_where_the_metric_says_so(tmp_path, median, monkeypatch):
    monkeypatch.setattr(
        median, "metrics", (Metric("iou_1", "IoU_1*", True, fraction=True, unit="%"),)
    )
    monkeypatch.setattr(study_plots, "FORMATS", ["svg"])
    folder = tmp_path / "study"
    write_values(folder / "a", "val/iou_1")
    report = report_study(read_study(folder))
    lines = markdown(report).splitlines()
    assert lines[0].startswith(
        "| cell | seeds | IoU_1\\* (%) | 95 % interval | difference (points)"
    )
    # An interval of 33.33 ± 37.95 and one of 83.33 ± 37.95, each cut off at a limit.
    assert lines[3].startswith("| a/se | 3 | 33.33 ± 15.28 | [0.00, 71.28] | -26.67 [")
    assert "| worse |" in lines[3]
    assert lines[4].startswith("| a/tanh | 3 | 83.33 ± 15.28 | [45.39, 100.00] | +23.33 [")
    assert "| better |" in lines[4]
    assert r"& IoU\_1{*} (\%) &" in latex(report)
    write_values(folder / "b", "val/iou_1")
    write_report(report_study(read_study(folder)), tmp_path)
    for name, text in (
        ("curves", "validation; band: all seeds; axes: each its own"),
        ("cost", "IoU_1* (%)"),
    ):
        assert f"<!-- {text} -->" in (tmp_path / f"{name}.svg").read_text()
    rows = list(csv.reader(io.StringIO((tmp_path / "runs.csv").read_text())))
    assert rows[0][:4] == ["cell", "seed", "iou_1", "params"]


def test_runs_of_two_tasks_are_not_compared(study):
    write_run(study / "other" / "seed0", SE)
    with pytest.raises(
        UsageError, match="runs of the tasks classification and median, whose results cannot"
    ):
        read_study(study)


def test_a_run_without_its_headline_has_not_ended(study):
    file = study / "se" / "seed0" / "metrics.jsonl"
    whole = file.read_text()
    for key in ("val/median", "val/count"):
        file.write_text(whole.replace(key, "val/other"))
        assert read_study(study).unfinished == [file.parent]


def test_a_run_says_what_its_task_measures_and_draws_it(study, median, monkeypatch):
    run = study / "se" / "seed2"
    SessionLog(run, Account(), 780, "1 x cpu")
    assert report_run(run).startswith(
        "median error 0.5000 m of 10 held-out images, loss 0.2500, after 780 steps; too short"
    )
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, file: drawn.append(figure))
    draw_run(run)
    loss, error = drawn[0].axes
    assert [axes.get_ylabel() for axes in (loss, error)] == ["loss", "median error (m)"]
    assert [axes.get_yscale() for axes in (loss, error)] == ["log", "linear"]
    assert [line.get_xydata().tolist() for line in loss.lines] == [
        [[1.0, 2.0], [2.0, 1.5]],
        [[2.0, 0.25]],
    ]
    assert [line.get_xydata().tolist() for line in error.lines] == [[[2.0, 0.5]]]
    assert [text.get_text() for text in error.texts] == ["0.5000 m"]
    # A task without the watched metric has its loss drawn all the same.
    monkeypatch.setattr(median, "metrics", median.metrics[:1])
    draw_run(run)
    loss, error = drawn[1].axes
    assert [axes.get_ylabel() for axes in (loss, error)] == ["loss", "median error (m)"]
    assert [len(line.get_xydata()) for line in loss.lines] == [2, 1]
    assert ", loss" not in report_run(run)


def test_runs_of_two_tasks_are_reported_apart(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study_plots, "FORMATS", ["svg"])
    write_run(study / "other" / "seed0", SE)
    write_run(study / "waits" / "seed0", SE, ended=False)
    out = tmp_path / "out"
    assert cli.main(["report", str(study), "--out", str(out), "--baseline", "other"]) == 0
    headings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("## ")]
    assert headings == ["## classification on cifar10", "## median on cifar10"]
    first = (out / "classification" / "report.md").read_text()
    assert "| other | 1 |" in first
    assert "1 of 2 runs has not ended" in first
    then = (out / "median" / "report.md").read_text()
    assert "| se |" in then
    assert "other" not in then
    assert cli.main(["report", str(study), "--baseline", "nothing"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_data_sets_of_a_task_have_folders_of_their_own(tmp_path):
    for data in ("a/b", "a b", "c"):
        data_config = dataclasses.replace(TrainConfig().data, name=data)
        write_run(tmp_path / "runs" / data / "seed0", SE, data=data_config)
    studies = read_studies(tmp_path / "runs")
    names = [path.name for path in report_folders(studies, tmp_path)]
    assert names == ["classification-a_b", "classification-a_b-1", "classification-c"]
    assert report_folders(studies[:1], tmp_path) == [tmp_path]
