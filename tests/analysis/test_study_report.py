"""Reports of runs that were written down by hand, so that every number is known."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from scipy import stats

from senet_jax import cli
from senet_jax.analysis.cells import read_study
from senet_jax.analysis.papers import published
from senet_jax.analysis.study_report import latex, markdown, report_study
from senet_jax.errors import UsageError
from senet_jax.models.cost import cost
from senet_jax.models.zoo import create_model
from senet_jax.training.config import AttentionOverrides, ModelConfig, TrainConfig

SE = ModelConfig(name="cifar_seresnet8")
TANH = dataclasses.replace(SE, attention=AttentionOverrides(gate="tanh"))
PLAIN = ModelConfig(name="cifar_resnet8")
CARD = {
    "name": "cifar10",
    "classes": [f"c{index}" for index in range(10)],
    "image_shape": [32, 32, 3],
    "mean": [0.5] * 3,
    "std": [0.2] * 3,
    "train": 50000,
    "val": 10000,
    "photographs": False,
}


def write_run(folder, model=SE, seed=0, top1=0.8, epochs=2, ended=True, **fields):
    config = TrainConfig(run_dir=folder, model=model, seed=seed, epochs=epochs, **fields)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    (folder / "dataset.json").write_text(json.dumps({**CARD, "name": config.data.name}))
    lines = [
        {
            "step": 390 * epoch,
            "epoch": epoch,
            "train/top1": top1 - 0.1 / epoch,
            "val/top1": top1 if epoch == epochs else top1 - 0.2,
            "val/loss": 1.0,
            "time/images_per_s": 100.0 * epoch,
            "time/steps_s": 1.0,
        }
        for epoch in range(1, epochs + ended)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


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
        assert row.error.mean == pytest.approx(np.mean(errors))
        assert row.error.std == pytest.approx(np.std(errors, ddof=1))
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
    assert lines[4].endswith("| 23.00 |")
    assert "9 runs of 3 cells on cifar10" in text
    assert "corrected for 2 comparisons (Holm)" in text
    assert "SE-ResNet-50, ImageNet (SENet, arXiv 1709.01507, Table 12)" in text


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
    rows = list(csv.DictReader(io.StringIO((out / "report.csv").read_text())))
    assert [float(row["top1_error"]) for row in rows] == pytest.approx(
        [error for errors in ERRORS.values() for error in errors]
    )
    assert [row["seed"] for row in rows] == ["0", "1", "2"] * 3
    tex = (out / "report.tex").read_text()
    assert tex.count(r" \\") == 4
    assert all(line.count("&") == 10 for line in tex.splitlines() if line.endswith(r"\\"))
    assert r"21.00 $\pm$ 1.00" in tex
    for name in ("curves", "errors", "cost"):
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


def test_runs_on_several_data_sets_are_not_compared(gates):
    data = dataclasses.replace(TrainConfig().data, name="digits")
    write_run(gates / "digits" / "seed0", SE, data=data)
    with pytest.raises(UsageError, match="runs on cifar10 and digits"):
        read_study(gates)


@pytest.mark.parametrize(
    ("fields", "top1"),
    [
        ({"name": "cifar_resnet8"}, 23.30),
        ({"name": "cifar_seresnet8"}, 22.28),
        ({"name": "cifar_seresnet8", "attention": AttentionOverrides(squeeze="max")}, 22.57),
        ({"name": "cifar_seresnet8", "attention": AttentionOverrides(reduction=4)}, 22.25),
        ({"name": "cifar_seresnet8", "stages": (3,)}, 23.04),
        ({"name": "cifar_seresnet8", "placement": "pre"}, 22.23),
        ({"name": "cifar_seresnet110"}, 5.21),
        ({"name": "cifar_seresnet110", "placement": "pre"}, 22.23),
        ({"name": "cifar_seresnet8", "placement": "pre", "stages": (3,)}, None),
        ({"name": "skresnet18"}, None),
    ],
)
def test_a_config_has_the_row_of_its_table(fields, top1):
    found = published(TrainConfig(model=ModelConfig(**fields)))
    assert (found and found.top1) == top1
