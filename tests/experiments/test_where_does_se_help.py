"""The page on where SE helps says what the results say."""

import csv
import re

import numpy as np
import pytest

from experiments.where_does_se_help import (
    PAGE,
    RESULTS,
    TABLES,
    compared,
    draw_gains,
    filled,
    pairs,
    parts_table,
)


def test_the_tables_of_the_page_are_those_of_the_results():
    page = PAGE.read_text()
    assert {*re.findall(r"<!-- (\w+) -->", page)} == {*TABLES}
    assert filled(page) == page
    wrong = re.sub(r"\| (\d+\.\d\d) \|", "| 99.99 |", page)
    assert wrong != page
    assert filled(wrong) == page


def test_gains_are_those_of_the_runs():
    cells = compared()
    assert {each.study for each in cells} >= {"cifar10_gates", "camvid_se"}
    for each in cells:
        column = each.metric.column
        with (RESULTS / each.study / "runs.csv").open(newline="") as lines:
            rows = [*csv.DictReader(lines)]
        values = {
            name: np.array([float(row[column]) for row in rows if row["cell"] == name])
            for name in (each.cell, each.baseline)
        }
        gaps = values[each.baseline] - values[each.cell]
        gain = gaps.mean() if column.endswith("error") else -gaps.mean()
        assert each.gain == pytest.approx(gain)
        assert each.low is None or each.low < each.gain < each.high
        assert (each.without, each.attentive) == pytest.approx(
            (values[each.baseline].mean(), values[each.cell].mean())
        )


def test_gains_of_the_papers():
    gains = {(pair.attentive.paper[:5], pair.attentive.what): pair.gain for pair in pairs()}
    expected = {
        ("SENet", "SE-ResNet-50 on ImageNet"): 24.80 - 23.29,
        ("SENet", "SE-ResNet-110 on CIFAR-100"): 26.88 - 23.85,
        ("SENet", "Faster R-CNN SE-ResNet-50 on COCO"): 40.4 - 38.0,
        ("ResNe", "Mask R-CNN ResNeSt-101 on COCO"): 45.75 - 41.78,
        ("ResNe", "DeepLabV3 ResNeSt-50 on ADE20K"): 45.12 - 42.1,
        ("ResNe", "ResNeSt-50 on ImageNet"): 81.13 - 79.41,
    }
    assert {key: gains[key] for key in expected} == pytest.approx(expected)
    assert all(gain > 0 for gain in gains.values())


def test_classes_of_scenes_are_compared():
    (line,) = [row for row in parts_table().splitlines() if "| iou/sky |" in row]
    assert line.startswith("| camvid_se |")
    without, attentive, gain = re.findall(r"[-+]?\d+\.\d\d", line)[:3]
    assert float(gain) == pytest.approx(float(attentive) - float(without), abs=0.011)


@pytest.mark.slow
def test_the_figure_of_gains_is_drawn(tmp_path):
    draw_gains(tmp_path / "gains.png")
    assert (tmp_path / "gains.png").stat().st_size > 10_000
