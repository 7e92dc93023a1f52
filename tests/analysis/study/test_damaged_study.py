"""Reports of folders whose files are damaged, into folders that cannot be written."""

import errno
import os
from pathlib import Path

import pytest

from senet_jax import cli
from senet_jax.analysis.run_report import draw_run, report_run
from senet_jax.analysis.study import plots as study_plots
from senet_jax.analysis.study import report_files as reports
from senet_jax.analysis.study.cells import read_study, write_baseline
from senet_jax.analysis.study.report import report_study
from senet_jax.analysis.study.report_files import write_report
from senet_jax.analysis.study.tables import markdown
from senet_jax.errors import UsageError
from senet_jax.training.records.goodput import Account, SessionLog
from tests.analysis.study_folder import PLAIN, SE, write_run


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "study"
    write_run(folder / "plain" / "seed0", PLAIN)
    write_run(folder / "se" / "seed0", SE)
    return folder


def files_of(folder):
    """The files of a folder and their contents."""
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def refused(capsys):
    """The one sentence of a report that is refused, which leaves the files as they are."""

    def run(folder, *arguments):
        before = files_of(folder.parent)
        assert cli.main(["report", str(folder), *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert captured.out == ""
        assert files_of(folder.parent) == before
        return captured.err

    return run


def fifo(file):
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def folder(file):
    file.unlink(missing_ok=True)
    file.mkdir()


DAMAGES = {
    "null": lambda file: file.write_text("null\n"),
    "a number": lambda file: file.write_text("7\n"),
    "not UTF-8": lambda file: file.write_bytes(b'{"step": "\xff"}\n'),
    "deep": lambda file: file.write_text("[" * 100_000 + "\n"),
    "no JSON": lambda file: file.write_text("{torn\n"),
    "a FIFO": fifo,
    "a folder": folder,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["se/seed0/metrics.jsonl", "se/seed0/sessions.jsonl", "study.json"]
)
def test_a_damaged_file_is_named(study, refused, name, damage):
    DAMAGES[damage](study / name)
    assert f"{study / name} " in refused(study)


@pytest.mark.parametrize(
    "text", ["{}", '{"baseline": null}', '{"baseline": 3}', '{"baseline": []}']
)
def test_a_study_without_a_baseline_says_what_to_do(study, refused, text):
    (study / "study.json").write_text(text)
    error = refused(study)
    assert f"{study / 'study.json'} does not name the baseline of a study: take it away" in error


@pytest.mark.parametrize("text", ["", '{"step": 390, "epoch": 1.0}\n', '{"step": 780, "epo'])
def test_a_run_without_its_last_line_is_left_out(study, text):
    (study / "se" / "seed0" / "metrics.jsonl").write_text(text)
    table = markdown(report_study(read_study(study)))
    assert "1 of 2 runs has not ended and is left out." in table


def test_a_run_without_the_metrics_of_training_is_drawn(study, tmp_path, monkeypatch):
    line = '{"step": 780, "epoch": 2, "val/top1": 0.5, "val/loss": 1.0, "val/count": 10}\n'
    (study / "se" / "seed0" / "metrics.jsonl").write_text(line)
    monkeypatch.setattr(study_plots, "FORMATS", ["svg"])
    write_report(report_study(read_study(study)), tmp_path / "out")
    assert draw_run(study / "se" / "seed0").stat().st_size > 1000


def test_what_a_run_came_to_is_told_before_it_is_drawn(study):
    run = study / "se" / "seed0"
    metrics = run / "metrics.jsonl"
    whole = metrics.read_text()
    for lost in ("val/count", "val/top1"):
        metrics.write_text(whole.replace(lost, "lost"))
        with pytest.raises(UsageError, match="lacks the final validation"):
            report_run(run)
    metrics.write_text(whole)
    SessionLog(run, Account(), 780, "1 x cpu")
    with (run / "sessions.jsonl").open("a") as file:
        file.write('{"began"')
    (run / "curves.png").mkdir()
    assert report_run(run).startswith("top-1 80.00% of 10 held-out images")


@pytest.mark.parametrize(
    "target", ["report.md", "report.tex", "report.csv", "runs.csv", "cost.svg"]
)
def test_a_folder_in_the_place_of_a_file_is_refused(study, refused, tmp_path, target):
    (tmp_path / "out" / target).mkdir(parents=True)
    assert f"{target} is a folder" in refused(study, "--out", tmp_path / "out")


def test_a_folder_with_a_name_too_long_is_refused(study, refused, tmp_path):
    assert "too long for the name of a file" in refused(study, "--out", tmp_path / ("n" * 300))
    with pytest.raises(UsageError, match="File name too long"):
        read_study(tmp_path / ("n" * 300))


def test_an_unknown_baseline_makes_no_folder(study, refused, tmp_path):
    assert "unknown cell 'so'" in refused(study, "--out", tmp_path / "out", "--baseline", "so")


def test_a_full_disk_leaves_the_table_and_the_old_report(study, tmp_path, monkeypatch, capsys):
    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out"
    out.mkdir()
    (out / "report.md").write_text("old")
    monkeypatch.setattr("senet_jax.files._synchronise", full)
    assert cli.main(["report", str(study), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert "| plain | 1 |" in captured.out
    assert captured.err == (
        f"senet-jax: error: {out / 'report.md'} cannot be written: No space left on device.\n"
    )
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("report.md", "old")]
    with pytest.raises(UsageError, match=r"study\.json cannot be written: No space left"):
        write_baseline(study, "plain")


def test_the_committed_results_read_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "draw_study", lambda *arguments: None)
    committed = Path("experiments/results/cifar10_gates")
    assert cli.main(["report", str(committed), "--out", str(tmp_path)]) == 0
    for name in ("report.md", "report.tex", "report.csv", "runs.csv"):
        assert (tmp_path / name).read_text() == (committed / name).read_text()
