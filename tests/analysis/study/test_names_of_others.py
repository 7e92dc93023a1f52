"""Names of cells that a table, a figure or a terminal would act on."""

import contextlib
import csv
import io
import os
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from senet_jax import cli
from senet_jax.analysis.gates import plots as excitation_plots
from senet_jax.analysis.gates import report as excitation_report
from senet_jax.analysis.gates.excitation import Gates
from senet_jax.analysis.gates.grad_cam import GradCAM
from senet_jax.analysis.pictures import draw_images
from senet_jax.analysis.plots import draw_curves
from senet_jax.analysis.study import plots as study_plots
from senet_jax.analysis.study.cells import read_study
from senet_jax.analysis.study.report import report_study
from senet_jax.analysis.study.report_files import WRITTEN
from senet_jax.analysis.study.tables import (
    cells_csv,
    latex,
    markdown,
    runs_csv,
)
from senet_jax.inference.tally import Tally
from senet_jax.tasks.classification import Classification
from senet_jax.text import printable
from tests.analysis.study_folder import PLAIN, SE, TANH, write_run

HOSTILE = [
    "=cmd()",
    "_hidden",
    r"$\broken$",
    "[1em]*",
    "a|b",
    "red\x1b[31m\n\u202e",
    os.fsdecode(b"caf\xe9"),
]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A group of hostile cells, whose name is hostile too, and one more group."""
    folder = tmp_path_factory.mktemp("study")
    group = folder / "$g_1$"
    write_run(group / "plain" / "seed0", PLAIN)
    for place, name in enumerate(HOSTILE):
        write_run(group / name / "seed0", SE, label_smoothing=0.01 * place)
    write_run(folder / "other" / "plain" / "seed0", PLAIN)
    write_run(folder / "other" / "se" / "seed0", TANH)
    return folder


@pytest.fixture(scope="module")
def report(study):
    return report_study(read_study(study))


@pytest.fixture(scope="module")
def printed_and_written(study, tmp_path_factory):
    """The output of its report, and the folder of its files."""
    out = tmp_path_factory.mktemp("out")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert cli.main(["report", str(study), "--out", str(out)]) == 0
    return printed.getvalue(), out


def test_a_markdown_table_keeps_its_columns(report):
    table, notes = markdown(report).split("\n\n")
    rows = table.splitlines()
    assert len(rows) == 2 + len(HOSTILE) + 3
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {14}
    text = "\n".join(rows) + notes
    assert r"| \$g_1\$/\$\\broken\$ |" in text
    assert r"a\|b" in text
    assert "\x1b" not in text
    assert text.count(r"\\x1b\[31m\\n\\u202e") == 3


def test_a_latex_table_holds_names_as_text(report):
    tex = latex(report)
    rows = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(HOSTILE) + 3
    assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {12}
    assert not any(row.startswith(("[", "*")) for row in rows)
    assert r"\$g\_1\$/\$\textbackslash{}broken\$ &" in tex
    assert "\x1b" not in tex


def test_a_csv_file_holds_no_formula(tmp_path):
    for name in ("=cmd()", "@b", "+1", "plain"):
        write_run(tmp_path / name / "seed0", SE, label_smoothing=0.01 * len(name))
    report = report_study(read_study(tmp_path), "=cmd()")
    for table in (cells_csv(report), runs_csv(report)):
        rows = list(csv.DictReader(io.StringIO(table)))
        assert {row["cell"] for row in rows} == {"'=cmd()", "'@b", "'+1", "plain"}
        assert {row.get("baseline", "'=cmd()") for row in rows} == {"'=cmd()"}


def test_every_figure_shows_the_names(printed_and_written):
    _, written = printed_and_written
    assert sorted(path.name for path in written.iterdir()) == sorted(WRITTEN)
    for name in ("curves", "errors", "differences", "cost"):
        # The text of the glyphs is in comments.
        svg = (written / f"{name}.svg").read_text()
        ElementTree.fromstring(svg)
        for cell in HOSTILE:
            assert printable(cell) in svg.replace("\u200b", "")
    assert "$g_1$" in (written / "curves.svg").read_text()


def test_every_text_file_is_utf_8(printed_and_written):
    _, written = printed_and_written
    for name in ("report.md", "report.tex", "report.csv", "runs.csv"):
        text = (written / name).read_text(encoding="utf-8")
        assert re.search(r"caf(\\|\\\\|\\textbackslash{})udce9", text)


def test_a_legend_names_a_cell_with_an_underscore(tmp_path, monkeypatch):
    monkeypatch.setattr(study_plots, "FORMATS", ["svg"])
    write_run(tmp_path / "s" / "_a" / "seed0", PLAIN)
    write_run(tmp_path / "s" / "_b" / "seed0", SE)
    study_plots.draw_study(report_study(read_study(tmp_path / "s")), tmp_path)
    for name in ("curves", "cost"):
        svg = (tmp_path / f"{name}.svg").read_text()
        assert "<!-- \u200b_a -->" in svg
        assert "<!-- \u200b_b -->" in svg


def test_what_is_printed_acts_on_no_terminal(printed_and_written):
    printed, written = printed_and_written
    assert "\x1b" not in printed
    assert printed == (written / "report.md").read_text()


def test_curves_and_images_have_titles_of_any_class(tmp_path):
    run = tmp_path / "run"
    write_run(run)
    draw_curves(run, HOSTILE[2], Classification)
    images = np.zeros((len(HOSTILE), 4, 4, 3), np.uint8)
    draw_images(tmp_path / "images.png", images, [f"{name}\n{name}" for name in HOSTILE])
    assert (tmp_path / "images.png").stat().st_size > 1000


def test_gates_of_any_class_are_drawn_and_written(tmp_path, probe, network):
    block, *_ = probe(network()).blocks
    classes = [*HOSTILE[:3], HOSTILE[6]]
    mean, count = np.full((4, *block.shape), 0.5), np.ones(4, np.int64)
    gates = [Gates(block, count, mean, 0.1 * mean, 0.0, 0.0, np.ones(block.shape[-1]))]
    excitation_report.write_gates(gates, classes, [0, 1, 2, 3], [block.name], tmp_path)
    svg = (tmp_path / "gates.svg").read_text().replace("\u200b", "")
    for name in classes:
        assert f"<!-- {printable(name)} -->" in svg
    image, heat = np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8))
    maps = [GradCAM(np.array([0]), heat, heat, np.ones((1, 4)))]
    excitation_plots.draw_grad_cam([image], maps, [HOSTILE[2]], [HOSTILE[6]], tmp_path)
    svg = (tmp_path / "grad_cam.svg").read_text()
    assert r"<!-- $\broken$ -->" in svg
    assert r"<!-- caf\udce9 -->" in svg


def test_accuracies_by_class_are_no_formulas():
    tally = Tally(2)
    tally.add(np.log([[0.9, 0.1], [0.8, 0.2]]), np.array([[0], [1]]))
    rows = list(csv.DictReader(io.StringIO(tally.by_class().to_csv(["=a", "-b"]))))
    assert [row["class"] for row in rows] == ["'=a", "'-b"]
    assert rows[1]["taken_for"] == "'=a"
