"""Weights of the Inception networks: their names in PyTorch, and PyTorch's logits."""

import functools

import jax
import numpy as np
import pytest
from goldens import goldens

from senet_jax import UsageError, create_model
from senet_jax.interchange import from_torch, to_torch
from senet_jax.interchange.naming import namings


def zeros(entries):
    return {key: np.zeros(shape, np.float32) for key, shape in entries.items()}


def test_the_auxiliary_classifier_is_left_out():
    aux = "AuxLogits.fc.weight"
    weights = zeros(goldens()["inception_v3"].entries) | {aux: np.zeros((1000, 768), np.float32)}
    parallel = {f"module.{key}": array for key, array in weights.items()}
    assert aux not in to_torch("inception_v3", from_torch("inception_v3", parallel))


def test_other_networks_know_no_auxiliary_classifier():
    with pytest.raises(UsageError, match=r"left over \(1\): AuxLogits\.fc\.bias"):
        from_torch("cifar_resnet8", {"AuxLogits.fc.bias": np.zeros(1000, np.float32)})


def test_weights_of_the_small_inception_come_back_as_they_were():
    init = functools.partial(create_model("cifar_se_inception").init, train=False)
    leaves = jax.eval_shape(init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), leaves)
    state_dict = to_torch("cifar_se_inception", variables)
    assert {"inception_3a.3x3.conv.weight", "inception_4c.se.expand.bias"} <= state_dict.keys()
    back = from_torch("cifar_se_inception", state_dict)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


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
