"""The race of detectors really runs, small, against itself in the place of torchvision."""

import json
import shutil
import subprocess
from typing import get_args

import numpy as np
import pytest

from experiments.benchmarks import race_detection
from experiments.benchmarks.harness.contenders import OURS, TORCH
from experiments.benchmarks.harness.measure import spread
from experiments.benchmarks.harness.torchvision_cpu import library_path, stand_in
from senet_jax.interchange import from_torch
from senet_jax.models import zoo
from senet_jax.models.detection.mask_rcnn import MaskRCNN
from senet_jax.models.resnet import ResNet

NAME = "maskrcnn_resnet50_fpn"
OWN = {"blocks": (1, 1, 1, 1), "widths": (4, 4, 4, 8), "stem_width": 4}
HEADS = {
    **{"pyramid_width": 4, "box_width": 8, "mask_width": 4, "mask_convs": 1, "detections": 5},
    **{"pre_nms_train": 20, "pre_nms_test": 20, "post_nms_train": 20, "post_nms_test": 20},
    **{"box_samples": 8, "rpn_samples": 16, "score_threshold": 0.0},
}


class Twin(race_detection.JaxDetector):
    """The same detector, from the files that torchvision's process is given."""

    def __init__(self, python, job, folder):
        assert python == "python"
        with np.load(folder / "weights.npz") as weights:
            variables = from_torch(NAME, dict(weights), num_classes=job.classes)
        with np.load(folder / "data.npz") as data:
            super().__init__(job, variables, dict(data))
        self.about = {"torchvision": "none"}
        self.run(1)


@pytest.mark.slow
def test_both_find_the_same_and_are_measured_in_turns(monkeypatch, tmp_path):
    entry = zoo.ComposedEntry(ResNet, OWN, 64, MaskRCNN, HEADS)
    monkeypatch.setitem(zoo.ZOO, NAME, entry)
    monkeypatch.setattr(race_detection, "TorchDetector", Twin)
    out = tmp_path / "race.json"
    race = race_detection.Race("python", size=64, objects=3, pairs=2, sample_s=0, out=out)
    rows = race_detection.run(race)
    assert [(row["mode"], row["contender"]) for row in rows] == [
        (mode, name) for mode in get_args(race_detection.Mode) for name in (TORCH, OURS)
    ]
    assert all(row["images/s"] > 0 for row in rows)
    found = rows[3]["found"]
    assert found == rows[2]["found"]
    assert found["detections"] > 0
    assert rows[0]["found"]["loss_mask"] > 0
    written = json.loads(out.read_text())
    assert written["peer"] == {"torchvision": "none"}
    assert [row["part"] for row in written["parts"]] == list(race_detection.PARTS)
    assert rows[4]["found"] == rows[5]["found"] == rows[10]["found"]
    assert rows[6]["found"].keys() == {"loss_objectness", "loss_rpn_box_reg"}
    assert rows[8]["found"].keys() == rows[0]["found"].keys()

    def worse(self, steps):
        self.found = {"detections": 1, "scores": 0.5}
        return 1.0

    monkeypatch.setattr(Twin, "run", worse)
    with pytest.raises(ValueError, match="the detections differ"):
        race_detection.run(race_detection.Race("python", size=64, objects=3, modes=("infer",)))


def test_parts_are_differences_of_what_was_measured():
    seconds = {"features": 1, "proposals": 3, "losses": 7, "feature_gradients": 4, "train": 20}
    rows = [
        {"mode": mode, "contender": name, "step_s": spread([times * value])}
        for mode, value in seconds.items()
        for name, times in ((OURS, 1), (TORCH, 2))
    ]
    found = race_detection.parts(rows)
    assert [row["senet_jax, ms"] for row in found] == [1000, 2000, 4000, 3000, 10_000, 20_000]
    assert [row["PyTorch, ms"] for row in found] == [2000, 4000, 8000, 6000, 20_000, 40_000]
    assert sum(row["PyTorch, ms"] for row in found[:-1]) == found[-1]["PyTorch, ms"]
    assert [row["part"] for row in race_detection.parts(rows[-2:])] == ["complete step"]


@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("nm")), reason="needs cc and nm")
def test_libraries_stand_in_for_what_is_asked_of_cuda(tmp_path):
    package, folder = tmp_path / "torchvision", tmp_path / "libraries"
    package.mkdir()
    folder.mkdir()
    runtime = tmp_path / "torchvision.libs" / "libcudart.abc.so.13"
    runtime.parent.mkdir()
    runtime.touch()
    symbols = ("_ZN3c104cuda12device_countEv", "_ZN2at4cuda26getCurrentDevicePropertiesEv")
    calls = "".join(
        f"void {each}(void); void f{i}() {{ {each}(); }}" for i, each in enumerate(symbols)
    )
    (tmp_path / "c.c").write_text(f'{calls} int puts(const char *); void g() {{ puts(""); }}')
    target = str(package / "_C.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", target, str(tmp_path / "c.c")], check=True)
    stand_in(package, folder)
    library = folder / "libc10_cuda.so"
    command = ["nm", "-D", "--defined-only", str(library)]
    defined = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(each in defined for each in symbols)
    assert "puts" not in defined
    assert (folder / "libtorch_cuda.so").is_file()
    assert (folder / "libcudart.so.13").resolve() == runtime


def test_a_python_without_torchvision_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="has no torchvision"):
        library_path("true", tmp_path)
