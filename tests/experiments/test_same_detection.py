"""A detector learns what torchvision's learns from the same weights and images."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.benchmarks.same_detection import (
    AP,
    LOSSES,
    OURS,
    THEIRS,
    SameDetection,
    compare,
    compared,
    draw,
    smooth,
)
from senet_jax.data.digit_scenes import draw_scene
from senet_jax.data.pictures import run_lengths
from tests.ops.torchvision_oracle import PYTHON, needs_torchvision

FIRST = "first losses without drawing"


def write_scenes(root, split, count):
    """Digits in scenes, as a folder in COCO's format, of one class."""
    (root / "images").mkdir(exist_ok=True)
    images, annotations = [], []
    for index in range(count):
        scene, name = draw_scene(split, 0, index), f"{split}{index}.png"
        Image.fromarray(scene.image).save(root / "images" / name)
        side = len(scene.image)
        images.append({"id": index, "file_name": name, "height": side, "width": side})
        for mask, (x1, y1, x2, y2) in zip(scene.masks, scene.boxes.tolist(), strict=True):
            annotation = {
                "id": len(annotations),
                "image_id": index,
                "category_id": 7,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": run_lengths(mask),
            }
            annotations.append(annotation)
    categories = [{"id": 7, "name": "digit"}]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"instances_{split}.json").write_text(json.dumps(data))


def row(side, seed, loss, score):
    losses = dict.fromkeys(LOSSES, loss)
    scores = dict.fromkeys(AP, score)
    return {"side": side, "seed": seed, "last": {**losses, "loss": 5 * loss}, "scores": scores}


def test_a_difference_stands_beside_that_of_the_seeds():
    rows = [row(OURS, 0, 1.0, 0.5), row(OURS, 1, 1.25, 0.5)]
    rows += [row(THEIRS, 0, 1.0, 0.25), row(THEIRS, 1, 1.0, 0.75)]
    found = {each["quantity"]: each for each in compared(rows)}
    assert [*found] == [*LOSSES, "loss", *AP]
    assert (found["loss_mask"]["difference"], found["loss_mask"]["between seeds"]) == (0.125, 0.25)
    assert (found["AP"]["difference"], found["AP"]["between seeds"]) == (0.0, 0.5)


def test_a_smoothed_curve_keeps_its_ends():
    values = np.concatenate([np.full(10, 2.0), np.full(20, 8.0)])
    smoothed = smooth(values)
    assert smoothed.shape == values.shape
    np.testing.assert_allclose(smoothed[[0, -1]], [2, 8])
    assert smoothed[10] == pytest.approx(np.mean([2, 8, 8]))


@pytest.mark.slow
@needs_torchvision
def test_first_losses_are_those_of_torchvision(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split, count in (("train", 9), ("val", 4)):
        write_scenes(tmp_path, split, count)
    rows, about = compare(SameDetection(tmp_path, PYTHON, epochs=2, batch=3, seeds=1))
    first = about[FIRST]
    assert {*first[OURS]} == {*first[THEIRS]} == {*LOSSES}
    for name in LOSSES:
        assert first[OURS][name] == pytest.approx(first[THEIRS][name], rel=1e-4)
    assert [each["side"] for each in rows] == [THEIRS, OURS]
    for each in rows:
        assert {*each["curves"]} == {*LOSSES}
        assert all(len(curve) == about["steps"] == 6 for curve in each["curves"].values())
        assert np.isfinite([*each["curves"].values()]).all()
        assert all(0 <= each["scores"][name] <= 1 for name in AP)
    theirs = rows[0]
    assert theirs["scores"] == pytest.approx(theirs["AP in senet_jax"], abs=1e-3)
    draw(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
