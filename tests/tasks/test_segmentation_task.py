import dataclasses
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax
from tiny_segmentation import PointSegmentation, TinySegmentation

from senet_jax import cli, tasks
from senet_jax.config import (
    CheckpointConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    SegmentationConfig,
    TrainConfig,
)
from senet_jax.data.config import AugmentConfig, CropConfig, DataConfig
from senet_jax.data.scene_sets import SceneOptions, open_scenes
from senet_jax.data.scenes import Survey
from senet_jax.errors import UsageError
from senet_jax.inference.segmenter import TrainedSegmenter
from senet_jax.inference.trained import restore_run
from senet_jax.tasks.segmentation import Segmentation, median_frequency_weights
from senet_jax.training import loop
from senet_jax.training.records.metrics import read_metrics
from senet_jax.training.run import Run
from tests.evaluated_run import evaluate_run

ROOT = Path(__file__).parents[2]
STOP = (os.getpid(), signal.SIGTERM)
COLORS = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
SIZES = ((12, 16), (16, 12), (10, 20))


def write_colored(root, counts=(24, 9)):
    """Scenes whose pixels have noisy colours of their classes; a tenth of them is ignored."""
    rng = np.random.default_rng(0)
    (root / "classes.txt").write_text("red\ngreen\nblue\n")
    for split, count in zip(("train", "val"), counts, strict=True):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            size = SIZES[index % 3]
            label = np.kron(rng.integers(0, 3, (3, 3)), np.ones((7, 7), int))[: size[0], : size[1]]
            image = (COLORS[label] + rng.normal(0, 40, (*size, 3))).clip(0, 255).astype(np.uint8)
            label[rng.random(size) < 0.1] = 255
            Image.fromarray(image).save(root / f"images/{split}/{index:02}.png")
            Image.fromarray(label.astype(np.uint8)).save(
                root / f"annotations/{split}/{index:02}.png"
            )
    return root


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(tasks.TASKS, "segmentation", "tiny_segmentation:TinySegmentation")
    (tmp_path / "set").mkdir()
    return TrainConfig(
        run_dir=tmp_path / "run",
        task="segmentation",
        epochs=3,
        data=DataConfig(
            name="masks",
            dir=write_colored(tmp_path / "set"),
            batch_size=8,
            eval_batch_size=4,
            crop=CropConfig(size=(10,), scale=(0.7, 1.5)),
            augment=AugmentConfig(flip=True),
        ),
        optimizer=OptimizerConfig(learning_rate=0.3, weight_decay=0.0),
        checkpoint=CheckpointConfig(keep_last=10),
        mesh=MeshConfig(1),
    )


def data(config, **fields):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **fields))


def validations(config, key="val/miou"):
    return [line[key] for line in read_metrics(config.run_dir) if key in line]


def states_equal(left, right):
    states = [restore_run(config.run_dir)[2] for config in (left, right)]
    return jax.tree.all(jax.tree.map(np.array_equal, *states))


def test_it_learns_and_a_killed_run_ends_with_the_same_bits(config, tmp_path):
    last = loop.train(config)
    assert last["val/count"] == 9
    assert last["val/miou"] > 0.8
    assert last["val/miou"] == last["val/miou_all"]
    assert {"val/iou/red", "val/pixel_accuracy", "train/pixel_accuracy"} <= last.keys()

    killed = dataclasses.replace(config, run_dir=tmp_path / "killed")
    with pytest.raises(loop.Preempted):
        loop.train(killed, on_step=lambda step: step == 4 and os.kill(*STOP))
    assert loop.train(killed)["val/miou"] == last["val/miou"]
    assert validations(killed) == validations(config)
    assert states_equal(killed, config)


def confusion_of(model, variables, scenes, normalization):
    """Counts pixel by pixel, image by image at its own size."""
    confusion = np.zeros((3, 3), int)
    for index in range(len(scenes)):
        image, label = scenes.scene(index)
        shown = (image[None] / 255 - normalization[0]) / normalization[1]
        logits = model.apply(variables, shown.astype(np.float32), train=False)["out"][0]
        for right, found in zip(label.ravel(), np.argmax(logits, -1).ravel(), strict=True):
            if right != 255:
                confusion[right, found] += 1
    return confusion


def measured(config, task, variables, monkeypatch):
    """The confusion matrix that a run counts."""
    kept = []
    make = task.accumulator
    monkeypatch.setattr(task, "accumulator", lambda self: kept.append(make(self)) or kept[-1])
    on = Run(config)
    found = on.evaluate(jax.device_get(variables))
    assert found["val/count"] == 9
    return kept[-1].counts


@pytest.mark.parametrize("shapes", [1, 3])
def test_any_mesh_and_shapes_count_each_original_pixel(config, shapes, monkeypatch):
    # Its pixels see no neighbours, so that padding cannot change what it says.
    monkeypatch.setitem(tasks.TASKS, "segmentation", "tiny_segmentation:PointSegmentation")
    config = data(config, eval_shapes=shapes)
    run = Run(config)
    assert len(run.val) == shapes
    variables = run.fresh_state().eval_variables
    dataset = run.dataset
    normalization = np.array(dataset.mean), np.array(dataset.std)
    expected = confusion_of(run.model, variables, dataset.val, normalization)
    for devices, batch in ((1, 4), (8, 5), (2, 1)):
        on = dataclasses.replace(data(config, eval_batch_size=batch), mesh=MeshConfig(devices))
        counts = measured(on, PointSegmentation, variables, monkeypatch)
        # One pixel may have two logits that differ by rounding alone.
        assert np.array_equal(counts, expected)


def test_own_sizes_are_what_each_image_gives_alone(config, monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "segmentation", "tiny_segmentation:ContextSegmentation")
    run = Run(data(config, eval_shapes=1))
    variables = run.fresh_state().eval_variables
    normalization = np.array(run.dataset.mean), np.array(run.dataset.std)
    expected = confusion_of(run.model, variables, run.dataset.val, normalization)
    trained = TrainedSegmenter("run", None, run, jax.device_get(variables))
    accuracy = np.trace(expected) / expected.sum()
    assert trained.evaluate(own_sizes=True)["val/pixel_accuracy"] == accuracy
    # The mean has the padding in it.
    assert trained.evaluate()["val/pixel_accuracy"] != accuracy


def test_the_evaluation_of_a_run_is_repeated_from_its_folder(config, capsys):
    last = loop.train(dataclasses.replace(config, epochs=1))
    step, found = evaluate_run(config.run_dir)
    assert step == 3
    # It is evaluated on all devices, which sum the losses in another order.
    assert found.pop("val/loss") == pytest.approx(last["val/loss"], rel=1e-6)
    assert found == {key: value for key, value in last.items() if key in found}
    assert cli.main(["evaluate", str(config.run_dir)]) == 0
    out = capsys.readouterr().out
    assert f"step 3: mIoU {last['val/miou']:.2%}, mIoU over all classes" in out
    assert "(9 held-out images)" in out
    run, _, _ = restore_run(config.run_dir)
    assert run.dataset.palette == open_scenes("masks", options(config)).palette


def options(config):
    return SceneOptions(config.data.dir, frame=(10, 10))


@pytest.mark.slow
def test_two_processes_count_as_one(config, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = (
        f"train --task segmentation --data.name masks --data.dir {config.data.dir} "
        "--data.batch-size 8 --data.eval-batch-size 4 --data.crop.size 10 "
        "--data.crop.scale 0.7 1.5 --data.augment.flip --epochs 1 "
        "--optimizer.learning-rate 0.3 --optimizer.weight-decay 0 "
        f"--run-dir {tmp_path / 'two'} --hosts.coordinator 127.0.0.1:{port} --hosts.count 2"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    code = (
        "import sys; from senet_jax import tasks; from senet_jax.cli import main; "
        "tasks.TASKS['segmentation'] = 'tiny_segmentation:TinySegmentation'; "
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *flags.split(), "--hosts.index"]
    processes = [subprocess.Popen([*command, str(index)], env=environment) for index in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]

    one = dataclasses.replace(config, epochs=1, mesh=MeshConfig(data=2))
    loop.train(one)
    two = dataclasses.replace(one, run_dir=tmp_path / "two")
    for key in ("val/miou", "val/miou_all", "val/pixel_accuracy", "val/iou/blue"):
        assert validations(two, key) == validations(one, key)
    assert validations(two, "val/loss") == pytest.approx(validations(one, "val/loss"), rel=1e-5)


def task_of(weights=None, **fields):
    return TinySegmentation(("a", "b", "c"), 255, lambda: weights, **fields)


def batch(seed=0, ignored=0.3):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, (4, 5, 6)).astype(np.uint8)
    label[rng.random(label.shape) < ignored] = 255
    outputs = {
        name: jnp.array(rng.normal(0, 2, (4, 5, 6, 3)), jnp.float32) for name in ("out", "aux")
    }
    return {"label": jnp.array(label), "image": np.zeros((4, 5, 6, 3))}, outputs


def cross_entropy(logits, label, weights=(1, 1, 1)):
    """The weighted mean over the labelled pixels, pixel by pixel."""
    total = weight = 0.0
    for values, right in zip(np.asarray(logits, float).reshape(-1, 3), label.ravel(), strict=True):
        if right != 255:
            total -= weights[right] * log_softmax(values)[right]
            weight += weights[right]
    return total / weight


@pytest.mark.parametrize("weights", [None, np.array([0.5, 2.0, 1.0])])
def test_the_loss_is_the_mean_over_the_labelled_pixels(weights):
    task = task_of(weights, aux_weight=0.25)
    arrays, outputs = batch()
    label = np.asarray(arrays["label"])
    normalizer = task.normalizer(arrays)
    loss, metrics = task.loss(outputs, arrays, None, normalizer)
    means = [
        cross_entropy(outputs[name], label, (1, 1, 1) if weights is None else weights)
        for name in ("out", "aux")
    ]
    assert float(loss) == pytest.approx(means[0] + 0.25 * means[1], rel=1e-5)
    right = (np.argmax(np.asarray(outputs["out"]), -1) == label)[label != 255].mean()
    assert float(metrics["pixel_accuracy"]) == pytest.approx(float(right), rel=1e-6)
    alone, _ = task.loss({"out": outputs["out"]}, arrays, None, normalizer)
    assert float(alone) == pytest.approx(means[0], rel=1e-5)


def test_weights_of_classes_are_double_in_float64():
    weights = np.array([0.1, 2 / 3, 1.7])
    arrays, outputs = batch()
    with jax.enable_x64(True):
        task, logits = task_of(weights), jnp.asarray(np.float64(outputs["out"]))
        loss, _ = task.loss({"out": logits}, arrays, None, task.normalizer(arrays))
    expected = cross_entropy(logits, np.asarray(arrays["label"]), weights)
    assert float(loss) == pytest.approx(expected, rel=1e-14)


def test_a_batch_without_labels_has_no_loss_and_no_gradient():
    task = task_of()
    arrays, outputs = batch(ignored=1.1)

    def loss(logits):
        return task.loss({"out": logits}, arrays, None, task.normalizer(arrays))[0]

    value, gradient = jax.value_and_grad(loss)(outputs["out"])
    assert value == 0
    assert not np.asarray(gradient).any()


def test_parts_of_a_batch_have_the_gradient_of_the_whole(config):
    def gradient(parts):
        weights = SegmentationConfig(class_weights="median")
        run = Run(dataclasses.replace(config, accumulate=parts, segmentation=weights))
        _, metrics = run.train_step(run.fresh_state(), run.batches[0][0])
        return [float(metrics[name]) for name in ("loss", "grad_norm", "pixel_accuracy")]

    assert gradient(4) == pytest.approx(gradient(1), rel=1e-5)


def test_padding_and_what_is_not_a_number_do_not_count():
    task = task_of()
    arrays, outputs = batch()
    logits = outputs["out"].at[2:].set(jnp.nan)
    weight = jnp.array([1.0, 1, 0, 0])
    sums, _ = task.measure({"out": logits}, {**arrays, "weight": weight})
    half = {name: values[:2] for name, values in arrays.items()}
    expected, _ = task.measure({"out": logits[:2]}, {**half, "weight": weight[:2]})
    assert np.array_equal(sums["confusion"], expected["confusion"])
    assert float(sums["loss"]) == float(expected["loss"])
    label = np.asarray(half["label"])
    assert sums["confusion"].sum() == (label != 255).sum()
    mean = cross_entropy(logits[:2], label)
    assert float(sums["loss"]) / (label != 255).sum() == pytest.approx(mean, rel=1e-5)


def test_median_frequency_weights():
    # Class 0 is in both images, 1 and 2 in one of them, 3 in none.
    survey = Survey(np.array([[4, 5], [2, 5]]), np.array([[10, 5, 0, 0], [2, 0, 8, 0]]))
    frequencies = [12 / 30, 5 / 20, 8 / 10]
    expected = [np.median(frequencies) / each for each in frequencies]
    assert median_frequency_weights(survey) == pytest.approx([*expected, 1])


def test_the_roots_of_median_frequency_weights(config):
    def weights(asked):
        weighted = dataclasses.replace(config, segmentation=SegmentationConfig(class_weights=asked))
        return Segmentation.of(weighted, TinySegmentation.open(weighted)).weights()

    assert weights("root_median") ** 2 == pytest.approx(weights("median"))
    assert len({*weights("median")}) > 1


def test_weights_come_from_a_file(config, tmp_path):
    file = tmp_path / "weights.txt"
    file.write_text("0.5\n\n2\n1e0\n")
    weighted = dataclasses.replace(config, segmentation=SegmentationConfig(class_weights=str(file)))
    task = Segmentation.of(weighted, TinySegmentation.open(weighted))
    assert task.weights().tolist() == [0.5, 2, 1]
    for text, message in (
        ("1\n2\n", "has 2 weights, and the data set has 3 classes"),
        ("1\nx\n2\n", "has a line that is no number"),
        ("1\n-1\n2\n", "weights of at least 0"),
        ("0\n0\n0\n", "one of them above it"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=message):
            loop.train(weighted)
        assert not weighted.run_dir.exists()


def test_adjusted_logits_are_those_of_the_frequencies():
    weights = np.array([0.5, 2, 3])
    task = dataclasses.replace(task_of(), weights=lambda: weights, adjust_logits=True)
    arrays, outputs = batch()
    label = np.asarray(arrays["label"])
    found, _ = task.loss({"out": outputs["out"]}, arrays, None, task.normalizer(arrays))
    known = label != 255
    logits = np.float64(outputs["out"]) + np.log(weights)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = -np.take_along_axis(logits, np.where(known, label, 0)[..., None], -1)[..., 0]
    each = np.where(known, weights[np.where(known, label, 0)], 0)
    assert float(found) == pytest.approx((each * picked).sum() / each.sum(), rel=1e-5)

    # One pixel that is class 0 in 9 of 10 images: the loss is least at the true shares.
    shares = np.array([0.9, 0.1, 1e-9])
    labels = jnp.array([0] * 9 + [1], jnp.uint8)[:, None, None]

    def slope(logits):
        images = jnp.broadcast_to(logits, (10, 1, 1, 3))
        one = {"label": labels}
        return task.loss({"out": images}, one, None, task.normalizer(one))[0]

    gradient = np.asarray(jax.grad(slope)(jnp.asarray(np.log(shares), jnp.float32)))
    assert np.abs(gradient).max() < 1e-6


def test_logits_are_adjusted_by_weights_above_zero(config, tmp_path):
    file = tmp_path / "weights.txt"
    file.write_text("1\n0\n2\n")
    for asked, message in (
        (None, "adds the logarithms of the class weights, and there are none"),
        (str(file), "has the weight 0, which has no logarithm"),
    ):
        adjusted = SegmentationConfig(class_weights=asked, adjust_logits=True)
        with pytest.raises(UsageError, match=message):
            loop.train(dataclasses.replace(config, segmentation=adjusted))
        assert not config.run_dir.exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"balanced": True}, "--data.balanced .* is no field of the task segmentation"),
        ({"augment": AugmentConfig(mixup=0.2)}, "--data.augment.mixup .* is no field"),
        ({"augment": AugmentConfig(rotation=10)}, "--data.augment.rotation .* is no field"),
        ({"crop": CropConfig()}, "have 3 sizes, such as .* --data.crop.size"),
        ({"image_size": 20}, "data.image_size is for drawn scenes"),
        ({"ignore_label": 2}, "labels with a value that is no class"),
        ({"val_split": "tset"}, "unknown split 'tset'"),
    ],
)
def test_a_wrong_config_is_refused_before_anything_is_written(config, fields, message):
    wrong = data(config, **fields)
    with pytest.raises(UsageError, match=message):
        loop.train(wrong)
    assert not config.run_dir.exists()


def test_labels_that_are_all_ignored_are_refused(config):
    for file in (config.data.dir / "annotations/val").iterdir():
        Image.fromarray(np.full_like(np.asarray(Image.open(file)), 255)).save(file)
    with pytest.raises(UsageError, match="no pixel of the validation scenes of masks has a class"):
        loop.train(config)


@pytest.mark.parametrize(
    "config_",
    [
        TrainConfig(data=DataConfig(eval_shapes=3)),
        TrainConfig(data=DataConfig(crop=CropConfig(size=(8,)))),
    ],
)
def test_classification_has_no_fields_of_segmentation(config_):
    with pytest.raises(UsageError, match="is no field of the task classification"):
        tasks.task_of(config_)


def test_a_network_of_classification_is_refused(config, monkeypatch):
    monkeypatch.undo()
    message = "cifar_resnet8 classifies images, .* such as fcn_cifar_resnet8"
    elsewhere = data(config, dir=config.data.dir / "absent")
    with pytest.raises(UsageError, match=message):
        Run(dataclasses.replace(elsewhere, model=ModelConfig(name="cifar_resnet8")))


def test_padding_may_have_the_mean(config):
    dataset = TinySegmentation.open(config)
    for padding, color in (("black", (0, 0, 0)), ("mean", (124, 116, 104))):
        crop = dataclasses.replace(config.data.crop, padding=padding)
        task = Segmentation.of(data(config, crop=crop), dataset)
        assert task.examples(dataset, "train")[0].view.fill == color
        assert task.examples(dataset, "val")[0].fill == color


def test_show_data_draws_scenes_with_their_labels(config, tmp_path, capsys):
    file = tmp_path / "scenes.png"
    flags = f"--data.dir {config.data.dir} --data.crop.size 10 --data.batch-size 8 --images 4"
    assert cli.main(["show-data", "masks", *flags.split(), "--out", str(file)]) == 0
    assert "4 of the 8 images of step 0 on masks, 10x10 pixels" in capsys.readouterr().out
    picture = np.asarray(Image.open(file).convert("RGB")).astype(int)
    # The legend has the colours of the palette: black, red and green of VOC.
    for color in ((128, 0, 0), (0, 128, 0)):
        assert (np.abs(picture - color).sum(-1) <= 6).any()
