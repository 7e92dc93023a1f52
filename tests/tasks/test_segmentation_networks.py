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
from senet_jax.data.datasets import IMAGENET_MEAN, IMAGENET_STD
from senet_jax.data.digit_scenes import CLASSES, PALETTE
from senet_jax.data.scene_names import VOC
from senet_jax.inference.average import batch_norm_statistics
from senet_jax.inference.pixels import PixelClassifier
from senet_jax.inference.segmenter import segmenter_run
from senet_jax.inference.sliding import Sliding
from senet_jax.inference.trained import restore_run
from senet_jax.interchange import load_weights, save_weights
from senet_jax.models import zoo
from senet_jax.models.configured import build_model, model_fields
from senet_jax.models.resnet import ResNet
from senet_jax.network import normalize
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


def few_scenes(patch, run_dir):
    patch.setenv("XDG_CACHE_HOME", str(run_dir.parent / "cache"))
    patch.setattr("senet_jax.data.scene_sets.TRAIN_SCENES", 24)
    patch.setattr("senet_jax.data.scene_sets.VAL_SCENES", 6)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Six steps on 24 digit scenes."""
    few_scenes(monkeypatch, tmp_path / "run")
    return few_steps(tmp_path / "run")


def few_steps(run_dir):
    return dataclasses.replace(
        preset("scenes-segmentation"),
        run_dir=run_dir,
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


def test_resnest_under_a_head_is_dilated_as_its_authors_do():
    of_head, alone = (
        build_model(ModelConfig(name=name), 5) for name in ("fcn_resnest50d", "resnest50d")
    )
    assert (of_head.backbone.dilated, of_head.backbone.output_stride) == ("authors", 8)
    assert (alone.dilated, alone.output_stride) == ("timm", 32)
    changed = build_model(ModelConfig(name="fcn_resnest50d", dilated="timm"), 5)
    assert changed.backbone.dilated == "timm"


def test_heads_learn_at_the_full_rate_and_backbones_at_a_share():
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert cli.main(["predict", str(photo), "--run", run, "--crop-size", "1", "2", "3"]) == 2
    assert "--crop-size is height and width" in capsys.readouterr().err
    (tmp_path / "more").mkdir()
    Image.fromarray(image).save(tmp_path / "more/photo.png")
    both = [str(photo), str(tmp_path / "more/photo.png")]
    assert cli.main(["predict", *both, "--run", run]) == 2
    assert "pictures of one name" in capsys.readouterr().err

    assert cli.main(["evaluate", run]) == 0
    text = capsys.readouterr().out
    assert f"mIoU {last['val/miou']:.2%}" in text
    assert f"  {last['val/iou/background']:7.2%}  background\n" in text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of three steps."""
    with pytest.MonkeyPatch.context() as patch:
        run_dir = tmp_path_factory.mktemp("segmentation") / "run"
        few_scenes(patch, run_dir)
        loop.train(dataclasses.replace(few_steps(run_dir), epochs=1))
    return run_dir


def test_several_scales_in_crops_are_evaluated_and_predicted(config, folder, tmp_path, capsys):
    run = str(folder)
    flags = ["--scales", "0.5", "1", "--flip", "--crop-size", "40"]
    assert cli.main(["evaluate", run, *flags, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    trained = segmenter_run(folder, with_data=True)
    sliding = Sliding((40, 40), False, (0.5, 1.0), flip=True)
    assert trained.sliding((0.5, 1.0), flip=True, crop=(40, 40)) == sliding
    assert said == {"step": 3, **trained.evaluate(sliding)}
    assert said["val/count"] == 6
    assert "val/loss" not in said

    photo = tmp_path / "photo.png"
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3)).astype(np.uint8)
    Image.fromarray(image).save(photo)
    out = ["--run", run, "--out", str(tmp_path)]
    assert cli.main(["predict", str(photo), *out, *flags]) == 0
    capsys.readouterr()
    label = np.asarray(Image.open(tmp_path / "photo.label.png"))
    np.testing.assert_array_equal(label, PixelClassifier(trained, sliding)(image))

    assert cli.main(["evaluate", run, "--flip", "--own-sizes"]) == 2
    assert "leave out --own-sizes" in capsys.readouterr().err
    plain = trained.evaluate()
    assert trained.evaluate(own_sizes=True) == plain


def test_programs_of_old_sizes_are_dropped(config, folder, monkeypatch):
    monkeypatch.setattr("senet_jax.inference.pixels.MOST_SIZES", 2)
    trained = segmenter_run(folder)
    for sliding in (None, trained.sliding(crop=(32, 32))):
        classifier = PixelClassifier(trained, sliding)
        program = classifier._classes_of if sliding is None else classifier._scores._add
        counts = []
        for side in (32, 33, 32, 34):
            classifier(np.zeros((side, 40, 3), np.uint8))
            counts.append(program._cache_size())
        assert counts == [1, 2, 2, 1]


@pytest.fixture
def released(tmp_path, monkeypatch):
    """Writes weights of a small network with an auxiliary head; returns what it says."""
    fields = {"blocks": (1, 1), "widths": (4, 8), "stem_width": 4, "bottleneck": False}
    monkeypatch.setitem(zoo.CLASSIFIERS, "tiny", zoo.ZooEntry(ResNet, fields, 32))

    def write(classes):
        model = create_model("fcn_tiny", num_classes=classes)
        x = np.zeros((1, 32, 32, 3), np.float32)
        variables = jax.jit(lambda key: model.init(key, x, train=False))(jax.random.key(classes))
        save_weights(tmp_path / "weights.npz", "fcn_tiny", variables, num_classes=classes)

        def says(images, mean, std):
            shown = ((images / 255 - np.array(mean)) / np.array(std)).astype(np.float32)
            apply = jax.jit(lambda x: model.apply(variables, x, train=False)["out"])
            return np.argmax(np.asarray(apply(shown)), -1)

        return says

    return write


def test_weights_are_evaluated_without_a_run(config, released, tmp_path, capsys):
    file = str(tmp_path / "weights.npz")
    says = released(len(CLASSES))
    flags = ["--model", "fcn_tiny", "--data", "scenes"]
    assert cli.main(["evaluate", "--weights", file, *flags, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["weights"] == file
    scenes = Segmentation.open(config)
    right = says(scenes.val.images, scenes.mean, scenes.std) == scenes.val.labels
    assert said["val/pixel_accuracy"] == pytest.approx(right.mean(), abs=1e-3)
    assert said["val/count"] == 6

    for arguments, message in (
        (["--weights", file, *flags[:2]], "--weights need the network's name"),
        (["--weights", file, file, *flags], "of which there are no ensembles"),
        (["--weights", file, *flags, "--sizes", "32"], "leave out --sizes"),
    ):
        assert cli.main(["evaluate", *arguments]) == 2
        assert message in capsys.readouterr().err
    released(5)
    assert cli.main(["evaluate", file, *flags]) == 2
    assert "About the head: scenes has other classes" in capsys.readouterr().err


def test_weights_of_21_classes_are_those_of_pascal_voc(released, tmp_path, capsys):
    says, photo = released(21), tmp_path / "photo.png"
    image = np.random.default_rng(0).integers(0, 256, (24, 33, 3)).astype(np.uint8)
    Image.fromarray(image).save(photo)
    flags = ["--weights", str(tmp_path / "weights.npz"), "--model", "fcn_tiny"]
    flags += ["--out", str(tmp_path)]
    assert cli.main(["predict", str(photo), *flags, "--json", "--top", "21"]) == 0
    said = {each["class"]: each["share"] for each in json.loads(capsys.readouterr().out)["classes"]}
    shares = np.bincount(says(image[None], IMAGENET_MEAN, IMAGENET_STD).ravel()) / (24 * 33)
    expected = {VOC[index]: float(share) for index, share in enumerate(shares) if share}
    assert said == pytest.approx(expected, abs=0.01)
    assert cli.main(["predict", str(photo), *flags, "--data", "cityscapes"]) == 2
    assert "About the head: cityscapes has other classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fields",
    [{"batch_size": 1}, {"accumulate": 8}, {"norm_group": 1}],
    ids=["batch", "part", "group"],
)
def test_a_norm_of_one_pooled_image_is_refused_before_anything(config, fields):
    model = dataclasses.replace(SMALL, name="deeplabv3_cifar_seresnet8", head_width=4)
    data = dataclasses.replace(config.data, batch_size=fields.get("batch_size", 8))
    model = dataclasses.replace(model, norm_group=fields.get("norm_group"))
    wrong = dataclasses.replace(
        config, model=model, data=data, accumulate=fields.get("accumulate", 1)
    )
    message = "the batch norm head/pool/bn needs more than one value in each channel .* one image"
    with pytest.raises(UsageError, match=message):
        loop.train(wrong)
    assert not config.run_dir.exists()


def test_average_takes_the_statistics_of_training(config, folder, tmp_path, capsys):
    out = tmp_path / "average.npz"
    assert cli.main(["average", str(folder), "--bn-batches", "2", "--out", str(out)]) == 0
    assert "taken over 2 training batches" in capsys.readouterr().out
    trained = segmenter_run(folder, with_data=True)
    fields = model_fields(trained.run.config.model, len(CLASSES))
    found = load_weights(str(out), "fcn_cifar_seresnet8", **fields)
    jax.tree.map(np.testing.assert_array_equal, found["params"], trained.variables["params"])
    # The first batch norm sees the convolution of the stem alone.
    kernel = found["params"]["backbone"]["stem"]["conv"]["kernel"]
    means = []
    for step in range(2):
        shown = normalize(trained.run.batches[step][0]["image"], trained.run.network.normalization)
        y = jax.lax.conv_general_dilated(
            shown, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        means.append(np.mean(y, axis=(0, 1, 2)))
    stats = found["batch_stats"]["backbone"]["stem"]["bn"]["mean"]
    np.testing.assert_allclose(stats, np.mean(means, axis=0), rtol=1e-4, atol=1e-5)

    assert cli.main(["export", str(folder), "--format", "npz", "--out", str(out)]) == 0
    again = load_weights(str(out), "fcn_cifar_seresnet8", **fields)
    jax.tree.map(np.testing.assert_array_equal, again, trained.variables)


def test_frozen_norms_keep_their_statistics_beside_new_ones(config, tmp_path):
    model = dataclasses.replace(config.model, frozen_norms=(1,))
    run = Run(dataclasses.replace(few_steps(tmp_path / "frozen"), model=model))
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(
        lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32),
        {"params": run.abstract.params, "batch_stats": run.abstract.batch_stats},
    )
    found = flatten_dict(batch_norm_statistics(run, drawn, 1), sep="/")
    for path, leaf in flatten_dict(drawn["batch_stats"], sep="/").items():
        same = np.allclose(found[path], leaf, rtol=1e-4)
        assert same == path.startswith("backbone/stem/"), path


def test_gates_are_read_over_scenes_by_their_classes(config, folder, tmp_path, capsys):
    out = tmp_path / "gates"
    assert cli.main(["excitation", str(folder), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Gates of 6 scenes with" in printed
    trained = segmenter_run(folder, with_data=True)
    scenes = trained.dataset.val
    shown = normalize(scenes.images, trained.run.network.normalization)
    gates = jax.jit(lambda x: gates_of(trained, x))(shown)
    present = np.array([[(label == c).any() for c in range(11)] for label in scenes.labels])
    with np.load(out / "gates.npz") as arrays:
        assert arrays["count"].tolist() == present.sum(0).tolist()
        for block, gate in gates.items():
            gate = np.asarray(gate, float).reshape(6, -1)
            np.testing.assert_allclose(arrays[f"{block}/mean"], gate.mean(0), rtol=1e-5)
            np.testing.assert_allclose(arrays[f"{block}/std"], gate.std(0), atol=1e-6)
            for c in np.flatnonzero(present.any(0)):
                mean = gate[present[:, c]].mean(0)
                np.testing.assert_allclose(arrays[f"{block}/class_mean"][c], mean, rtol=1e-5)
    assert {"report.md", "gates.csv", "gates.png", "depth.svg"} <= {f.name for f in out.iterdir()}
    assert f"| {next(iter(gates))} |" in printed
    assert cli.main(["excitation", str(folder), "--remove"]) == 2
    assert "leave out --remove" in capsys.readouterr().err


def gates_of(trained, shown):
    """The gates of the two blocks of the network."""
    variables = trained.variables
    _, state = trained.run.model.apply(variables, shown, train=False, mutable=["intermediates"])
    found = flatten_dict(state["intermediates"], sep="/")
    return {path.split("/", 1)[1].rsplit("/", 2)[0]: gate[0] for path, gate in found.items()}


def test_flags_of_segmentation_are_refused_for_classifiers(tmp_path, capsys):
    for command in (["evaluate"], ["predict", "x.png"]):
        flags = ["--weights", "x.npz", "--model", "resnet18", "--data", "digits", "--flip"]
        assert cli.main([*command, *flags]) == 2
        assert "--flip is for networks of semantic segmentation" in capsys.readouterr().err
