"""Weights of the Inception networks: their names in PyTorch, and PyTorch's logits."""

import jax
import numpy as np
import pytest
from goldens import ADDED_INCEPTIONS, INCEPTIONS, goldens, images

from senet_jax import UsageError, create_model
from senet_jax.interchange import from_torch, to_torch
from senet_jax.interchange.naming import namings

GOLDENS = goldens() | goldens(ADDED_INCEPTIONS)


def zeros(entries):
    return {key: np.zeros(shape, np.float32) for key, shape in entries.items()}


def trained(entries):
    """The entries without those that only training uses."""
    return {key: shape for key, shape in entries.items() if "num_batches_tracked" not in key}


@pytest.mark.parametrize("name", sorted(INCEPTIONS))
def test_names_and_shapes_are_those_of_pytorch(name):
    entries = GOLDENS[name].entries
    weights = zeros(entries)
    if name == "inception_v3":
        # torchvision's state dicts hold the auxiliary classifier too.
        weights["AuxLogits.fc.weight"] = np.zeros((1000, 768), np.float32)
    back = to_torch(name, from_torch(name, weights))
    assert {key: array.shape for key, array in back.items()} == trained(entries)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("bninception", 97),
        pytest.param("bninception", 224, marks=pytest.mark.slow),
        pytest.param("inception_v3", 97, marks=pytest.mark.slow),
        pytest.param("inception_v3", 299, marks=pytest.mark.slow),
        pytest.param("inception_resnet_v2", 299, marks=pytest.mark.slow),
    ],
)
def test_logits_are_those_of_pytorch(name, size):
    golden = GOLDENS[name]
    (output,) = (output for output in golden.outputs if output["size"] == size)
    variables = from_torch(name, golden.state_dict())
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == golden.params
    model = create_model(name)
    apply = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
    logits = np.asarray(apply(variables, images(size)))
    difference = logits[:, output["classes"]] - np.array(output["logits"])
    assert np.max(np.abs(difference) / np.array(output["std"])[:, None]) < 1e-4
    np.testing.assert_array_equal(logits.argmax(1), output["argmax"])
    np.testing.assert_allclose(logits.mean(1), output["mean"], atol=1e-4)
    np.testing.assert_allclose(logits.std(1), output["std"], rtol=1e-4)


def test_the_auxiliary_classifier_is_left_out():
    aux = "AuxLogits.fc.weight"
    weights = zeros(GOLDENS["inception_v3"].entries) | {aux: np.zeros((1000, 768), np.float32)}
    parallel = {f"module.{key}": array for key, array in weights.items()}
    assert aux not in to_torch("inception_v3", from_torch("inception_v3", parallel))


def test_other_networks_know_no_auxiliary_classifier():
    with pytest.raises(UsageError, match=r"left over \(1\): AuxLogits\.fc\.bias"):
        from_torch("cifar_resnet8", {"AuxLogits.fc.bias": np.zeros(1000, np.float32)})


@pytest.mark.parametrize(
    ("name", "path", "names"),
    [
        ("se_bninception", "inception_3c/se/reduce", {"inception_3c_se.fc1"}),
        ("se_bninception", "inception_3c/se/expand", {"inception_3c_se.fc2"}),
        ("se_inception_v3", "mixed_5b/se/reduce", {"Mixed_5b.se.fc1"}),
        ("se_inception_v3", "mixed_5b/se/expand", {"Mixed_5b.se.fc2"}),
        ("se_inception_resnet_v2", "block35_1/se/reduce", {"repeat.0.se.fc1"}),
        ("se_inception_resnet_v2", "block17_20/se/expand", {"repeat_1.19.se.fc2"}),
        ("se_inception_resnet_v2", "block8_9/se/expand", {"repeat_2.8.se.fc2"}),
        ("se_inception_resnet_v2", "block8_10/se/expand", {"block8.se.fc2"}),
        # timm's and Cadene's.
        ("inception_v3", "head", {"fc", "last_linear"}),
        ("inception_resnet_v2", "head", {"classif", "last_linear"}),
    ],
)
def test_names_that_the_goldens_do_not_hold(name, path, names):
    assert {naming(path) for naming in namings(name, create_model(name))} == names
