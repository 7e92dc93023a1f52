"""The options that every residual network has."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from senet_jax import (
    ECAConfig,
    SelectiveKernelConfig,
    SplitAttentionConfig,
    SqueezeExciteConfig,
    UsageError,
    create_model,
)
from senet_jax.models.blocks import Bottleneck
from senet_jax.models.resnet import ResNet
from senet_jax.ops.drop import drop_block, stochastic_depth

TINY = ResNet(blocks=(1, 1, 2, 1), widths=(4, 4, 8, 8), stem_width=8, num_classes=5)
ONE_BLOCK = {"blocks": (1,), "widths": (4,), "stem": "cifar"}
ONE_EACH = {"blocks": (1, 1, 1, 1)}
KEY = jax.random.key(0)
MECHANISMS = (
    SqueezeExciteConfig(reduction=4),
    ECAConfig(),
    SplitAttentionConfig(),
    SelectiveKernelConfig(),
    SelectiveKernelConfig(split_input=True),
)


def tiny(**fields):
    return dataclasses.replace(TINY, **fields)


def images(size, channels=3, n=2):
    rng = np.random.default_rng(size)
    return rng.standard_normal((n, size, size, channels)).astype(np.float32)


def shapes(model, size=64, channels=3):
    """Shapes of the output and of the variables, without computing either."""
    return jax.eval_shape(
        lambda: model.init_with_output(KEY, jnp.zeros((1, size, size, channels)), train=False)
    )


def apply(model, variables, x):
    return jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (97, 4)])
def test_takes_any_channels_and_sizes(size, channels):
    logits, variables = shapes(tiny(), size, channels=channels)
    assert variables["params"]["stem"]["conv"]["kernel"].shape == (7, 7, channels, 8)
    assert logits.shape == (1, 5)


def test_images_below_the_smallest_are_refused():
    caffe = tiny(stem="caffe")
    assert shapes(caffe, 3)[0].shape == (1, 5)
    with pytest.raises(UsageError, match="images of 2x2 pixels are too small"):
        shapes(caffe, 2)
    assert shapes(tiny(), 1)[0].shape == (1, 5)


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        *itertools.product(["resnet18", "resnet26d"], MECHANISMS),
        *zip(
            ["resnest14d", "skresnet18", "legacy_seresnet50", "senet154", "resnest50d_1s4x24d"],
            MECHANISMS,
            strict=True,
        ),
    ],
)
def test_any_mechanism_goes_into_any_network(name, attention):
    logits, variables = shapes(create_model(name, **ONE_EACH, attention=attention, num_classes=5))
    assert logits.shape == (1, 5)
    names = {key.key for path, _ in jax.tree_util.tree_leaves_with_path(variables) for key in path}
    trace = {"se": "se", "eca": "eca"}.get(getattr(attention, "name", ""), "reduce_bn")
    assert trace in names
    assert len(names & {"se", "eca", "reduce_bn"}) == 1


@pytest.mark.parametrize("attention", MECHANISMS[2:])
def test_attention_in_place_of_a_convolution_has_no_placement(attention):
    with pytest.raises(UsageError, match='leave placement at "standard"'):
        tiny(attention=attention, placement="pre")


@pytest.mark.parametrize(
    ("output_stride", "fields"),
    # At 8 the 2x2 averages of shortcut D are not dilated, in timm neither.
    [(8, {}), (8, {"bottleneck": False}), (16, {"shortcut": "D"})],
)
def test_dilation_computes_the_same_values_and_those_in_between(
    random_variables, fields, output_stride
):
    x = images(64)
    strided = tiny(features_only=True, **fields)
    dilated = dataclasses.replace(strided, output_stride=output_stride)
    variables = random_variables(strided, x, False)
    expected = apply(strided, variables, x)[32]
    found = apply(dilated, variables, x)[output_stride]
    assert found.shape[1] == 64 // output_stride
    step = 32 // output_stride
    np.testing.assert_allclose(found[:, ::step, ::step], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet50", "senet154", "resnest50d", "skresnet18"])
def test_output_stride_changes_the_maps_and_not_the_parameters(name):
    size = 72
    expected = shapes(create_model(name, **ONE_EACH, features_only=True), size)[1]
    for output_stride in (8, 16, 32):
        model = create_model(name, **ONE_EACH, output_stride=output_stride, features_only=True)
        maps, variables = shapes(model, size)
        assert variables == expected
        assert list(maps) == [s for s in (2, 4, 8, 16, 32) if s <= output_stride]
        assert {s: x.shape[1] for s, x in maps.items()} == {s: -(-size // s) for s in maps}


def test_features_are_the_maps_of_every_stride():
    model = create_model("resnet50", **ONE_EACH, features_only=True)
    maps, variables = shapes(model, 224)
    assert {stride: x.shape[1:] for stride, x in maps.items()} == {
        2: (112, 112, 64),
        4: (56, 56, 256),
        8: (28, 28, 512),
        16: (14, 14, 1024),
        32: (7, 7, 2048),
    }
    assert "head" not in variables["params"]
    maps, _ = shapes(create_model("cifar_resnet8", features_only=True), 32)
    assert {stride: x.shape[1] for stride, x in maps.items()} == {1: 32, 2: 16, 4: 8}


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


@pytest.mark.slow
def test_remat_changes_nothing_for_split_attention(random_variables):
    x = images(8, n=4)
    model = tiny(
        **ONE_BLOCK, attention=SplitAttentionConfig(), stochastic_depth=0.3, drop_block=0.2
    )
    remat = dataclasses.replace(model, remat=True)
    variables = random_variables(model, x, False)
    assert shapes(remat)[1] == shapes(model)[1]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        gradients(remat, variables, x),
        gradients(model, variables, x),
    )


# Squeeze-and-Excitation is in test_contract.py; split attention and selective kernels that split
# their input are in test_resnest.py and test_sknet.py.
@pytest.mark.parametrize("attention", [ECAConfig(), SelectiveKernelConfig()])
def test_gradients_are_finite_in_every_leaf(random_variables, attention):
    x = images(8)
    model = tiny(**ONE_BLOCK, attention=attention, shortcut="D")
    result = gradients(model, random_variables(model, x, False), x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))


def test_bfloat16_keeps_parameters_and_logits_in_float32():
    model = tiny(attention=SplitAttentionConfig(), dtype=jnp.bfloat16)
    logits, variables = shapes(model)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    maps, _ = shapes(dataclasses.replace(model, features_only=True))
    assert {x.dtype for x in maps.values()} == {jnp.dtype("bfloat16")}


def test_stochastic_depth_keeps_the_expectation():
    x = images(2, n=3)
    keys = jax.random.split(KEY, 4000)
    dropped = jax.vmap(stochastic_depth, in_axes=(0, None, None))(keys, x, 0.25)
    kept = np.any(dropped, axis=(2, 3, 4))
    np.testing.assert_allclose(dropped, np.where(kept[..., None, None, None], x / 0.75, 0), 1e-6)
    np.testing.assert_allclose(kept.mean(axis=0), 0.75, atol=0.03)


def test_stochastic_depth_grows_linearly_to_the_last_block():
    model = tiny(stochastic_depth=0.5)
    rates = []

    def record(next_fun, args, kwargs, context):
        if isinstance(context.module, Bottleneck) and context.method_name == "__call__":
            rates.append(context.module.stochastic_depth)
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(record):
        shapes(model)
    np.testing.assert_allclose(rates, 0.1 * np.arange(1, 6))


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_drop_block_drops_whole_blocks_and_keeps_the_mean(rate):
    x = jnp.ones((64, 14, 14, 3))
    y = np.asarray(drop_block(KEY, x, rate))
    np.testing.assert_allclose(y.mean(), 1, rtol=1e-5)
    np.testing.assert_array_equal(y[..., 0], y[..., 2])
    dropped = y[..., 0] == 0
    # Blocks overlap, so that a little less than the rate is dropped.
    assert 0.75 * rate < dropped.mean() <= 1.05 * rate
    windows = np.lib.stride_tricks.sliding_window_view(dropped, (3, 3), axis=(1, 2))
    whole = windows.all(axis=(3, 4))
    covered = np.zeros_like(dropped)
    for i in range(3):
        for j in range(3):
            covered[:, i : i + 12, j : j + 12] |= whole
    np.testing.assert_array_equal(dropped, covered)


def test_drop_block_of_maps_smaller_than_a_block():
    y = drop_block(KEY, jnp.ones((1000, 1, 2, 1)), 0.3)
    assert 0.6 < np.mean(y > 0) < 0.8
    np.testing.assert_array_equal(drop_block(KEY, jnp.ones((4, 2, 2, 1)), 1.0), 0)


def test_drop_block_is_in_the_last_two_stages(random_variables):
    x = images(32)
    model = tiny(blocks=(1, 1, 1), widths=(4, 4, 8), features_only=True)
    variables = random_variables(model, x, False)

    def maps(model):
        def train(variables):
            rngs = {"dropout": KEY}
            return model.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])[0]

        return jax.jit(train)(variables)

    plain, dropped = maps(model), maps(dataclasses.replace(model, drop_block=0.3))
    same = {stride for stride in plain if np.array_equal(plain[stride], dropped[stride])}
    assert same == {2, 4}


def test_drop_block_ramps_without_compiling_again(random_variables):
    x = images(8)
    plain = tiny(**ONE_BLOCK)
    variables = random_variables(plain, x, False)
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def train(drop_block, scale):
        traces.append(drop_block)
        logits, _ = dataclasses.replace(plain, drop_block=drop_block).apply(
            variables,
            x,
            train=True,
            drop_block_scale=scale,
            rngs={"dropout": KEY},
            mutable=["batch_stats"],
        )
        return logits

    start, middle, end = (train(0.3, jnp.float32(scale)) for scale in (0, 0.5, 1))
    assert len(traces) == 1
    np.testing.assert_allclose(start, train(0.0, 1.0), rtol=1e-4, atol=1e-4)
    assert not np.allclose(middle, start)
    assert not np.allclose(middle, end)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"output_stride": 4}, "output_stride must be 8, 16 or 32, not 4"),
        ({"drop_block": 1.0}, "drop_block must be at least 0 and below 1, not 1.0"),
        ({"stochastic_depth": -0.1}, "stochastic_depth must be at least 0"),
        ({"bottleneck": False, "cardinality": 32}, "basic blocks have no cardinality"),
        ({"stem": "cifar", "stem_width": (4, 4, 8)}, "stem_width must be a number"),
        ({"stem": "cafe"}, "did you mean caffe"),
        ({"stride_by": "pool"}, "unknown stride_by 'pool'"),
        ({"stages": (1,)}, "stage 1 does not exist"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        tiny(**fields)
