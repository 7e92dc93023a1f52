"""Reports of runs that were written down by hand, so that every number is known."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from scipy import stats

from senet_jax import cli
from senet_jax.analysis.study.cells import baseline_of, natural, read_study, write_baseline
from senet_jax.analysis.study.plots import MARKERS, _apart, draw_study
from senet_jax.analysis.study.report import report_study
from senet_jax.analysis.study.tables import latex, markdown
from senet_jax.config import TrainConfig
from senet_jax.errors import UsageError
from senet_jax.models.cost import cost
from senet_jax.models.zoo import create_model
from senet_jax.training.records.goodput import Session
from tests.analysis.study_folder import PLAIN, SE, TANH, write_run

ERRORS = {
    "plain": [20.0, 21.0, 22.0],
    "sigmoid": [19.0, 19.9, 21.1],
    "tanh": [20.5, 20.1, 22.3],
}
MODELS = {"plain": PLAIN, "sigmoid": SE, "tanh": TANH}


@pytest.fixture
def gates(tmp_path):
    folder = tmp_path / "gates"
    for name, errors in ERRORS.items():
        for seed, error in enumerate(errors):
            write_run(folder / name / f"seed{seed}", MODELS[name], seed, 1 - error / 100)
    return folder


def test_a_report_has_the_statistics_of_the_seeds(gates):
    report = report_study(read_study(gates))
    assert report.baseline == "plain"
    assert [row.cell.name for row in report.rows] == ["plain", "sigmoid", "tanh"]
    tests = {
        name: stats.ttest_rel(ERRORS[name], ERRORS["plain"]).pvalue for name in ("sigmoid", "tanh")
    }
    for row in report.rows:
        errors = ERRORS[row.cell.name]
        assert row.final.mean == pytest.approx(np.mean(errors))
        assert row.final.std == pytest.approx(np.std(errors, ddof=1))
        assert row.images_per_s == 150
        if row.cell.name != "plain":
            assert row.difference.p == pytest.approx(tests[row.cell.name], rel=1e-9)
    low, high = sorted(tests.values())
    corrected = sorted(row.difference.corrected_p for row in report.rows[1:])
    assert corrected == pytest.approx([2 * low, max(2 * low, high)])
    expected = cost(create_model("cifar_seresnet8", num_classes=10), 32)
    assert report.rows[1].cost == expected


def test_the_table_says_what_differs_and_what_does_not(gates):
    text = markdown(report_study(read_study(gates)))
    lines = text.splitlines()
    assert lines[2].startswith("| plain | 3 | 21.00 ± 1.00 | [18.52, 23.48] |")
    assert "| baseline | 75,290 | 12.24 |" in lines[2]
    assert "| better |" in lines[3]
    assert "| no significant difference |" in lines[4]
    assert lines[2].endswith("| 23.30 |  |")
    assert lines[4].endswith("| 23.00 | -0.30 |")
    assert "9 runs of 3 cells on cifar10" in text
    assert "corrected for 2 comparisons (Holm)" in text
    assert "SE-ResNet-50 on ImageNet (SENet, arXiv 1709.01507, Table 12)" in text


def test_the_report_says_what_the_runs_computed_on(gates):
    def session(hardware):
        return json.dumps(dataclasses.asdict(Session(0.0, 0, 780, {"steps": 2.0}, hardware))) + "\n"

    assert "Computed on" not in markdown(report_study(read_study(gates)))
    (gates / "tanh/seed0/sessions.jsonl").write_text(session("2 x Xeon") + session("2 x Xeon"))
    text = markdown(report_study(read_study(gates)))
    assert "Computed on 2 x Xeon." in text
    (gates / "tanh/seed1/sessions.jsonl").write_text(session(None) + session("8 x NVIDIA H200"))
    text = markdown(report_study(read_study(gates)))
    assert "Computed on 2 x Xeon and 8 x NVIDIA H200: images/s are no comparison." in text


def test_cells_that_differ_by_more_than_the_network_are_said_to(gates):
    assert "Besides the network" not in markdown(report_study(read_study(gates)))
    for seed in range(2):
        write_run(gates / "short" / f"seed{seed}", TANH, seed, epochs=1, label_smoothing=0.1)
    text = markdown(report_study(read_study(gates)))
    assert (
        "Besides the network, short differs from the baseline in epochs: 1, not 2; "
        "label_smoothing: 0.1, not 0.0." in text
    )
    assert "than the means are of: short (2)." in text


def test_equal_seeds_give_no_interval_and_intervals_are_clipped(tmp_path):
    for seed in range(3):
        write_run(tmp_path / "plain" / f"seed{seed}", PLAIN, seed, top1=0.5)
        write_run(tmp_path / "se" / f"seed{seed}", SE, seed, top1=1 - 0.01 * seed)
    report = report_study(read_study(tmp_path))
    plain, se = report.rows
    assert (plain.final.std, plain.final.low, plain.final.high) == (0.0, None, None)
    assert se.final.low == 0.0
    assert se.final.high == pytest.approx(1 + stats.t.ppf(0.975, 2) / 3**0.5)
    text = markdown(report)
    assert "| plain | 3 | 50.00 ± 0.00 |  |" in text
    assert "All seeds came out the same, which gives no interval: plain." in text


def test_another_baseline_turns_the_differences(gates):
    forward = report_study(read_study(gates)).rows[1].difference
    report = report_study(read_study(gates), "sigmoid")
    assert report.rows[0].cell.name == "sigmoid"
    back = next(row.difference for row in report.rows if row.cell.name == "plain")
    assert back.estimate.mean == pytest.approx(-forward.estimate.mean)
    with pytest.raises(UsageError, match="did you mean sigmoid"):
        report_study(read_study(gates), "sigmoids")


def test_the_command_writes_the_table_in_every_form(gates, capsys, tmp_path):
    out = tmp_path / "out"
    assert cli.main(["report", str(gates), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed == (out / "report.md").read_text()
    cells = list(csv.DictReader(io.StringIO((out / "report.csv").read_text())))
    assert [cell["cell"] for cell in cells] == ["plain", "sigmoid", "tanh"]
    for cell in cells:
        errors = ERRORS[cell["cell"]]
        assert float(cell["top1_error"]) == pytest.approx(np.mean(errors))
        assert float(cell["std"]) == pytest.approx(np.std(errors, ddof=1))
        if cell["cell"] != "plain":
            test = stats.ttest_rel(errors, ERRORS["plain"])
            assert float(cell["p"]) == pytest.approx(test.pvalue)
            interval = test.confidence_interval()
            assert float(cell["difference_low"]) == pytest.approx(interval.low)
            assert float(cell["difference_high"]) == pytest.approx(interval.high)
    assert [cell["published"] for cell in cells] == ["23.3", "22.28", "23.0"]
    assert cells[0]["difference"] == cells[0]["p"] == ""
    rows = list(csv.DictReader(io.StringIO((out / "runs.csv").read_text())))
    assert [float(row["top1_error"]) for row in rows] == pytest.approx(
        [error for errors in ERRORS.values() for error in errors]
    )
    assert [row["seed"] for row in rows] == ["0", "1", "2"] * 3
    tex = (out / "report.tex").read_text()
    assert tex.count(r" \\") == 4
    assert all(line.count("&") == 11 for line in tex.splitlines() if line.endswith(r"\\"))
    assert r"21.00 $\pm$ 1.00" in tex
    for name in ("curves", "errors", "differences", "cost"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (out / f"{name}.svg").read_text()


def test_one_seed_is_neither_given_an_interval_nor_tested(tmp_path):
    write_run(tmp_path / "s" / "a", PLAIN)
    write_run(tmp_path / "s" / "b", SE, top1=0.9)
    report = report_study(read_study(tmp_path / "s"))
    text = markdown(report)
    assert "| b | 1 | 10.00 |  | -10.00 |  | one seed: no test |" in text
    assert "One seed only, so neither interval nor test: a, b." in text
    assert "Differences" not in text
    assert "±" not in text.splitlines()[2]
    assert latex(report).count("\\\\") == 3


def test_the_same_difference_for_all_seeds_is_no_certainty(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / "a" / f"seed{seed}", PLAIN, seed, top1=(351 - seed) / 360)
        write_run(tmp_path / "b" / f"seed{seed}", SE, seed, top1=(349 - seed) / 360)
    report = report_study(read_study(tmp_path))
    assert "| +0.56 |  | no spread: no test |" in markdown(report)
    assert "t-test" not in markdown(report)
    draw_study(report, tmp_path)


def test_a_cell_without_a_seed_of_the_baseline_is_not_compared(tmp_path):
    write_run(tmp_path / "s" / "a" / "seed0", PLAIN)
    write_run(tmp_path / "s" / "b" / "seed1", SE, seed=1)
    text = markdown(report_study(read_study(tmp_path / "s")))
    assert "| baseline |" in text.splitlines()[2]
    assert "| no seed in common |" in text.splitlines()[3]
    assert "No seed in common with the baseline: b." in text


def test_what_has_not_ended_is_left_out_and_said(gates):
    write_run(gates / "relu" / "seed0", SE, 0, ended=False)
    study = read_study(gates)
    assert study.unfinished == [gates / "relu" / "seed0"]
    assert "1 of 10 runs has not ended and is left out." in markdown(report_study(study))


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "has no runs"),
        ([("a", {"ended": False})], "none of the 1 runs"),
        (
            [("a/seed0", {}), ("a/seed1", {"seed": 1, "label_smoothing": 0.1})],
            r"differ by more than the seed \(label_smoothing: 0.1, not 0.0\)",
        ),
        ([("a/seed0", {}), ("a/seed1", {})], "have the same seed 0"),
    ],
)
def test_a_folder_that_cannot_be_reported_is_refused(tmp_path, runs, message, capsys):
    folder = tmp_path / "study"
    folder.mkdir()
    for name, fields in runs:
        write_run(folder / name, **fields)
    assert cli.main(["report", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(UsageError, match=message):
        read_study(folder)


def test_what_is_no_folder_of_runs_is_refused_in_a_sentence(gates, tmp_path, capsys):
    def refused(*arguments):
        assert cli.main(["report", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    file = tmp_path / "file"
    file.touch()
    assert f"{tmp_path / 'nowhere'} does not exist" in refused(tmp_path / "nowhere")
    assert f"{file} is a file" in refused(file)
    assert f"{file} is no folder" in refused(gates, "--out", file)


def test_runs_on_several_data_sets_are_not_compared(gates):
    data = dataclasses.replace(TrainConfig().data, name="digits")
    write_run(gates / "digits" / "seed0", SE, data=data)
    with pytest.raises(UsageError, match="runs on cifar10 and digits"):
        read_study(gates)


GROUPED = {
    "A/plain": [20.0, 21.0, 22.0],
    "A/se": [19.0, 20.5, 21.2],
    "B/plain": [10.0, 10.5, 10.2],
    "B/se": [9.0, 9.4, 9.1],
    "B/eca": [9.9, 10.6, 10.1],
    "C/se": [5.0, 5.0, 5.0],
}


@pytest.fixture
def families(tmp_path):
    models = {"plain": PLAIN, "se": SE, "eca": TANH}
    folder = tmp_path / "families"
    for name, errors in GROUPED.items():
        for seed, error in enumerate(errors):
            write_run(
                folder / name / f"seed{seed}", models[name.split("/")[1]], seed, 1 - error / 100
            )
    return folder


def test_a_cell_is_compared_with_the_baseline_of_its_group(families):
    report = report_study(read_study(families))
    assert report.baseline == "plain"
    assert [row.cell.name for row in report.rows] == [
        "A/plain",
        "A/se",
        "B/plain",
        "B/eca",
        "B/se",
        "C/se",
    ]
    pairs = {"A/se": "A/plain", "B/eca": "B/plain", "B/se": "B/plain"}
    tests = {a: stats.ttest_rel(GROUPED[a], GROUPED[b]).pvalue for a, b in pairs.items()}
    found = {row.cell.name: row.difference for row in report.rows if row.difference}
    assert {name: gap.p for name, gap in found.items()} == pytest.approx(tests, rel=1e-6)
    # Holm's correction is for all comparisons of the study.
    assert min(gap.corrected_p for gap in found.values()) == pytest.approx(3 * min(tests.values()))
    text = markdown(report)
    assert text.count("| baseline |") == 2
    assert "| no baseline |" in text.splitlines()[7]
    assert "Differences to the cell plain of each group" in text
    assert "corrected for 3 comparisons" in text
    assert "No baseline to compare with: C/se." in text
    assert latex(report).count("midrule") == 3


def test_the_baseline_of_one_group_can_be_that_of_all(families):
    rows = report_study(read_study(families), "B/plain").rows
    assert {row.baseline for row in rows} == {"B/plain"}
    gaps = {row.cell.name: row.difference for row in rows}
    assert gaps["C/se"].estimate.mean == pytest.approx(5 - np.mean(GROUPED["B/plain"]))
    with pytest.raises(UsageError, match="did you mean plain"):
        report_study(read_study(families), "plane")


def test_a_study_says_what_it_compares_with(families):
    write_baseline(families, "se")
    rows = report_study(read_study(families)).rows
    assert {row.cell.name: row.baseline for row in rows if row.group == "B"} == dict.fromkeys(
        ("B/plain", "B/eca", "B/se"), "B/se"
    )
    assert report_study(read_study(families), "plain").rows[0].baseline == "A/plain"
    # It may not have ended yet; one that is asked for must be there.
    write_baseline(families, "sigmoid")
    assert "No baseline to compare with: " in markdown(report_study(read_study(families)))
    with pytest.raises(UsageError, match="unknown cell 'sigmoid'"):
        report_study(read_study(families), "sigmoid")


@pytest.mark.parametrize(
    ("name", "baseline", "expected"),
    [
        ("x", "plain", "plain"),
        ("plain", "plain", "plain"),
        ("G/x", "plain", "G/plain"),
        ("G/plain", "plain", "G/plain"),
        ("G/H/x", "plain", "G/plain"),
        ("K/x", "plain", "plain"),
        ("K/x", "G/plain", "G/plain"),
        ("K/x", "sigmoid", None),
    ],
)
def test_the_nearest_baseline_is_taken(name, baseline, expected):
    assert baseline_of(name, baseline, ["plain", "x", "G/plain", "G/x"]) == expected


def test_names_are_sorted_with_their_numbers_by_value():
    names = ["8x14d", "32x4d", "1x64d", "a10/b", "a9/b", "2x40d"]
    assert sorted(names, key=natural) == ["1x64d", "2x40d", "8x14d", "32x4d", "a9/b", "a10/b"]


def test_the_figures_of_groups_are_drawn(families, tmp_path):
    report = report_study(read_study(families))
    files = draw_study(report, tmp_path)
    assert {file.name for file in files} == {
        f"{name}.{kind}"
        for name in ("curves", "errors", "differences", "cost")
        for kind in ("png", "svg")
    }
    # SVGs have their text as glyphs, each line of it in a comment.
    assert "<!-- A -->" in (tmp_path / "curves.svg").read_text()
    assert "<!-- B/eca -->" in (tmp_path / "differences.svg").read_text()
    assert "<!-- C/se -->" not in (tmp_path / "differences.svg").read_text()


def test_points_of_one_cost_are_moved_apart_and_others_stay():
    costs = [10.0, 40.0, 10.0, 20.0, 10.01]
    moved = _apart(costs)
    assert [moved[1], moved[3]] == [40.0, 20.0]
    first, third, last = moved[0], moved[2], moved[4]
    marker = 4 ** (1 / MARKERS)
    assert third / first > marker
    assert last / third > marker
    assert first < 10.0 < last
    assert max(first, third, last) < 11.0
