import numpy as np
import pytest

from senet_jax.attention import SqueezeExciteConfig
from senet_jax.data.card import Card
from senet_jax.data.config import DataConfig
from senet_jax.data.datasets import open_dataset
from senet_jax.inference.trained import trained_weights
from senet_jax.interchange import files as weight_files
from senet_jax.interchange import load_arrays, network_of, save_arrays, save_weights
from senet_jax.models.zoo import create_model


@pytest.fixture
def weights(tmp_path, random_variables):
    """A file of weights of 7 classes for the network that has 10."""
    variables = random_variables(
        create_model("tiny", num_classes=7), np.zeros((1, 8, 8, 1), np.float32), False
    )
    save_weights(tmp_path / "w.npz", "tiny", variables, num_classes=7, channels=1)
    return tmp_path / "w.npz"


@pytest.fixture
def checkpoint(weights, monkeypatch):
    """A training checkpoint of a compiled network with its average, read without PyTorch."""
    raw = {f"_orig_mod.{key}": value for key, value in load_arrays(weights).items()}
    average = {key: value + 1 for key, value in raw.items()}
    content = {"state_dict": raw, "state_dict_ema": average, "epoch": 3}

    def read(path, weights_of):
        return weight_files.take_weights(content, weights_of, str(path))

    monkeypatch.setitem(weight_files._READERS, ".pth.tar", read)
    path = weights.with_name("checkpoint.pth.tar")
    path.write_bytes(b"")
    return path


def advice(command, *arguments):
    code, _, err = command(*arguments)
    assert code == 2
    assert "the weights do not fit tiny" in err
    return err.splitlines()[-1]


def test_each_command_advises_what_it_can_do(command, weights, tmp_path):
    shared = (weights, "--model", "tiny", "--channels", 1, "--num-classes", 10)
    convert = advice(command, "convert", *shared)
    assert convert == (
        "About the head: --drop-head starts a fresh one, --num-classes 7 keeps the one given."
    )
    export = advice(command, "export", *shared, "--format", "npz")
    assert export == "About the head: --num-classes 7 keeps the one given."
    flags = ("--model", "tiny", "--data", "digits")
    for arguments in (
        ("evaluate", "--weights", weights, *flags),
        ("excitation", "--weights", weights, *flags),
        ("predict", weights, "--weights", weights, *flags),
    ):
        said = advice(command, *arguments)
        assert said == (
            "About the head: digits has 10 classes; give a data set that has the classes of the "
            "weights, in their order, with --data and --data-dir."
        )
    train = ("train", "demo", "--model.name", "tiny", "--init-weights", weights)
    said = advice(command, *train, "--mesh.data", 1, "--run-dir", tmp_path / "run")
    assert said == "About the head: --drop-head starts a fresh one."


def test_weights_or_their_average_are_converted(command, weights, checkpoint):
    out = weights.with_name("out.npz")
    arguments = ("convert", checkpoint, "--model", "tiny", "--channels", 1, "--num-classes", 7)
    expected = load_arrays(weights)
    for choice, added in (((), 1), (("--weights-of", "average"), 1), (("--weights-of", "raw"), 0)):
        code, _, _ = command(*arguments, "--out", out, *choice)
        assert code == 0
        found = load_arrays(out)
        assert found.keys() == expected.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name] + np.float32(added))


def test_the_choice_reaches_every_command(command, checkpoint, monkeypatch, tmp_path):
    asked = []

    def read(path, weights_of):
        asked.append(weights_of)
        return {}

    monkeypatch.setitem(weight_files._READERS, ".pth.tar", read)
    flags = ("--model", "tiny", "--data", "digits", "--weights-of", "raw")
    own = ("--model.name", "tiny", "--mesh.data", 1, "--run-dir", tmp_path / "run")
    for arguments in (
        ("convert", checkpoint, "--model", "tiny", "--weights-of", "raw"),
        ("export", checkpoint, "--model", "tiny", "--format", "npz", "--weights-of", "raw"),
        ("evaluate", checkpoint, *flags),
        ("excitation", checkpoint, *flags),
        ("predict", checkpoint, "--weights", checkpoint, *flags),
        ("train", "demo", "--init-weights", checkpoint, "--weights-of", "raw", *own),
    ):
        advice(command, *arguments)
    assert asked == ["raw"] * 6


def test_a_choice_that_is_none_is_refused(refused, weights, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for arguments in (
        ("convert", run, "--weights-of", "raw"),
        ("export", run, "--format", "npz", "--weights-of", "raw"),
        ("predict", weights, "--run", run, "--weights-of", "raw"),
    ):
        assert "--weights-of is for files of weights" in refused(*arguments)
    flags = ("--model", "tiny", "--weights-of", "average")
    assert "holds one set of weights" in refused("convert", weights, *flags)
    assert "--init-weights" in refused("train", "demo", "--weights-of", "raw", "--run-dir", run)


@pytest.mark.parametrize(
    "flag", [("--model", "tiny"), ("--num-classes", 3), ("--drop-head",)], ids=lambda f: f[0]
)
def test_a_run_is_not_changed_by_flags_of_weights(refused, tmp_path, flag):
    assert f"{flag[0]} is for files of weights" in refused("convert", tmp_path, *flag)


@pytest.mark.parametrize("flag", ["--num-classes", "--channels"])
def test_a_network_of_nothing_is_refused(refused, weights, flag):
    said = refused("convert", weights, "--model", "tiny", flag, 0)
    assert f"{flag}: must be at least 1, not 0" in said


def test_a_damaged_file_is_one_sentence(refused, tmp_path):
    for name in ("a.npz", "a.safetensors"):
        save_arrays(tmp_path / name, {"fc.bias": np.zeros(300)})
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-200])
        assert f"{name} is truncated" in refused("convert", tmp_path / name, "--model", "tiny")


def test_weights_are_those_of_the_attention_that_the_run_had(command, tmp_path, random_variables):
    fields = {"num_classes": 10, "attention": SqueezeExciteConfig(gate="tanh", reduction=4)}
    image = np.zeros((1, 8, 8, 1), np.float32)
    variables = random_variables(create_model("cifar_seresnet8", **fields), image, False)
    file = tmp_path / "w.safetensors"
    save_weights(file, "cifar_seresnet8", variables, channels=1, **fields)
    found = trained_weights(
        str(file), "cifar_seresnet8", DataConfig(name="digits"), Card.of(open_dataset("digits"))
    )
    assert found.model.attention == fields["attention"]
    # A file that is made of it says the same.
    again = tmp_path / "again.npz"
    shared = ("--model", "cifar_seresnet8", "--channels", 1, "--num-classes", 10)
    assert command("convert", file, *shared, "--out", again)[0] == 0
    assert network_of(again, "cifar_seresnet8").attention.gate == "tanh"
    code, _, err = command("evaluate", "--weights", file, "--model", "vgg16", "--data", "digits")
    assert (code, "give --model cifar_seresnet8" in err) == (2, True)
