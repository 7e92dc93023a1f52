"""Pre-activation and wide ResNets: counts, blocks, and what sets them apart from ``ResNet``."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from numpy_layers import conv, norm, relu, squeeze_excite

from senet_jax import SqueezeExciteConfig, UsageError, create_model
from senet_jax.models.cost import cost
from senet_jax.models.preact_resnet import PREACT_RESNETS, PreactBlock
from senet_jax.ops.compute import EVALUATION, Compute

SE = SqueezeExciteConfig(reduction=2)


def formula(depth, widths, bottleneck, se):
    """Parameters of a network of ten classes, by hand."""
    blocks = (depth - 2) // 9 if bottleneck else (depth - 2) // 6
    total, before = 27 * 16, 16
    for width in widths:
        features = 4 * width if bottleneck else width
        total += before * features if before != features else 0
        for block in range(blocks):
            inputs = features if block else before
            if bottleneck:
                total += inputs * width + 9 * width**2 + width * features
                total += 2 * (inputs + 2 * width)
            else:
                total += 9 * inputs * width + 9 * width**2 + 2 * (inputs + width)
            hidden = features // 16
            total += (2 * features * hidden + hidden + features) if se else 0
        before = features
    return total + 2 * before + 10 * before + 10


CIFAR = (16, 32, 64)
WIDE = {factor: tuple(factor * width for width in CIFAR) for factor in (4, 8, 10)}


NETWORKS = {
    "preact_resnet110": (110, CIFAR, False, 1_730_522),
    "preact_resnet164": (164, CIFAR, True, 1_703_258),
    "preact_resnet1001": (1001, CIFAR, True, 10_327_706),
    "wrn16_8": (16, WIDE[8], False, 10_961_370),
    "wrn28_10": (28, WIDE[10], False, 36_479_194),
    "wrn40_4": (40, WIDE[4], False, 8_949_210),
    "se_preact_resnet110": (110, CIFAR, False, 1_744_760),
    "se_preact_resnet164": (164, CIFAR, True, 1_905_362),
    "se_wrn16_8": (16, WIDE[8], False, 11_049_290),
    "se_wrn28_10": (28, WIDE[10], False, 36_752_754),
}
"""Depth, widths, bottlenecks and parameters: published, or pytorchcv's where it has
the network. A wide ResNet of depth 6n + 4 counts its projections."""


def test_every_network_is_here():
    assert {f"cifar_{name}" for name in NETWORKS} == PREACT_RESNETS.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_the_hand_formula(name):
    depth, widths, bottleneck, params = NETWORKS[name]
    se = name.startswith("se_")
    assert formula(depth, widths, bottleneck, se) == params
    model = create_model(f"cifar_{name}")
    assert model.blocks == ((depth - 2) // (9 if bottleneck else 6),) * 3
    short = dataclasses.replace(model, blocks=(2, 2, 2))
    expected = formula(20 if bottleneck else 14, widths, bottleneck, se)
    assert cost(short, 32).params == expected


@pytest.mark.parametrize(
    "name",
    [name if "wrn" in name else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def test_whole_networks_have_these_parameters(name):
    assert cost(create_model(f"cifar_{name}"), 32).params == NETWORKS[name][3]


def test_macs_are_counted_by_hand():
    # Stem; then of each of the four blocks two 3x3; the projections; the head.
    expected = 32**2 * 27 * 16
    expected += 32**2 * (9 * (16 * 128 + 3 * 128**2) + 16 * 128)
    expected += 16**2 * (9 * (128 * 256 + 3 * 256**2) + 128 * 256)
    expected += 8**2 * (9 * (256 * 512 + 3 * 512**2) + 256 * 512)
    assert cost(create_model("cifar_wrn16_8"), 32).macs == expected + 512 * 10


def test_the_stride_on_the_first_1x1_is_cheaper():
    first, second = (
        cost(create_model("cifar_preact_resnet164", blocks=(1, 1, 1), stride_on=where), 32)
        for where in ("conv1", "conv2")
    )
    assert first.params == second.params
    # At the higher resolution three quarters of the first 1x1's pixels are left out.
    assert second.macs - first.macs == 3 * (16**2 * 64 * 32 + 8**2 * 128 * 64)


@pytest.mark.parametrize(
    ("bottleneck", "inputs", "stride", "leads", "stride_on"),
    [
        (False, 4, 1, False, "conv1"),
        (False, 4, 1, True, "conv1"),
        (False, 3, 2, False, "conv1"),
        (True, 16, 1, False, "conv1"),
        (True, 6, 2, False, "conv1"),
        (True, 6, 2, False, "conv2"),
    ],
)
def test_a_block_is_the_figure(random_variables, bottleneck, inputs, stride, leads, stride_on):
    block = PreactBlock(4, bottleneck, stride_on, SE, 0.0, EVALUATION, stride, leads)
    x = np.random.default_rng(0).standard_normal((2, 6, 5, inputs)).astype(np.float32)
    variables = random_variables(block, x)
    params, stats = variables["params"], variables["batch_stats"]

    def layer(x, index, stride):
        x = relu(norm(x, params[f"bn{index}"], stats[f"bn{index}"]))
        return conv(x, params[f"conv{index}"], stride)

    strides = [stride, 1, 1] if stride_on == "conv1" or not bottleneck else [1, stride, 1]
    y = x
    for index in range(1, 4 if bottleneck else 3):
        y = layer(y, index, strides[index - 1])
    activated = relu(norm(x, params["bn1"], stats["bn1"]))
    shortcut = activated if leads else x
    projects = inputs != y.shape[-1]
    assert ("shortcut" in params) == projects
    if projects:
        shortcut = conv(activated, params["shortcut"], stride)
    expected = shortcut + squeeze_excite(y, params["se"])
    found = jax.jit(lambda tree: block.apply(tree, x))(variables)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_the_first_unit_alone_leads():
    seen = []

    def record(next_fun, args, kwargs, context):
        if isinstance(context.module, PreactBlock):
            seen.append((context.module.leads, context.module.stride))
        return next_fun(*args, **kwargs)

    model = create_model("cifar_preact_resnet110", blocks=(2, 2, 2))
    with nn.intercept_methods(record):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False))
    assert seen == [(True, 1), (False, 1), (False, 2), (False, 1), (False, 2), (False, 1)]


def test_block_dropout_zeroes_inputs_of_the_last_convolution(random_variables):
    x = np.ones((4, 6, 6, 4), np.float32)
    block = PreactBlock(4, False, "conv1", None, 0.5, Compute(train=True))
    variables = random_variables(block, x)
    seen = {}

    def record(next_fun, args, kwargs, context):
        if context.module.name in ("conv1", "conv2"):
            seen[context.module.name] = np.asarray(args[0])
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(record):
        block.apply(variables, x, rngs={"dropout": jax.random.key(1)}, mutable=["batch_stats"])
        dropped = dict(seen)
        plain = PreactBlock(4, False, "conv1", None, 0.0, Compute(train=True))
        plain.apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_array_equal(dropped["conv1"], seen["conv1"])
    kept = dropped["conv2"] != 0
    np.testing.assert_allclose(dropped["conv2"], np.where(kept, 2 * seen["conv2"], 0), rtol=1e-5)
    assert 0.3 < np.mean(kept[seen["conv2"] > 0]) < 0.7


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": (5,)}, "stage 5 does not exist: the stages are 2 to 4"),
        ({"stride_on": "conv3"}, "unknown stride_on 'conv3': did you mean conv"),
        ({"block_dropout": 1.0}, "block_dropout must be at least 0 and below 1, not 1.0"),
        ({"blocks": (1, 1)}, r"blocks \(1, 1\) and widths .* differ in length"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        create_model("cifar_wrn16_8", **fields)
