"""Plain networks: the same layers without shortcuts (ResNet, arXiv 1512.03385, section 3.3)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_layers import conv, norm, relu, squeeze_excite
from single_blocks import block

from senet_jax import SqueezeExciteConfig, UsageError, create_model
from senet_jax.models.blocks import BasicBlock, Bottleneck, Sampling
from senet_jax.models.cost import cost

SE = SqueezeExciteConfig(reduction=2)


def table_1(blocks):
    """Parameters of a plain network, layer by layer: Table 1's 3x3 kernels and no projection."""
    count, inputs = 49 * 3 * 64 + 2 * 64, 64
    for number, width in zip(blocks, (64, 128, 256, 512), strict=True):
        for _ in range(number):
            count += 9 * inputs * width + 9 * width * width + 2 * 2 * width
            inputs = width
    return count + 512 * 1000 + 1000


@pytest.mark.parametrize(
    ("depth", "blocks", "params"),
    [(18, (2, 2, 2, 2), 11_515_688), (34, (3, 4, 6, 3), 21_623_848)],
)
def test_a_plain_network_has_the_layers_of_table_1_alone(depth, blocks, params):
    found = cost(create_model(f"resnet{depth}", residual=False), 224)
    assert found.params == params == table_1(blocks)
    # With shortcut A, which has no parameters, the residual network costs the same (section 4.1).
    assert found == cost(create_model(f"resnet{depth}", shortcut="A"), 224)


def test_a_plain_network_of_34_layers_costs_what_is_published():
    # Table 1.
    assert round(cost(create_model("resnet34", residual=False), 224).macs / 1e9, 1) == 3.6


@pytest.mark.parametrize("depth", [20, 56])
def test_plain_cifar_networks_have_parameters_of_residual_ones(depth):
    name = f"cifar_resnet{depth}"
    assert cost(create_model(name, residual=False), 32) == cost(create_model(name), 32)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("attention", [None, SE])
@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_a_plain_block_is_its_branch_and_a_relu(random_variables, kind, attention, stride):
    module = block(kind, 4, Sampling(stride), attention=attention, residual=False)
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 8)).astype(np.float32)
    variables = random_variables(module, x)
    params, stats = variables["params"], variables["batch_stats"]
    assert "shortcut" not in params
    strides = (stride, 1) if kind is BasicBlock else (1, stride, 1)
    y = x.astype(np.float64)
    for index, step in enumerate(strides, 1):
        y = relu(y) if index > 1 else y
        y = conv(y, params[f"conv{index}"], step)
        y = norm(y, params[f"bn{index}"], stats[f"bn{index}"])
    expected = relu(squeeze_excite(y, params["se"]) if attention else y)
    np.testing.assert_allclose(module.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_training_reaches_every_layer_of_a_plain_network(random_variables):
    # Hidden layers wide enough that none is dead for all images.
    se = SqueezeExciteConfig(width=8)
    fields = {"blocks": (1, 1, 1), "widths": (4, 4, 8), "stem_width": 4}
    model = create_model("cifar_seresnet8", **fields, attention=se, residual=False)
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype(np.float32)
    variables = random_variables(model, x, False)

    def loss(params):
        out, _ = model.apply({**variables, "params": params}, x, train=True, mutable="batch_stats")
        return jnp.sum(out**2)

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(variables["params"])):
        assert np.isfinite(leaf).all()
        assert np.any(leaf != 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention": SE, "placement": "identity"}, "on the shortcut, which residual=False takes"),
        ({"zero_init_last": True}, "without a shortcut nothing would pass"),
        ({"stochastic_depth": 0.1}, "without shortcuts nothing would be left"),
    ],
)
def test_what_needs_a_shortcut_is_refused(fields, message):
    model = create_model("resnet18")
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(model, residual=False, **fields)
