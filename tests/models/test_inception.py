"""BN-Inception, Inception-v3 and Inception-ResNet-v2; their logits are in tests/interchange."""

import collections
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from senet_jax import (
    ECAConfig,
    SelectiveKernelConfig,
    SqueezeExciteConfig,
    UsageError,
    create_model,
)
from senet_jax.models.branches import Conv, Pool, UnitConfig, chain, side_after
from senet_jax.models.inception import REDUCE, Inception, ModuleSpec
from senet_jax.models.inception_resnet import (
    INCEPTION_RESNET_V2,
    InceptionResNet,
    ResidualModule,
    ResidualSpec,
)
from senet_jax.ops.compute import EVALUATION

SE = SqueezeExciteConfig(reduction=4)
STEM = (Conv("conv1", 6, 3, 2), Pool("max", 2, ceil_mode=True))
LAYERS = (
    *STEM,
    ModuleSpec(
        (
            chain("branch1", (4,)),
            chain("branch2", Pool("avg"), (4,)),
        ),
        "mixed_3",
        3,
    ),
    ModuleSpec((chain("branch1", (4, 3, 2, False)), (REDUCE,)), "mixed_4", 4),
)
RESIDUAL_LAYERS = (
    *LAYERS[:3],
    ResidualSpec((chain("branch1", (4,)), chain("branch2", (3,), (4, 3))), "block_1", 3, 0.2),
    LAYERS[3],
    ResidualSpec((chain("branch1", (4,)),), "block_2", 4, 1.0, relu=False),
)
TINY = Inception(layers=LAYERS, num_classes=5)
RESIDUAL = InceptionResNet(layers=RESIDUAL_LAYERS, num_classes=5)


def images(size=23, channels=3, n=4):
    return np.random.default_rng(size).normal(size=(n, size, size, channels)).astype(np.float32)


def shapes(model, size, channels=3):
    x = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    init = functools.partial(model.init_with_output, train=False)
    return jax.eval_shape(init, jax.random.key(0), x)


@functools.cache
def params_of(model, size):
    return {
        path: leaf.shape
        for path, leaf in flatten_dict(shapes(model, size)[1]["params"], sep="/").items()
    }


MODULES = {
    "bninception": {
        **{"inception_3a": 256, "inception_3b": 320, "inception_3c": 576},
        **{"inception_4a": 576, "inception_4b": 576, "inception_4c": 608, "inception_4d": 608},
        **{"inception_4e": 1056, "inception_5a": 1024, "inception_5b": 1024},
    },
    "inception_v3": {
        **{"mixed_5b": 256, "mixed_5c": 288, "mixed_5d": 288},
        **dict.fromkeys([f"mixed_6{letter}" for letter in "abcde"], 768),
        **{"mixed_7a": 1280, "mixed_7b": 2048, "mixed_7c": 2048},
    },
    "inception_resnet_v2": {
        **dict.fromkeys([f"block35_{index}" for index in range(1, 11)], 320),
        **dict.fromkeys([f"block17_{index}" for index in range(1, 21)], 1088),
        **dict.fromkeys([f"block8_{index}" for index in range(1, 11)], 2080),
    },
}
"""Channels of what carries SE."""

SMALLEST = {"bninception": 31, "inception_v3": 75, "inception_resnet_v2": 75}


@pytest.mark.parametrize("name", MODULES)
def test_se_stands_on_every_module_and_changes_nothing_else(name):
    plain = params_of(create_model(name, conv_bias=False), SMALLEST[name])
    found = params_of(create_model(f"se_{name}"), SMALLEST[name])
    expected = {}
    for module, width in MODULES[name].items():
        hidden = width // 16
        expected[f"{module}/se/reduce/kernel"] = (width, hidden)
        expected[f"{module}/se/reduce/bias"] = (hidden,)
        expected[f"{module}/se/expand/kernel"] = (hidden, width)
        expected[f"{module}/se/expand/bias"] = (width,)
    assert found == plain | expected


@pytest.mark.parametrize(
    ("name", "stage", "prefixes"),
    [
        ("bninception", 3, ("inception_3",)),
        ("inception_v3", 4, ("mixed_6",)),
        pytest.param("inception_resnet_v2", 5, ("block8_",), marks=pytest.mark.slow),
    ],
)
def test_se_stands_in_the_chosen_stages_alone(name, stage, prefixes):
    paths = params_of(create_model(f"se_{name}", stages=(stage,)), SMALLEST[name])
    found = {path.split("/")[0] for path in paths if "/se/" in path}
    assert found == {module for module in MODULES[name] if module.startswith(prefixes)}


def test_biases_of_bninception_are_those_of_its_convolutions():
    with_bias = params_of(create_model("bninception"), 31)
    without = params_of(create_model("bninception", conv_bias=False), 31)
    extra = with_bias.keys() - without.keys()
    assert extra == {path.replace("kernel", "bias") for path in without if "/conv/kernel" in path}


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        # The maps of timm's features_only, of Cadene's the last of every stride.
        (
            "bninception",
            224,
            {2: (112, 64), 4: (56, 192), 8: (28, 320), 16: (14, 608), 32: (7, 1024)},
        ),
        (
            "inception_v3",
            299,
            {2: (147, 64), 4: (71, 192), 8: (35, 288), 16: (17, 768), 32: (8, 2048)},
        ),
        (
            "inception_resnet_v2",
            299,
            {2: (147, 64), 4: (71, 192), 8: (35, 320), 16: (17, 1088), 32: (8, 1536)},
        ),
    ],
)
def test_features_are_the_last_maps_of_every_stride(name, size, expected):
    maps, variables = shapes(create_model(name, features_only=True), size)
    assert {stride: (x.shape[1], x.shape[3]) for stride, x in maps.items()} == expected
    assert "head" not in variables["params"]


def test_blocks_of_inception_resnet_are_scaled_as_published():
    blocks = [layer for layer in INCEPTION_RESNET_V2 if isinstance(layer, ResidualSpec)]
    found = collections.Counter((block.stage, block.scale, block.relu) for block in blocks)
    assert found == {
        (3, 0.17, True): 10,
        (4, 0.1, True): 20,
        (5, 0.2, True): 9,
        (5, 1.0, False): 1,
    }
    assert not blocks[-1].relu


# Found with Cadene's, torchvision's and timm's networks, which fail for all other sides.
@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("bninception", [*range(31, 39), *range(63, 71)]),
        ("inception_v3", range(75, 80)),
        ("inception_resnet_v2", range(75, 80)),
    ],
)
def test_sides_that_pytorch_takes_are_those_that_fit(name, sides):
    layers = create_model(name).layers
    assert [side for side in range(1, 80) if side_after(layers, side)] == list(sides)


@pytest.mark.parametrize(
    ("name", "height", "width", "message"),
    [
        ("inception_v3", 299, 74, "299x74 pixels are too small: this network takes 75 or more"),
        ("inception_resnet_v2", 74, 74, "74x74 pixels are too small: this network takes 75"),
        ("bninception", 30, 224, "30x224 pixels are too small: this network takes 31"),
        ("bninception", 224, 240, "of a side of 240 the .* sides that fit are 230 and 255"),
    ],
)
def test_images_that_do_not_fit_are_refused(name, height, width, message):
    x = jnp.zeros((1, height, width, 3))
    with pytest.raises(UsageError, match=message):
        create_model(name).init(jax.random.key(0), x, train=False)


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        (TINY, {"stages": (2,)}, "stage 2 does not exist: the stages are 3 to 4"),
        (TINY, {"attention": SelectiveKernelConfig()}, "choose an attention that rescales"),
        (TINY, {"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        (RESIDUAL, {"placement": "before"}, "unknown placement 'before': did you mean before_sc"),
    ],
)
def test_fields_that_make_no_sense_are_refused(model, fields, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(model, **fields)


@pytest.mark.parametrize("attention", [None, SE])
@pytest.mark.parametrize("placement", ["before_scale", "after_scale"])
def test_a_block_adds_its_scaled_branch(random_variables, attention, placement):
    x = images(6, channels=8)
    spec = RESIDUAL_LAYERS[3]
    block = ResidualModule(spec, UnitConfig(EVALUATION), attention, placement == "after_scale")
    variables = random_variables(block, x)
    y, state = block.apply(variables, x, capture_intermediates=True, mutable=["intermediates"])
    branch = state["intermediates"]["expansion"]["__call__"][0]
    if attention is None:
        expected = spec.scale * branch
    else:
        seen = branch if placement == "before_scale" else spec.scale * branch
        attended = attention.build().apply({"params": variables["params"]["se"]}, seen)
        expected = attended * spec.scale if placement == "before_scale" else attended
    np.testing.assert_allclose(y, np.maximum(x + expected, 0), rtol=1e-5, atol=1e-6)
    linear = dataclasses.replace(block, spec=dataclasses.replace(spec, relu=False))
    without_relu = linear.apply(variables, x)
    assert (without_relu < 0).any()
    np.testing.assert_allclose(without_relu, x + expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["bninception", "inception_v3"])
def test_takes_any_channels_classes_and_eca(name):
    model = create_model(name, num_classes=7, attention=ECAConfig())
    logits, variables = shapes(model, 97, channels=1)
    assert logits.shape == (1, 7)
    params = flatten_dict(variables["params"], sep="/")
    assert {path.split("/")[0] for path in params if "/eca/" in path} == set(MODULES[name])


@pytest.mark.parametrize(("name", "epsilon"), [("bninception", 1e-5), ("se_inception_v3", 1e-3)])
def test_epsilon_is_that_of_the_weights(name, epsilon):
    assert create_model(name).epsilon == epsilon


def test_the_small_inception_has_the_published_parameters():
    params = shapes(create_model("cifar_inception"), 28)[1]["params"]
    scales = [leaf.size for path, leaf in flatten_dict(params).items() if path[-1] == "scale"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    # arXiv 1611.03530, Table 1, whose batch norms have no scale.
    assert count - sum(scales) == 1_649_402
    assert len(scales) == 19
    maps, _ = shapes(create_model("cifar_inception", features_only=True), 28)
    assert {stride: y.shape[1:] for stride, y in maps.items()} == {
        1: (28, 28, 80),
        2: (14, 14, 144),
        4: (7, 7, 336),
    }
