import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from published import PARAMS

from senet_jax import (
    ECAConfig,
    SplitAttentionConfig,
    SqueezeExciteConfig,
    UsageError,
    create_model,
)
from senet_jax.attention.gates import GATES
from senet_jax.models.densenet import CIFAR_DENSENETS, DENSENETS, DenseNet
from senet_jax.models.zoo import find

SE = SqueezeExciteConfig(reduction=2)
KEY = jax.random.key(0)
PLACEMENTS = ("layer", "block")
TINY = DenseNet(blocks=(1, 1), growth_rate=4, stem="cifar", num_classes=5)


def tiny(**fields):
    return dataclasses.replace(TINY, **fields)


def images(size=4, n=3, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(1), (n, size, size, 3), dtype)


def shapes(model, size=4, channels=3):
    """Output and variables, without computing either."""
    x = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    return jax.eval_shape(functools.partial(model.init_with_output, train=False), KEY, x)


def shapes_by_path(model, size=4):
    params = shapes(model, size)[1]["params"]
    return {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}


def without_se(variables):
    flat = flatten_dict(variables)
    return unflatten_dict({path: leaf for path, leaf in flat.items() if "se" not in path})


def apply(model, variables, x):
    return jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)


def gradients(model, variables, x):
    def loss(params):
        logits, state = model.apply(
            {**variables, "params": params},
            x,
            train=True,
            rngs={"dropout": jax.random.key(7)},
            mutable=["batch_stats"],
        )
        return jnp.sum(logits**2), state

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


def parameters_by_hand(blocks, k, bottleneck, compression, stem_width, stem, classes, hidden=0):
    """Section 3 of the paper, written as a sum; a batch norm has two parameters a channel."""
    layer_se = 2 * k * hidden + hidden + k if hidden else 0
    channels = stem_width
    total = 49 * 3 * channels + 2 * channels if stem == "imagenet" else 9 * 3 * channels
    for index, layers in enumerate(blocks, 1):
        for _ in range(layers):
            if bottleneck:
                total += 2 * channels + channels * 4 * k + 2 * 4 * k + 9 * 4 * k * k
            else:
                total += 2 * channels + 9 * channels * k
            total += layer_se
            channels += k
        if index < len(blocks):
            kept = math.floor(channels * compression)
            total += 2 * channels + channels * kept
            channels = kept
    return total + 2 * channels + channels * classes + classes


LAYERS = {
    "121": (6, 12, 24, 16),
    "161": (6, 12, 36, 24),
    "169": (6, 12, 32, 32),
    "201": (6, 12, 48, 32),
    "264": (6, 12, 64, 48),
}
"""Table 1, by depth."""


# The networks themselves are counted in test_zoo.py.
@pytest.mark.parametrize("name", DENSENETS)
def test_published_parameters_are_the_hand_formula(name):
    growth = 48 if name.endswith("161") else 32
    hidden = growth // 16 if name.startswith("se_") else 0
    layers = LAYERS[name[-3:]]
    expected = parameters_by_hand(
        layers, growth, True, 0.5, 2 * growth, "imagenet", 1000, hidden=hidden
    )
    assert PARAMS[name] == expected
    model = create_model(name)
    assert (model.blocks, model.growth_rate) == (layers, growth)


# Table 2 of the paper.
@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("cifar_densenet_40_12", "1.0"),
        ("cifar_densenet_100_12", "7.0"),
        ("cifar_densenet_bc_100_12", "0.8"),
        ("cifar_densenet_bc_250_24", "15.3"),
        ("cifar_densenet_bc_190_40", "25.6"),
    ],
)
def test_cifar_parameters_are_the_hand_formula_and_table_2(name, published):
    *_, depth, growth = name.split("_")
    depth, k, bottleneck = int(depth), int(growth), "_bc_" in name
    layers = (depth - 4) // (6 if bottleneck else 3)
    expected = parameters_by_hand(
        (layers,) * 3,
        k,
        bottleneck,
        0.5 if bottleneck else 1,
        2 * k if bottleneck else 16,
        "cifar",
        10,
    )
    assert PARAMS[name] == expected
    assert f"{expected / 1e6:.1f}" == published
    model = create_model(name)
    assert (model.blocks, model.growth_rate) == ((layers,) * 3, k)


def test_growth_sets_the_stem_and_compression_the_transitions():
    model = create_model("cifar_densenet_bc_100_12", blocks=(2, 1), growth_rate=5, compression=0.33)
    found = shapes_by_path(model)
    assert found["stem/kernel"] == (3, 3, 3, 10)
    assert found["stage2/layer2/conv1/kernel"] == (1, 1, 15, 20)
    assert found["stage2/layer2/conv2/kernel"] == (3, 3, 20, 5)
    assert found["transition2/conv/kernel"] == (1, 1, 20, 6)
    assert found["final_bn/scale"] == (11,)
    plain = shapes_by_path(dataclasses.replace(model, bottleneck=False, stem_width=7))
    assert plain["stage2/layer2/conv1/kernel"] == (3, 3, 12, 5)
    assert not any("conv2" in path for path in plain)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_network_is_the_one_of_the_paper(random_variables, bottleneck):
    """BN, ReLU and convolution in that order, each on the concatenation of all that was before."""
    model, x = tiny(blocks=(1, 2), bottleneck=bottleneck, stem_width=3), images(7)
    variables = random_variables(model, x, False)
    params, stats = variables["params"], variables["batch_stats"]

    def convolve(kernel, x):
        pad = kernel.shape[0] // 2
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), [(pad, pad)] * 2, dimension_numbers=dimensions
        )

    def norm_relu(path, x):
        p, s = flatten_dict(params, sep="/"), flatten_dict(stats, sep="/")
        normal = (x - s[f"{path}/mean"]) / np.sqrt(s[f"{path}/var"] + 1e-5)
        return np.maximum(normal * p[f"{path}/scale"] + p[f"{path}/bias"], 0)

    def layer(path, x):
        for index in (1, 2)[: 1 + bottleneck]:
            stage, name = path.split("/")
            kernel = params[stage][name][f"conv{index}"]["kernel"]
            x = convolve(kernel, norm_relu(f"{path}/bn{index}", x))
        return x

    y = convolve(params["stem"]["kernel"], x)
    y = np.concatenate([y, layer("stage2/layer1", y)], -1)
    y = convolve(params["transition2"]["conv"]["kernel"], norm_relu("transition2/bn", y))
    y = y[:, :6, :6].reshape(3, 3, 2, 3, 2, -1).mean((2, 4))
    y = np.concatenate([y, layer("stage3/layer1", y)], -1)
    y = np.concatenate([y, layer("stage3/layer2", y)], -1)
    head = params["head"]
    expected = norm_relu("final_bn", y).mean((1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(apply(model, variables, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stages", [None, (2,), (3,), ()])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_se_stands_in_the_chosen_stages_and_place_alone(placement, stages):
    modules = {
        "layer": {"stage2/layer1": 4, "stage3/layer1": 4, "stage3/layer2": 4},
        "block": {"stage2": 12, "stage3": 14},
    }[placement]
    expected = {}
    for module, channels in modules.items():
        if stages is None or int(module[5]) in stages:
            expected[f"{module}/se/reduce/kernel"] = (channels, channels // 2)
            expected[f"{module}/se/expand/kernel"] = (channels // 2, channels)
            expected[f"{module}/se/reduce/bias"] = (channels // 2,)
            expected[f"{module}/se/expand/bias"] = (channels,)
    plain = tiny(blocks=(1, 2))
    se = dataclasses.replace(plain, attention=SE, placement=placement, stages=stages)
    found = shapes_by_path(se)
    assert {path: shape for path, shape in found.items() if "/se/" in path} == expected
    rest = {path: shape for path, shape in found.items() if "/se/" not in path}
    assert rest == shapes_by_path(plain)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_gate_of_zero_leaves_what_the_attention_does_not_see(
    monkeypatch, random_variables, placement
):
    x, model = images(), tiny(attention=SE, placement=placement, features_only=True)
    variables = random_variables(model, x, False)
    kept = apply(tiny(features_only=True), without_se(variables), x)[1][..., :8]
    monkeypatch.setitem(GATES, "sigmoid", jnp.zeros_like)
    found = apply(model, variables, x)[1]
    np.testing.assert_array_equal(found[..., 8:], 0)
    np.testing.assert_array_equal(found[..., :8], kept if placement == "layer" else 0 * kept)


def test_without_bottlenecks_every_parameter_has_a_gradient(random_variables):
    model, x = tiny(attention=ECAConfig(), bottleneck=False), images()
    _, found = gradients(model, random_variables(model, x, False), x)
    for path, gradient in flatten_dict(found).items():
        assert np.isfinite(gradient).all(), path
        assert np.any(gradient != 0), path


def residuals(model, variables, x):
    """Channels of the maps that the backward pass keeps, one entry a map."""

    def pullback(params):
        return jax.vjp(lambda p: model.apply({**variables, "params": p}, x, train=False), params)[1]

    kept = jax.tree.leaves(jax.eval_shape(pullback, variables["params"]))
    return [leaf.shape[-1] for leaf in kept if leaf.ndim == 4 and leaf.shape[0] == len(x)]


def test_remat_keeps_every_map_once(random_variables):
    x = images()
    model = tiny(blocks=(2,), stem_width=9, attention=SE, drop_rate=0.3)
    remat = dataclasses.replace(model, remat=True)
    variables = random_variables(model, x, False)
    # The block's input has 9 channels, each layer's output 4, the block's output 17: neither the
    # concatenation between, of 13, nor the maps inside a layer, of 13 and 16, are kept.
    assert {13, 16} < set(residuals(model, variables, x))
    assert set(residuals(remat, variables, x)) == {3, 4, 9, 17}


@pytest.mark.parametrize(("bottleneck", "convolutions"), [(True, 2 * 2 + 1), (False, 2 + 1)])
def test_drop_rate_is_after_every_convolution_but_the_first(bottleneck, convolutions):
    order = []

    def record(next_fun, args, kwargs, context):
        if isinstance(context.module, nn.Conv):
            order.append("conv")
        if isinstance(context.module, nn.Dropout):
            order.append(context.module.rate)
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(tiny(bottleneck=bottleneck, drop_rate=0.2, dropout=0.1))
    assert order == ["conv", *["conv", 0.2] * convolutions, 0.1]


@pytest.mark.parametrize(("size", "sides"), [(97, (49, 25, 12, 6, 3)), (29, (15, 8, 4, 2, 1))])
def test_features_are_the_maps_of_every_stride(size, sides):
    maps, variables = shapes(create_model("densenet121", features_only=True), size)
    assert {stride: x.shape[1:] for stride, x in maps.items()} == {
        stride: (side, side, channels)
        for stride, side, channels in zip(
            (2, 4, 8, 16, 32), sides, (64, 256, 512, 1024, 1024), strict=True
        )
    }
    assert "head" not in variables["params"]


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_images_of_any_channels_and_of_the_smallest_size(stem):
    model = tiny(stem=stem, blocks=(1, 1, 1))
    smallest = {"imagenet": 13, "cifar": 4}[stem]
    assert shapes(model, smallest, channels=1)[0].shape == (1, 5)
    with pytest.raises(UsageError, match=f"are too small: this network takes {smallest} or more"):
        shapes(model, smallest - 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stem": "caffe"}, "unknown stem 'caffe'"),
        ({"placement": "blocks"}, "unknown placement 'blocks': did you mean block"),
        ({"drop_rate": 1.0}, "drop_rate must be at least 0 and below 1, not 1.0"),
        ({"blocks": ()}, r"blocks must be one number or more.*, not \(\)"),
        ({"blocks": (2, 0)}, r"each at least 1 and at most 1,024, not \(2, 0\)"),
        ({"growth_rate": 0}, "growth_rate must be at least 1, not 0"),
        ({"stem_width": 0}, "stem_width must be at least 1, or None .*, not 0"),
        ({"compression": 0.0}, "compression must be above 0 and at most 1, not 0"),
        ({"compression": 1.5}, "compression must be above 0 and at most 1, not 1.5"),
        ({"compression": 0.05}, "compression 0.05 leaves no channel after a dense block"),
        ({"stages": (4,)}, "stage 4 does not exist: the stages are 2 to 3"),
        ({"attention": SplitAttentionConfig()}, "choose an attention that rescales"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        tiny(**fields)


def test_a_reduction_larger_than_the_growth_rate_is_refused():
    se = SqueezeExciteConfig()
    model = create_model("cifar_densenet_bc_100_12", attention=se)
    with pytest.raises(UsageError, match="reduction 16 leaves no hidden channel of 12"):
        shapes(model, 32)
    # A whole block has channels enough.
    block = create_model("cifar_densenet_bc_100_12", attention=se, placement="block")
    assert shapes(block, 32)[0].shape == (1, 10)


def test_named_networks_have_se_of_the_paper():
    for name in DENSENETS:
        expected = SqueezeExciteConfig() if name.startswith("se_") else None
        model = create_model(name)
        assert (model.attention, model.placement, model.num_classes) == (expected, "layer", 1000)
        assert find(name).input_size == 224
    for name in CIFAR_DENSENETS:
        assert (create_model(name).num_classes, find(name).input_size) == (10, 32)
