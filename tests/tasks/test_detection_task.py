import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from tiny_detection import write_rectangles

from senet_jax import cli, create_model, tasks
from senet_jax.config import (
    CheckpointConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from senet_jax.data.config import AugmentConfig, CropConfig, DataConfig, ObjectsConfig
from senet_jax.errors import UsageError
from senet_jax.inference.trained import restore_run
from senet_jax.interchange import load_weights
from senet_jax.models.configured import model_fields
from senet_jax.tasks.coco_ap import coco_scores
from senet_jax.tasks.detection import Detection
from senet_jax.training import loop
from senet_jax.training.presets import preset
from senet_jax.training.records.metrics import read_metrics
from senet_jax.training.run import Run

ROOT = Path(__file__).parents[2]
STOP = (os.getpid(), signal.SIGTERM)


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(tasks.TASKS, "detection", "tiny_detection:TinyDetection")
    return TrainConfig(
        run_dir=tmp_path / "run",
        task="detection",
        epochs=12,
        model=ModelConfig(name="maskrcnn_tiny"),
        data=DataConfig(
            name="coco_json",
            dir=write_rectangles(tmp_path / "set"),
            batch_size=8,
            eval_batch_size=4,
            augment=AugmentConfig(flip=True),
            objects=ObjectsConfig(short=(28, 32), long=64, most=4, mask_side=16),
        ),
        optimizer=OptimizerConfig(name="adamw", learning_rate=0.02, warmup_epochs=1),
        checkpoint=CheckpointConfig(keep_last=100),
        eval_every_epochs=4,
        mesh=MeshConfig(1),
    )


def data(config, **fields):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **fields))


def scores(metrics):
    """The numbers of a validation that are not about time or training."""
    return {key: value for key, value in metrics.items() if key.startswith("val/")}


def test_it_learns_and_a_killed_run_ends_with_the_same_bits(config, tmp_path, capsys):
    last = loop.train(config)
    said = capsys.readouterr().out
    # 18 images of each format, batches of 8.
    assert "batches of 32x64 and 64x32 pixels; 4 images of an epoch fill no batch" in said
    assert last["step"] == 4 * config.epochs
    assert last["val/count"] == 10
    assert last["val/AP50"] > 0.6
    assert last["val/mask_AP50"] > 0.6
    assert last["val/error"] == 1 - last["val/AP"]
    assert {"val/ap/red", "val/mask_ap/blue", "val/ARmax", "train/loss_mask"} <= last.keys()
    # No object has an area of 32^2 pixels or more.
    assert "val/APm" not in last

    killed = dataclasses.replace(config, run_dir=tmp_path / "killed")
    with pytest.raises(loop.Preempted):
        loop.train(killed, on_step=lambda step: step == 6 and os.kill(*STOP))
    assert scores(loop.train(killed)) == scores(last)
    states = [restore_run(each.run_dir)[2] for each in (config, killed)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *states))

    capsys.readouterr()
    run, step = str(config.run_dir), last["step"]
    results = tmp_path / "results.json"
    # The network has no batch norm.
    assert cli.main(["evaluate", run, "--results", str(results), "--bn-batches", "2"]) == 0
    said = capsys.readouterr().out
    assert f"step {step}: box AP {last['val/AP']:.2%}, box AP50" in said
    assert f"boxes: AP {last['val/AP']:.3f}, AP50 {last['val/AP50']:.3f}" in said
    assert "AP of masks by class:" in said
    assert f"{last['val/mask_ap/blue']:7.2%}  blue" in said
    found = json.loads(results.read_text())
    assert {(row["category_id"], row["category_name"]) for row in found} == {
        (3, "red"),
        (7, "blue"),
    }
    truth = config.data.dir / "annotations/instances_val2017.json"
    for kind, start in (("bbox", "val/"), ("segm", "val/mask_")):
        numbers = coco_scores(truth, found, kind, 12).numbers
        assert numbers["AP"] == pytest.approx(last[f"{start}AP"], abs=1e-6)

    photographs = config.data.dir / "val2017"
    out = ["--out", str(tmp_path / "drawn")]
    command = ["predict", str(photographs), "--run", run, *out, "--min-score", "0.4"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert f"{photographs}/1.png: {tmp_path}/drawn/1.objects.png\n  " in said
    assert "detections.json: " in said
    rows = json.loads((tmp_path / "drawn/detections.json").read_text())
    assert rows
    assert all(row["score"] >= 0.4 for row in rows)
    # As the evaluation found them, but for the numbers of the images.
    seen = [row for row in found if row["score"] >= 0.4]
    assert sorted(row["score"] for row in rows) == pytest.approx(
        sorted(row["score"] for row in seen), abs=1e-5
    )
    assert {tuple(row["segmentation"]["size"]) for row in rows} == {(32, 56), (56, 32)}
    picture = Image.open(tmp_path / "drawn/1.objects.png")
    assert picture.size == (32 * 9, 56 * 9)
    assert cli.main([*command, "--top", "2"]) == 2
    assert "leave out --top" in capsys.readouterr().err
    assert cli.main(["predict", str(photographs), "--run", run, run]) == 2
    assert "a network of detection, of which there are no ensembles" in capsys.readouterr().err
    for other in (
        ["average", run, "--out", "x.npz"],
        ["export", run, "--format", "stablehlo"],
        ["excitation", run],
    ):
        assert cli.main(other) == 2
        assert "is a run of the task detection" in capsys.readouterr().err
    for other in (
        ["evaluate", "--weights", "x.pth", "--data", "coco"],
        ["predict", str(photographs), "--weights", "x.pth"],
        ["export", "x.pth", "--format", "onnx"],
    ):
        assert cli.main([*other, "--model", "maskrcnn_resnet50_fpn"]) == 2
        assert "maskrcnn_resnet50_fpn is a detector" in capsys.readouterr().err


def test_a_batch_is_drawn_with_its_objects(config, tmp_path, capsys):
    flags = (
        f"--task detection --model.name maskrcnn_tiny --data.name coco_json --data.dir "
        f"{config.data.dir} --data.batch-size 8 --data.augment.flip --data.objects.short 28 32 "
        f"--images 3 --out {tmp_path}/batch.png"
    )
    assert cli.main(["show-data", *flags.split()]) == 0
    assert "3 of the 8 images of step 0 on coco_json" in capsys.readouterr().out
    drawn = np.asarray(Image.open(tmp_path / "batch.png"))[..., :3].astype(int)
    # The rectangles under the colours of their classes, which are not grey.
    assert (np.ptp(drawn, axis=2) > 60).mean() > 0.02


def test_any_mesh_batch_and_shapes_give_one_result(config):
    # Some steps first, so that something is found.
    loop.train(dataclasses.replace(config, epochs=4))
    _, _, variables = restore_run(config.run_dir)
    expected = None
    for devices, batch, shapes in ((1, 4, 8), (8, 5, 8), (2, 1, 2)):
        on = dataclasses.replace(
            data(config, eval_batch_size=batch, eval_shapes=shapes), mesh=MeshConfig(devices)
        )
        found = Run(on).evaluate(jax.device_get(variables))
        expected = expected or found
        assert found["val/count"] == 10
        assert found["val/AP"] > 0.1
        assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_two_processes_count_as_one(config, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = (
        f"train --task detection --model.name maskrcnn_tiny --data.name coco_json "
        f"--data.dir {config.data.dir} --data.batch-size 8 --data.eval-batch-size 4 "
        "--data.augment.flip --data.objects.short 28 32 --data.objects.long 64 "
        "--data.objects.most 4 --data.objects.mask-side 16 --epochs 4 --eval-every-epochs 4 "
        "--optimizer.name adamw --optimizer.learning-rate 0.02 --optimizer.warmup-epochs 1 "
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
        "tasks.TASKS['detection'] = 'tiny_detection:TinyDetection'; "
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *flags.split(), "--hosts.index"]
    processes = [subprocess.Popen([*command, str(index)], env=environment) for index in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]

    one = dataclasses.replace(config, epochs=4, mesh=MeshConfig(data=2))
    last = loop.train(one)
    *_, two = read_metrics(tmp_path / "two")
    assert scores(two) == pytest.approx(scores(last), abs=1e-4)


EVALUATION = """
import json, sys
from pathlib import Path
from senet_jax.inference.trained import restore_run
from senet_jax.training.distributed.clusters import HostsConfig
from senet_jax.training.distributed.hosts import distributed_session
folder, coordinator, count, index = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
with distributed_session(HostsConfig(coordinator, count, index), {}, folder):
    run, _, variables = restore_run(folder, with_data=True)
    metrics = run.evaluate(variables)
    (folder / f"metrics{index}.json").write_text(json.dumps(metrics))
"""
"""Evaluates a run by several processes."""


@pytest.mark.slow
def test_the_network_finds_the_same_on_any_devices(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scenes = preset("scenes-detection")
    few = dataclasses.replace(scenes.data, fraction=0.2, eval_batch_size=16)
    one = dataclasses.replace(
        scenes,
        run_dir=tmp_path / "run",
        epochs=3,
        eval_every_epochs=3,
        data=few,
        mesh=MeshConfig(1),
    )
    last = loop.train(one)
    expected = scores(last)
    assert expected["val/count"] == 512
    assert expected["val/AP50"] > 0.02
    _, _, variables = restore_run(one.run_dir)
    on = dataclasses.replace(one, mesh=MeshConfig(8))
    assert Run(on).evaluate(jax.device_get(variables)) == pytest.approx(expected, abs=1e-4)

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-c", EVALUATION, str(one.run_dir), f"127.0.0.1:{port}", "2"]
    processes = [subprocess.Popen([*command, str(index)], env=environment) for index in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]
    for index in range(2):
        found = json.loads((one.run_dir / f"metrics{index}.json").read_text())
        assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"balanced": True}, "--data.balanced .* is no field of the task detection"),
        ({"augment": AugmentConfig(mixup=0.2)}, "--data.augment.mixup .* is no field"),
        ({"image_size": 80}, "data.image_size is for drawn scenes"),
        ({"objects": ObjectsConfig()}, "have 2 sizes, such as 32x56 and 56x32 pixels"),
        ({"objects": ObjectsConfig(long=9)}, "data.objects.long needs --data.objects.short"),
        ({"crop": CropConfig(scale=(0.5, 2.0))}, "data.crop needs the size of the crops"),
        ({"crop": CropConfig(padding="mean")}, "--data.crop.padding .* is no field of the task"),
        ({"val_split": "tset"}, "has no annotations of the split tset"),
        ({"batch_size": 64}, "a batch of 64 is larger than the 36 training images"),
    ],
)
def test_a_wrong_config_is_refused_before_anything_is_written(config, fields, message):
    with pytest.raises(UsageError, match=message):
        loop.train(data(config, **fields))
    assert not config.run_dir.exists()


@pytest.mark.parametrize(
    ("name", "proposed"),
    [
        ("cifar_seresnet20", "maskrcnn_resnet50_fpn"),
        ("seresnet18", "maskrcnn_seresnet18_fpn"),
        ("fcn_resnet34", "maskrcnn_resnet34_fpn"),
    ],
)
def test_a_network_of_another_task_is_told_a_detector(name, proposed):
    with pytest.raises(UsageError, match=f"{name} finds no objects: .* such as {proposed},"):
        Detection.network(ModelConfig(name=name), 3)
    create_model(proposed)


TINY_COCO = os.environ.get("TINY_COCO")


@pytest.mark.slow
@pytest.mark.skipif(not TINY_COCO, reason="needs TINY_COCO, a folder of annotations and images")
def test_a_detector_trains_on_coco_and_is_evaluated(config, capsys, monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "detection", "senet_jax.tasks.detection:Detection")
    coco = dataclasses.replace(
        data(
            config,
            dir=Path(TINY_COCO),
            batch_size=4,
            objects=ObjectsConfig(short=(64, 96), long=160, most=20, mask_side=28),
            eval_shapes=2,
        ),
        epochs=2,
        eval_every_epochs=2,
        model=ModelConfig(
            name="maskrcnn_resnet18_fpn",
            widths=(8, 8, 16, 16),
            blocks=(1, 1, 1, 1),
            stem_width=8,
            pyramid_width=8,
            box_width=16,
            mask_width=8,
            mask_convs=1,
            anchor_sizes=(8, 16, 32, 64, 128),
            pre_nms_train=50,
            pre_nms_test=50,
            post_nms_train=30,
            post_nms_test=30,
            rpn_samples=32,
            box_samples=16,
            score_threshold=0.0,
            detections=30,
        ),
    )
    last = loop.train(coco)
    said = capsys.readouterr().out
    assert "maskrcnn_resnet18_fpn on coco_json" in said
    assert "objects have an anchor of IoU 0.5 or more" in said
    assert "batches of 96x160 and 160x96 pixels" in said
    # An image has 25 objects.
    assert "1 training images have more objects than 20, at most 2" in said
    assert last["val/count"] == 6
    assert 0 <= last["val/AP"] < 0.5
    assert "val/mask_AP50" in last
    names = {key.removeprefix("val/ap/") for key in last if key.startswith("val/ap/")}
    assert {"person", "chair"} & names


@pytest.mark.slow
def test_the_preset_killed_and_resumed_ends_bit_identical(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    short = preset("scenes-detection")
    short = dataclasses.replace(
        short,
        run_dir=tmp_path / "run",
        epochs=2,
        eval_every_epochs=2,
        data=dataclasses.replace(short.data, fraction=0.04),
        mesh=MeshConfig(1),
    )
    last = loop.train(short)
    killed = dataclasses.replace(short, run_dir=tmp_path / "killed")
    with pytest.raises(loop.Preempted):
        loop.train(killed, on_step=lambda step: step == 3 and os.kill(*STOP))
    assert scores(loop.train(killed)) == scores(last)
    states = [restore_run(each.run_dir)[2] for each in (short, killed)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *states))

    weights = tmp_path / "weights.safetensors"
    assert cli.main(["convert", str(short.run_dir), "--out", str(weights)]) == 0
    fields = model_fields(short.model, 11)
    found = load_weights(weights, short.model.name, **fields)
    assert jax.tree.all(jax.tree.map(np.array_equal, found, states[0]))
