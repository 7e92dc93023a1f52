"""Segmentation with networks of the zoo, from the flags to the pictures."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from senet_jax import UsageError, cli, create_model
from senet_jax.analysis.overlays import overlay
from senet_jax.config import AttentionOverrides, MeshConfig, ModelConfig, OptimizerConfig
from senet_jax.data.config import DataConfig
from senet_jax.data.digit_scenes import CLASSES, PALETTE
from senet_jax.inference.trained import restore_run
from senet_jax.interchange import save_weights
from senet_jax.models.configured import build_model
from senet_jax.tasks.segmentation import Segmentation
from senet_jax.training import loop
from senet_jax.training.optimizer import make_optimizer, matching
from senet_jax.training.presets import preset
from senet_jax.training.records.metrics import read_metrics
from senet_jax.training.run import Run

SMALL = ModelConfig(
    name="fcn_cifar_seresnet8",
    blocks=(1, 1),
    widths=(4, 8),
    stem_width=4,
    attention=AttentionOverrides(reduction=2),
)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Six steps on 24 digit scenes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("senet_jax.data.scene_sets.TRAIN_SCENES", 24)
    monkeypatch.setattr("senet_jax.data.scene_sets.VAL_SCENES", 6)
    return dataclasses.replace(
        preset("scenes-segmentation"),
        run_dir=tmp_path / "run",
        epochs=2,
        model=SMALL,
        data=DataConfig(name="scenes", batch_size=8, eval_batch_size=6),
        optimizer=OptimizerConfig(learning_rate=0.1),
        mesh=MeshConfig(1),
    )


def parameters(network):
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False)["params"], x)


def test_the_flags_of_backbone_and_attention_reach_the_backbone():
    model = build_model(
        dataclasses.replace(
            SMALL, aux=False, norm_group=2, attention=AttentionOverrides(gate="tanh")
        ),
        7,
    )
    assert (model.num_classes, model.aux) == (7, False)
    assert (model.backbone.widths, model.backbone.norm_group) == ((4, 8), 2)
    assert model.attention.gate == "tanh"


def test_resnest_is_dilated_as_its_authors_dilate_it_under_a_head():
    of_head, alone = (
        build_model(ModelConfig(name=name), 5) for name in ("fcn_resnest50d", "resnest50d")
    )
    assert (of_head.backbone.dilated, of_head.backbone.output_stride) == ("authors", 8)
    assert (alone.dilated, alone.output_stride) == ("timm", 32)
    changed = build_model(ModelConfig(name="fcn_resnest50d", dilated="timm"), 5)
    assert changed.backbone.dilated == "timm"


def test_both_heads_learn_at_the_full_rate_and_the_backbone_at_its_share():
    params = parameters(build_model(SMALL, 5))
    of_head = flatten_dict(matching(params, Segmentation.head), sep="/")
    assert {path.split("/")[0]: full for path, full in of_head.items()} == {
        "backbone": False,
        "head": True,
        "aux_head": True,
    }


def test_every_parameter_decays_if_asked():
    config = OptimizerConfig(
        learning_rate=1.0, momentum=0.0, nesterov=False, weight_decay=0.5, schedule="step"
    )
    params = {"conv": {"kernel": np.ones(2)}, "bn": {"scale": np.ones(2), "bias": np.ones(2)}}
    zeros = jax.tree.map(np.zeros_like, params)
    for every in (False, True):
        optimizer = make_optimizer(dataclasses.replace(config, decay_all=every), lambda step: 1.0)
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        found = {path: -float(leaf[0]) for path, leaf in flatten_dict(updates, sep="/").items()}
        assert found == {"conv/kernel": 0.5, "bn/scale": 0.5 * every, "bn/bias": 0.5 * every}


def test_weights_of_a_classifier_start_the_backbone(config, tmp_path):
    fields = {
        "blocks": (1, 1),
        "widths": (4, 8),
        "stem_width": 4,
        "num_classes": 3,
        "attention": build_model(SMALL, 3).attention,
    }
    model = create_model("cifar_seresnet8", **fields)
    x = np.zeros((1, 32, 32, 3), np.float32)
    variables = model.init(jax.random.key(7), x, train=False)
    file = tmp_path / "classifier.npz"
    save_weights(file, "cifar_seresnet8", variables, **fields)

    started = dataclasses.replace(config, init_weights=str(file), drop_head=True)
    params = Run(started).fresh_state().params
    for module, leaves in params["backbone"].items():
        jax.tree.map(np.testing.assert_array_equal, leaves, variables["params"][module])
    assert {"backbone", "head", "aux_head"} == params.keys()
    with pytest.raises(UsageError, match=r"none of its heads.\nAbout the head: --drop-head"):
        loop.train(dataclasses.replace(started, drop_head=False))
    assert not config.run_dir.exists()


class Killed(BaseException):
    """Ends a run where it stands, as SIGKILL would: nothing is caught, nothing finished."""


def test_a_killed_run_ends_with_the_same_bits(config, tmp_path):
    last = loop.train(config)
    assert {"val/miou", "val/iou/background"} <= last.keys()
    killed = dataclasses.replace(config, run_dir=tmp_path / "killed")

    def kill(step):
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        loop.train(killed, on_step=kill)
    loop.train(killed)
    states = [restore_run(each.run_dir)[2] for each in (config, killed)]
    jax.tree.map(np.testing.assert_array_equal, *states)
    losses = [
        [line["val/loss"] for line in read_metrics(each.run_dir) if "val/loss" in line]
        for each in (config, killed)
    ]
    assert losses[0] == losses[1]


def test_predict_draws_the_classes_and_evaluate_lists_them(config, tmp_path, capsys):
    last = loop.train(dataclasses.replace(config, epochs=1))
    capsys.readouterr()
    photo = tmp_path / "photo.png"
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3)).astype(np.uint8)
    Image.fromarray(image).save(photo)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    run, out = str(config.run_dir), tmp_path / "out"
    flags = ["--run", run, "--out", str(out), "--json", "--top", "11"]
    assert cli.main(["predict", str(photo), str(broken), *flags]) == 2
    printed = capsys.readouterr()
    assert f"{broken} cannot be read as an image" in printed.err
    said = json.loads(printed.out)

    found, _, variables = restore_run(config.run_dir)
    mean, std = np.array(found.dataset.mean), np.array(found.dataset.std)
    shown = ((image[None] / 255 - mean) / std).astype(np.float32)
    logits = np.asarray(found.model.apply(variables, shown, train=False)["out"][0])
    label = np.asarray(Image.open(out / "photo.label.png"))
    assert label.shape == image.shape[:2]
    sorted_logits = np.sort(logits, -1)
    clear = sorted_logits[..., -1] - sorted_logits[..., -2] > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(label[clear], np.argmax(logits, -1)[clear])
    shares = {each["class"]: each["share"] for each in said["classes"]}
    assert shares == {
        CLASSES[index]: pytest.approx(count / label.size)
        for index, count in enumerate(np.bincount(label.ravel()))
        if count
    }
    drawn = np.asarray(Image.open(said["overlay"]).convert("RGB")).reshape(-1, 3).astype(int)
    color = overlay(image, label, PALETTE)[16, 23].astype(int)
    assert (np.abs(drawn - color).max(-1) <= 3).any()
    assert not (out / "broken.label.png").exists()

    assert cli.main(["predict", str(photo), "--run", run, "--views", "ten-crop"]) == 2
    assert "leave out --views" in capsys.readouterr().err
    assert cli.main(["predict", str(photo), "--run", run, run]) == 2
    assert "of which there are no ensembles" in capsys.readouterr().err
    (tmp_path / "more").mkdir()
    Image.fromarray(image).save(tmp_path / "more/photo.png")
    both = [str(photo), str(tmp_path / "more/photo.png")]
    assert cli.main(["predict", *both, "--run", run]) == 2
    assert "pictures of one name" in capsys.readouterr().err

    assert cli.main(["evaluate", run]) == 0
    text = capsys.readouterr().out
    assert f"mIoU {last['val/miou']:.2%}" in text
    assert f"  {last['val/iou/background']:7.2%}  background\n" in text
