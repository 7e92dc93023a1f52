import dataclasses
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from senet_jax.data.normalization import Normalization
from senet_jax.data.scenes import ArrayScenes, evaluation_scenes
from senet_jax.inference.sliding import Sliding, SlidingScores, evaluate_sliding, grid, stride
from senet_jax.network import Network
from senet_jax.tasks.confusion import class_iou
from senet_jax.tasks.segmentation import Segmentation
from senet_jax.training.distributed.mesh import make_mesh

MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.25])
CLASSES = 4
SIZES = ((13, 20), (17, 9), (11, 11), (6, 31), (2, 3))


class Small(nn.Module):
    """Logits that depend on the neighbours of a pixel and on the mean of the image."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(CLASSES, (3, 3), name="conv")(images)
        return {"out": 2 * x + nn.Dense(CLASSES, name="mean")(images.mean((1, 2), keepdims=True))}


@pytest.fixture(scope="module")
def variables():
    x = np.zeros((1, 4, 4, 3), np.float32)
    return jax.device_get(Small().init(jax.random.key(3), x, train=False))


def network(devices=1):
    normalization = Normalization(tuple(MEAN), tuple(STD))
    return Network(Small(), normalization, make_mesh(devices))


def images(sizes=SIZES):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


def resize_axis(x, side, align):
    """Linear along the first axis, pixel by pixel in float64."""
    before, rows = len(x), []
    for index in range(side):
        if align:
            place = index * (before - 1) / (side - 1) if side > 1 else 0.0
        else:
            place = (index + 0.5) * before / side - 0.5
        place = min(max(place, 0), before - 1)
        low = int(place)
        high = min(low + 1, before - 1)
        rows.append(x[low] * (1 - (place - low)) + x[high] * (place - low))
    return np.stack(rows)


def resize(x, size, align):
    rows = resize_axis(x, size[0], align)
    return resize_axis(rows.swapaxes(0, 1), size[1], align).swapaxes(0, 1)


def logits_of(variables, crop, crop_size):
    """Those of a normalized crop, which is made as large as a crop by black pixels."""
    shown = np.broadcast_to(-MEAN / STD, (*crop_size, 3)).astype(np.float32).copy()
    shown[: crop.shape[0], : crop.shape[1]] = crop
    return np.asarray(Small().apply(variables, shown[None], train=False)["out"][0], np.float64)


def scores_of(variables, image, sliding):
    """One image, one crop after the other."""
    own, crop, align = image.shape[:2], sliding.crop, sliding.align_corners
    normalized = (image / 255 - MEAN) / STD
    total = 0
    for scale in sliding.scales:
        long = max(own) if sliding.side == "long" else min(own)
        side = math.ceil((sliding.base or long) * scale)
        exact = [each * side / long for each in own]
        size = [int(each + 0.5) if sliding.side == "long" else int(each) for each in exact]
        scaled = resize(normalized, size, align)
        padded = [max(each, of_crop) for each, of_crop in zip(size, crop, strict=True)]
        sums, counts = np.zeros((*padded, CLASSES)), np.zeros((*padded, 1))
        steps = [int(each * 2 / 3) for each in crop]
        for i in range(math.ceil((padded[0] - crop[0]) / steps[0]) + 1):
            for j in range(math.ceil((padded[1] - crop[1]) / steps[1]) + 1):
                window = tuple(
                    slice(place * step, min(place * step + each, most))
                    for place, step, each, most in zip((i, j), steps, crop, padded, strict=True)
                )
                cut = scaled[window]
                down, across = sums[window].shape[:2]
                shown = np.broadcast_to(-MEAN / STD, (*crop, 3)).copy()
                shown[: cut.shape[0], : cut.shape[1]] = cut
                logits = logits_of(variables, shown, crop)
                if sliding.flip:
                    logits = logits + logits_of(variables, shown[:, ::-1], crop)[:, ::-1]
                sums[window] += np.exp(logits)[:down, :across]
                counts[window] += 1
        assert (counts > 0).all()
        total = total + resize((sums / counts)[: size[0], : size[1]], own, align)
    return total


SLIDINGS = {
    "scales": Sliding((9, 9), True, (0.5, 1.0, 1.75), flip=True, base=12),
    "one scale": Sliding((9, 9), False, flip=True, base=20),
    "own size": Sliding((8, 12), True, (1.0, 1.3)),
    "large crop": Sliding((40, 40), False, (0.5, 1.0), flip=True),
    "short side": Sliding((7, 9), True, (0.75, 1.25), base=11, side="short"),
}


@pytest.mark.parametrize("name", SLIDINGS)
def test_scores_are_those_of_loops_over_crops(name, variables):
    sliding = SLIDINGS[name]
    shown = images()
    sizes = np.array(SIZES)
    frame = sizes.max(0)
    padded = np.full((len(shown), *frame, 3), 77, np.uint8)
    for row, image in zip(padded, shown, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    found = np.asarray(SlidingScores(network(), variables, sliding)(padded, sizes, sizes))
    for image, scores in zip(shown, found, strict=True):
        expected = scores_of(variables, image, sliding)
        height, width = image.shape[:2]
        np.testing.assert_allclose(scores[:height, :width], expected, rtol=2e-4)
        assert not scores[height:].any()
        assert not scores[:, width:].any()


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Scenes of several sizes in memory."""

    scenes: tuple[ArrayScenes, ...]

    def __len__(self):
        return len(self.scenes)

    @property
    def sizes(self):
        return np.array([scene.image_shape[:2] for scene in self.scenes])

    def name(self, index):
        return f"scene {index}"

    def scene(self, index):
        return self.scenes[index].scene(0)


def mixed():
    rng = np.random.default_rng(1)
    found = []
    for image in images((*SIZES, (13, 20))):
        label = rng.integers(0, CLASSES, image.shape[:2]).astype(np.uint8)
        label[rng.random(label.shape) < 0.2] = 255
        found.append(ArrayScenes(image[None], label[None]))
    return Mixed(tuple(found))


def test_every_pixel_counts_once_on_any_mesh_and_in_any_shape(variables):
    sliding, scenes = SLIDINGS["scales"], mixed()
    confusion = np.zeros((CLASSES, CLASSES), int)
    for index in range(len(scenes)):
        image, label = scenes.scene(index)
        found = scores_of(variables, image, sliding).argmax(-1)
        valid = label != 255
        np.add.at(confusion, (label[valid], found[valid]), 1)
    names = ("a", "b", "c", "d")
    task = Segmentation(names, 255, lambda: None)
    for devices, shapes, batch in ((1, 6, 4), (8, 2, 3)):
        groups = evaluation_scenes(scenes, CLASSES, (0, 0, 0), shapes)
        on = network(devices)
        metrics = evaluate_sliding(task, on, variables, groups, batch, sliding)
        assert metrics["val/count"] == len(scenes)
        assert "val/loss" not in metrics
        for name, iou in zip(names, class_iou(confusion), strict=True):
            assert metrics[f"val/iou/{name}"] == iou
        assert metrics["val/pixel_accuracy"] == np.trace(confusion) / confusion.sum()


def test_logits_that_float32_cannot_raise_keep_the_scores_finite(variables):
    large = jax.tree.map(lambda leaf: 300 * leaf, variables)
    sizes = np.array([[5, 6]])
    shown = np.random.default_rng(0).integers(0, 256, (1, 5, 6, 3)).astype(np.uint8)
    sliding = Sliding((4, 4), True, (1.0, 2.0), flip=True)
    assert np.isfinite(SlidingScores(network(), large, sliding)(shown, sizes, sizes)).all()


def test_the_network_is_compiled_once_for_all_shapes(variables):
    scores = SlidingScores(network(), variables, SLIDINGS["scales"])
    for size in SIZES:
        sizes = np.array([size])
        scores(np.zeros((1, *size, 3), np.uint8), sizes, sizes)
    assert scores._forward._cache_size() == 1


def test_the_grid_is_that_of_the_authors():
    # A photograph of ADE20K, 683x512 pixels, at the scales of the authors.
    sizes = [Sliding((480, 480), True, base=520).scaled((512, 683), s) for s in (0.5, 1, 1.75)]
    assert sizes == [(195, 260), (390, 520), (682, 910)]
    assert stride(480) == 320
    assert [grid(side, 480) for side in (260, 480, 481, 520, 800, 801, 910)] == [
        1,
        1,
        2,
        2,
        2,
        3,
        3,
    ]


def metrics_on(devices):
    """Those of random variables that all hosts draw alike."""
    x = np.zeros((1, 4, 4, 3), np.float32)
    drawn = jax.device_get(Small().init(jax.random.key(3), x, train=False))
    groups = evaluation_scenes(mixed(), CLASSES, (0, 0, 0), 3)
    task = Segmentation(("a", "b", "c", "d"), 255, lambda: None)
    return evaluate_sliding(task, network(devices), drawn, groups, 3, SLIDINGS["scales"])


@pytest.mark.slow
def test_two_processes_count_as_one():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import json, sys, jax; jax.config.update('jax_cpu_collectives_implementation', 'gloo'); "
        f"jax.distributed.initialize('127.0.0.1:{port}', 2, int(sys.argv[1])); "
        "import test_sliding; print(json.dumps(test_sliding.metrics_on(2)))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{Path(__file__).parents[2]}:{Path(__file__).parent}",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",
    }
    command = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen([*command, str(index)], env=environment, stdout=subprocess.PIPE)
        for index in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [json.loads(each.splitlines()[-1]) for each in said] == [metrics_on(1)] * 2
