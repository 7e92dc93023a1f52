"""The benchmark that kills runs: it sees what must be seen, and really runs, small."""

import json
import shutil
import subprocess
import sys

import pytest

from experiments.benchmarks.kill_and_resume import Kill, after_lines, differences, saves_from_now
from senet_jax.cli import main
from senet_jax.models import zoo
from senet_jax.models.resnet import ResNet


def test_a_save_is_seen_by_its_new_temporary_folder(tmp_path):
    (tmp_path / "5.orbax-checkpoint-tmp-1").mkdir()
    moment = saves_from_now(tmp_path, 2)
    assert not next(moment)
    (tmp_path / "10.orbax-checkpoint-tmp-2").mkdir()
    assert not next(moment)
    (tmp_path / "10.orbax-checkpoint-tmp-2").rename(tmp_path / "10")
    (tmp_path / "15.orbax-checkpoint-tmp-3").mkdir()
    assert next(moment)


def test_a_line_is_waited_for_whatever_the_time(tmp_path):
    file = tmp_path / "metrics.jsonl"
    moment = after_lines(file, 2, 0.0)
    assert not next(moment)
    file.write_text("1\n2")
    assert not next(moment)
    file.write_text("1\n2\n")
    assert next(moment)


@pytest.mark.slow
def test_what_differs_from_the_undisturbed_run_is_told(tmp_path, monkeypatch):
    fields = {"blocks": (1,), "widths": (4,), "stem_width": 4, "bottleneck": False}
    monkeypatch.setitem(zoo.ZOO, "tiny", zoo.ZooEntry(ResNet, fields, 8))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    flags = "--model.name tiny --mesh.data 1 --epochs 1 --data.batch-size 512"
    assert main(["train", "demo", "--run-dir", str(whole), *flags.split()]) == 0
    shutil.copytree(whole, killed)
    first = Kill("SIGKILL", "", newest=0, sessions=0, codes=[-9], longest_s=0.1, problems=[])
    assert differences(killed, whole, [first]) == []
    later = Kill("SIGKILL", "", newest=1, sessions=0, codes=[-9], longest_s=0.1, problems=[])
    assert differences(killed, whole, [later]) == ["started at [0] where checkpoint 1 was there"]
    file = killed / "metrics.jsonl"
    file.write_text(file.read_text().replace('"val/count": 360', '"val/count": 359'))
    assert differences(killed, whole, [first]) == ["the metrics differ"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_one_kill_of_each_kind_is_resumed(task, tmp_path):
    out = tmp_path / "kills.json"
    flags = ("--kills", "4", "--folder", str(tmp_path / "runs"), "--out", str(out), "--task", task)
    command = [sys.executable, "-m", "experiments.benchmarks.kill_and_resume", *flags]
    assert subprocess.run(command, check=False).returncode == 0
    assert json.loads(out.read_text())["in_all"] == "4 of 4"
