import re

import jax
import numpy as np
import pytest
from goldens import draw, goldens

from senet_jax import SqueezeExciteConfig, create_model
from senet_jax.interchange import from_torch, to_torch

TINY = {"blocks": (1, 1, 2, 1), "growth_rate": 4, "num_classes": 5}
SE = SqueezeExciteConfig(reduction=2)


def tiny(name, **fields):
    """A small relative of a network: its fields and its state dict, drawn by name and shape."""
    fields = TINY | fields
    model = create_model(name, **fields)
    variables = jax.eval_shape(
        lambda key: model.init(key, np.zeros((1, 32, 32, 3)), train=False), jax.random.key(0)
    )
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), dict(variables))
    entries = to_torch(name, zeros, **fields)
    return fields, {key: draw(key, array.shape) for key, array in entries.items()}


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, {"features.transition3.norm.running_var", "features.norm5.bias"}),
        (
            {"attention": SE},
            {
                "features.denseblock3.denselayer2.se.fc1.weight",
                "features.denseblock3.denselayer2.se.fc2.bias",
            },
        ),
        (
            {"attention": SE, "placement": "block"},
            {"features.denseblock4.se.fc1.weight", "features.denseblock1.se.fc2.bias"},
        ),
    ],
)
def test_names_and_round_trip(fields, names):
    fields, state_dict = tiny("densenet121", **fields)
    assert names < state_dict.keys()
    variables = from_torch("densenet121", state_dict, **fields)
    assert_same(to_torch("densenet121", variables, **fields), state_dict)


def test_files_of_torchvision_have_a_dot_before_the_number():
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))(\d)")
    entries = goldens()["densenet121"].entries
    renamed = [old.sub(r"\1.\2", key) for key in entries]
    assert "features.denseblock4.denselayer16.norm.2.running_mean" in renamed
    assert "features.denseblock4.denselayer16.conv.2.weight" in renamed

    fields, state_dict = tiny("densenet121")
    released = {old.sub(r"\1.\2", key): array for key, array in state_dict.items()}
    assert released.keys() != state_dict.keys()
    expected = from_torch("densenet121", state_dict, **fields)
    assert_same(from_torch("densenet121", released, **fields), expected)


def test_the_cifar_networks_keep_their_own_names():
    name = "cifar_densenet_bc_100_12"
    fields, state_dict = tiny(name, blocks=(1, 1))
    assert {
        "stem.weight",
        "stage2.layer1.bn1.running_mean",
        "stage3.layer1.conv2.weight",
        "transition2.conv.weight",
        "final_bn.weight",
        "head.bias",
    } < state_dict.keys()
    assert_same(to_torch(name, from_torch(name, state_dict, **fields), **fields), state_dict)
