import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import UsageError, create_model
from senet_jax.models.cost import cost
from senet_jax.models.vgg import VGG

TINY = VGG(blocks=(1, 1), widths=(4, 6), fc_width=8, num_classes=5)
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)
FC = (7 * 7 * 512 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000


@functools.cache
def cost_of(name):
    return cost(create_model(name), 224)


def images(height, width):
    rng = np.random.default_rng(height)
    return rng.standard_normal((2, height, width, 3)).astype(np.float32)


def shapes(model, size=64):
    x = jnp.zeros((1, size, size, 3))
    return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x, train=False))


def apply(model, variables, x):
    return jax.jit(lambda variables, x: model.apply(variables, x, train=False))(variables, x)


def formula(depth, bn=False, se=False, pointwise_third=False):
    total, before = FC, 3
    for count, width in zip(DEPTHS[depth], WIDTHS, strict=True):
        for index in range(1, count + 1):
            window = 1 if pointwise_third and index == 3 else 9
            total += window * before * width + width + 2 * width * bn
            total += (2 * width * (width // 16) + width // 16 + width) * se
            before = width
    return total


@pytest.mark.parametrize("depth", [13, 19])
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("vgg{}", {}),
        ("vgg{}_bn", {"bn": True}),
        ("se_vgg{}_bn", {"bn": True, "se": True}),
    ],
)
def test_parameters_are_the_hand_formula(name, depth, fields):
    model = create_model(name.format(depth))
    params = shapes(model)[1]["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == formula(depth, **fields)


# VGG, Table 2; SENet, Table 2; papers.md.
@pytest.mark.parametrize(
    ("name", "params", "millions", "gmacs"),
    [
        ("vgg11", 132_863_336, 133, 7.61),
        ("vgg16", 138_357_544, 138, 15.47),
        ("vgg16_bn", 138_365_992, 138, 15.47),
        ("vgg16_c", formula(16, pointwise_third=True), 134, 11.77),
        ("se_vgg16_bn", 138_596_784, 139, 15.47),
        ("se_vgg16", formula(16, se=True), 139, 15.47),
    ],
)
def test_cost_is_what_is_published(name, params, millions, gmacs):
    found = cost_of(name)
    assert found.params == params
    assert round(found.params / 1e6) == millions
    assert round(found.macs / 1e9, 2) == gmacs


def test_the_third_convolutions_of_configuration_c_are_1x1():
    params = shapes(create_model("vgg16_c"))[1]["params"]
    sides = {
        f"{stage}/{layer}": parameters["conv"]["kernel"].shape[0]
        for stage, layers in params.items()
        if stage.startswith("stage")
        for layer, parameters in layers.items()
    }
    pointwise = {path for path, side in sides.items() if side == 1}
    assert pointwise == {f"stage{stage}/layer3" for stage in (3, 4, 5)}
    assert set(sides.values()) == {1, 3}
    assert len(sides) == 13


# As timm 1.0.31 gives them for images of 97 pixels.
def test_feature_maps_precede_each_pool_and_follow_the_last():
    maps, _ = shapes(create_model("vgg11", features_only=True), 97)
    assert {stride: y.shape[1:] for stride, y in maps.items()} == {
        1: (97, 97, 64),
        2: (48, 48, 128),
        4: (24, 24, 256),
        8: (12, 12, 512),
        16: (6, 6, 512),
        32: (3, 3, 512),
    }


def test_images_below_the_smallest_are_refused():
    assert shapes(TINY, 4)[0].shape == (1, 5)
    with pytest.raises(UsageError, match=r"images of 3x3 pixels are too small: .* takes 4 or more"):
        shapes(TINY, 3)
    with pytest.raises(UsageError, match=r"images of 31x31 .* takes 32 or more"):
        shapes(create_model("vgg11"), 31)


def stretched(maps, least=7):
    """PyTorch's adaptive average pool to at least 7 on each side, pixel by pixel."""
    n, height, width, channels = maps.shape
    rows, columns = max(least, height), max(least, width)
    result = np.empty((n, rows, columns, channels))
    for i in range(rows):
        top, bottom = i * height // rows, -(-(i + 1) * height // rows)
        for j in range(columns):
            left, right = j * width // columns, -(-(j + 1) * width // columns)
            result[:, i, j] = maps[:, top:bottom, left:right].mean((1, 2))
    return result


@pytest.mark.parametrize(("height", "width"), [(28, 28), (20, 12), (40, 8)])
def test_the_dense_layers_slide_over_maps_of_at_least_7(random_variables, height, width):
    x = images(height, width)
    variables = random_variables(TINY, x, False)
    params = jax.tree.map(np.asarray, variables["params"])
    features = VGG(blocks=(1, 1), widths=(4, 6), features_only=True)
    maps = stretched(np.asarray(apply(features, variables, x)[4]))

    def dense(x, name):
        layer = params[name]
        return x @ layer["kernel"].reshape(-1, layer["kernel"].shape[-1]) + layer["bias"]

    windows = np.lib.stride_tricks.sliding_window_view(maps, (7, 7), (1, 2))
    flat = windows.transpose(0, 1, 2, 4, 5, 3).reshape(*windows.shape[:3], -1)
    fc6 = np.maximum(dense(flat, "fc6"), 0)
    fc7 = np.maximum(dense(fc6, "fc7"), 0)
    expected = dense(fc7.mean((1, 2)), "head")
    logits = apply(TINY, variables, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_dropout_is_after_both_hidden_layers(random_variables):
    x = images(28, 28)
    model = VGG(blocks=(1, 1), widths=(4, 6), fc_width=256, num_classes=5, dropout=0.5)
    variables = random_variables(model, x, False)
    rngs = {"dropout": jax.random.key(0)}
    kept = {"capture_intermediates": True, "mutable": ["intermediates"]}
    _, state = jax.jit(lambda x: model.apply(variables, x, train=True, rngs=rngs, **kept))(x)
    named = state["intermediates"]
    before = [np.maximum(named["fc6"]["__call__"][0], 0), named["features"][0]]
    for index, y in enumerate(before):
        dropped = np.asarray(named[f"Dropout_{index}"]["__call__"][0])
        kept = dropped != 0
        np.testing.assert_allclose(dropped[kept], 2 * np.asarray(y)[kept], rtol=1e-5)
        assert 0.35 < kept.sum() / np.sum(np.asarray(y) != 0) < 0.65
