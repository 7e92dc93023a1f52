"""Names of weights of the families other than ResNets."""

import functools

import jax
import numpy as np
import pytest
from goldens import draw, goldens

from senet_jax import ECAConfig, SqueezeExciteConfig, UsageError, create_model
from senet_jax.interchange import from_torch, to_torch

SE = SqueezeExciteConfig(reduction=2)
NARROW = {"widths": (2, 2, 2, 4, 4), "fc_width": 6, "num_classes": 5}
TINY = {
    "mobilenet_v1": {"width": 0.0625, "blocks": (1, 2), "num_classes": 5},
    "shufflenet_v1": {"width": 0.1, "blocks": (2, 1), "num_classes": 5},
}


@functools.cache
def weights(name, **fields):
    """A state dict of a network, drawn by name and shape."""
    init = functools.partial(create_model(name, **fields).init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), dict(shapes))
    entries = to_torch(name, zeros, **fields)
    return {key: draw(key, array.shape) for key, array in entries.items()}


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def torchvision(state_dict):
    """With the classifier as torchvision has it: linear layers of the flattened maps."""
    layers = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3"}
    layers["head.fc"] = "classifier.6"
    out = {}
    for key, array in state_dict.items():
        module, _, leaf = key.rpartition(".")
        if module in layers and leaf == "weight":
            array = array.reshape(len(array), -1)
        out[f"{layers.get(module, module)}.{leaf}"] = array
    return out


@pytest.mark.parametrize("name", ["vgg11", "vgg16_bn"])
def test_names_of_vggs_are_those_of_timm(name):
    theirs = {key for key in goldens()[name].entries if not key.endswith("num_batches_tracked")}
    assert weights(name, **NARROW).keys() == theirs


@pytest.mark.parametrize("name", ["vgg16", "vgg13_bn", "se_vgg11_bn"])
def test_names_of_torchvision_give_the_same_variables(name):
    fields = NARROW | ({"attention": SE} if name.startswith("se_") else {})
    state_dict = weights(name, **fields)
    other = torchvision(state_dict)
    assert other["classifier.0.weight"].shape == (6, 4 * 7 * 7)
    assert_same(from_torch(name, other, **fields), from_torch(name, state_dict, **fields))


def test_attention_of_a_vgg_leaves_the_plain_names_as_they_are():
    plain = weights("vgg11_bn", **NARROW)
    se = weights("se_vgg11_bn", **NARROW, attention=SE)
    assert plain.keys() < se.keys()
    added = {
        key for key in se if key not in plain and key.startswith(("features.2.", "features.6."))
    }
    assert added == {
        f"features.{index}.se.{fc}.{leaf}"
        for index in (2, 6)
        for fc in ("fc1", "fc2")
        for leaf in ("weight", "bias")
    }
    eca = weights("vgg11", **NARROW, attention=ECAConfig())
    assert {"features.1.eca.conv.weight", "features.4.eca.conv.weight"} <= eca.keys()


def test_weights_of_a_whole_vgg_give_its_features():
    state_dict = weights("vgg11", **NARROW)
    with pytest.raises(UsageError, match="drop_head=True"):
        from_torch("vgg11", state_dict, features_only=True, **NARROW)
    found = from_torch("vgg11", state_dict, features_only=True, drop_head=True, **NARROW)
    whole = from_torch("vgg11", state_dict, **NARROW)["params"]
    assert_same(found["params"], {key: whole[key] for key in whole if key.startswith("stage")})


def test_a_fresh_head_of_a_vgg_keeps_the_hidden_layers():
    state_dict = weights("vgg11", **NARROW)
    variables = from_torch("vgg11", state_dict, drop_head=True, **NARROW | {"num_classes": 7})
    assert variables["params"]["head"]["kernel"].shape == (6, 7)
    whole = from_torch("vgg11", state_dict, **NARROW)["params"]
    assert_same(variables["params"]["fc7"], whole["fc7"])


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("attention", [None, SE])
def test_families_without_a_repository_keep_their_own_names(name, attention):
    fields = TINY[name] | {"attention": attention}
    state_dict = weights(name, **fields)
    assert "stage2.block1.se.reduce.weight" in state_dict or not attention
    assert "stem.conv.weight" in state_dict
    variables = from_torch(name, state_dict, **fields)
    assert_same(to_torch(name, variables, **fields), state_dict)
