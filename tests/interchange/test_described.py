"""A file of weights says which network it is of; arrays alone do not tell a sigmoid from a tanh."""

import dataclasses
import zipfile

import numpy as np
import pytest

from senet_jax.attention import ATTENTIONS, SqueezeExciteConfig
from senet_jax.config import AttentionOverrides, ModelConfig
from senet_jax.errors import UsageError
from senet_jax.interchange import load_arrays, network_of, save_arrays, save_weights
from senet_jax.interchange.described import KEY, description
from senet_jax.interchange.files import read_about
from senet_jax.models.configured import config_of, model_fields
from senet_jax.models.zoo import create_model

TANH = SqueezeExciteConfig(gate="tanh", reduction=2)


@pytest.fixture(params=["npz", "safetensors"])
def saved(request, tmp_path, random_variables):
    """Writes the weights of a network of the zoo with other fields."""

    def save(name, **fields):
        model = create_model(name, num_classes=10, **fields)
        variables = random_variables(model, np.zeros((1, 8, 8, 3), np.float32), False)
        file = tmp_path / f"weights.{request.param}"
        save_weights(file, name, variables, num_classes=10, **fields)
        return file

    return save


def test_a_file_says_what_differs_from_the_named_network(saved):
    fields = {"attention": TANH, "placement": "pre", "widths": (4, 4, 8), "stem_width": 4}
    file = saved("cifar_seresnet8", **fields)
    found = model_fields(network_of(file, "cifar_seresnet8"), 10)
    assert {name: found[name] for name in fields} == fields
    # Readers of arrays see arrays alone.
    assert all(array.dtype == np.float32 for array in load_arrays(file).values())


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_every_mechanism_is_described(kind):
    fields = {"attention": ATTENTIONS[kind](), "num_classes": 7}
    config = config_of("cifar_resnet8", fields)
    assert config.attention.kind == kind
    assert model_fields(config, 7)["attention"] == fields["attention"]


def test_no_attention_and_a_field_of_the_family_are_described():
    config = config_of("seresnet18", {"attention": None, "zero_init_last": False})
    assert config == ModelConfig(
        name="seresnet18", attention=AttentionOverrides(kind="none"), zero_init_last=False
    )


def test_the_weights_of_another_network_are_refused(saved):
    file = saved("cifar_seresnet8")
    with pytest.raises(UsageError, match="weights of cifar_seresnet8: give --model cifar_seres"):
        network_of(file, "cifar_resnet8")


def test_an_attention_of_a_script_is_no_other_in_silence(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Own(SqueezeExciteConfig):
        power: float = 2.0

    assert config_of("cifar_seresnet8", {"attention": Own()}) is None
    about = description("cifar_seresnet8", {"attention": Own()})
    save_arrays(tmp_path / "own.npz", {"x": np.zeros(2)}, about)
    with pytest.raises(UsageError, match="of a script's own, which no config describes"):
        network_of(tmp_path / "own.npz", "cifar_seresnet8")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_files_without_a_description_are_of_the_named_network(tmp_path, suffix):
    file = tmp_path / f"weights.{suffix}"
    save_arrays(file, {"x": np.zeros(2)})
    assert KEY not in read_about(file)
    assert network_of(file, "seresnet50") == ModelConfig(name="seresnet50")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", '{"name": 7}', '{"name": "vgg16", "depth": 3}', '{"attention": 3}'],
)
def test_a_damaged_description_is_one_sentence(tmp_path, text):
    save_arrays(tmp_path / "w.safetensors", {"x": np.zeros(2)}, {KEY: text})
    with pytest.raises(UsageError, match="describes no network of this version"):
        network_of(tmp_path / "w.safetensors", "vgg16")


def test_a_comment_of_another_program_says_nothing(tmp_path):
    file = tmp_path / "w.npz"
    np.savez(file, x=np.zeros(2))
    for comment in (b"made by hand", b"[1]", b'{"a": 1}'):
        with zipfile.ZipFile(file, "a") as archive:
            archive.comment = comment
        assert KEY not in read_about(file)
        assert network_of(file, "vgg16") == ModelConfig(name="vgg16")
