"""Attention and options of the feed-forward families that other families do not have."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from senet_jax import SqueezeExciteConfig, UsageError
from senet_jax.attention import gates
from senet_jax.models.mobilenet import Block, MobileNetV1
from senet_jax.models.shufflenet import ShuffleNetV1, Unit
from senet_jax.models.vgg import VGG, Layer
from senet_jax.ops.compute import EVALUATION

KEY = jax.random.key(0)
MODELS = {
    "vgg": VGG(blocks=(1, 2), widths=(4, 8), fc_width=8, num_classes=5),
    "mobilenet": MobileNetV1(width=0.125, blocks=(1, 2), num_classes=5),
    "shufflenet": ShuffleNetV1(width=0.1, blocks=(2, 1), num_classes=5),
}


def model_of(family, **fields):
    return dataclasses.replace(MODELS[family], **fields)


def images(size=8, channels=3, n=4):
    rng = np.random.default_rng(size)
    return rng.standard_normal((n, size, size, channels)).astype(np.float32)


def shapes(model, size=8, channels=3):
    x = jnp.zeros((1, size, size, channels))
    return jax.eval_shape(lambda: model.init_with_output(KEY, x, train=False))


def without_se(variables):
    flat = flatten_dict(variables)
    return unflatten_dict({path: leaf for path, leaf in flat.items() if "se" not in path})


@pytest.mark.parametrize(
    "block",
    [
        functools.partial(Layer, 4, 3, False),
        functools.partial(Layer, 4, 3, True),
        functools.partial(Block, 4, 2),
    ],
    ids=["vgg", "vgg_bn", "mobilenet"],
)
def test_attention_rescales_what_the_non_linearity_gives(random_variables, monkeypatch, block):
    # Before the non-linearity a negative gate would give zeros and never negative numbers.
    monkeypatch.setitem(gates.GATES, "minus_one", lambda x: -jnp.ones_like(x))
    se, x = block(SqueezeExciteConfig(gate="minus_one", reduction=2), EVALUATION), images()
    variables = random_variables(se, x)
    plain = apply_block(block(None, EVALUATION), without_se(variables), x)
    assert np.max(plain) > 0.1
    np.testing.assert_allclose(apply_block(se, variables, x), -plain, rtol=1e-5, atol=1e-6)


def apply_block(block, variables, x):
    return jax.jit(lambda v, x: block.apply(v, x))(variables, x)


def test_attention_of_a_shuffle_unit_leaves_the_shortcut_alone(random_variables, monkeypatch):
    monkeypatch.setitem(gates.GATES, "zero", jnp.zeros_like)
    se = SqueezeExciteConfig(gate="zero", reduction=2)
    unit = functools.partial(Unit, groups=3, first_groups=3, attention=se, compute=EVALUATION)
    x = images(channels=12)
    identity, strided = unit(12, stride=1), unit(24, stride=2)
    y = apply_block(identity, random_variables(identity, x), x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    y = apply_block(strided, random_variables(strided, x), x)
    # The zeros of the padding count, as in the released network.
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    expected = np.maximum(windows.mean((-2, -1)), 0)
    np.testing.assert_allclose(y[..., :12], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y[..., 12:], 0)


@pytest.mark.parametrize("family", ["mobilenet", "shufflenet"])
def test_the_stem_for_small_images_changes_the_resolution_alone(family):
    large = model_of(family, features_only=True)
    maps, variables = shapes(dataclasses.replace(large, stem="cifar"), 32)
    assert variables == shapes(large, 32)[1]
    strides = [2**index for index in range(len(maps))]
    assert {stride: y.shape[1] for stride, y in maps.items()} == {s: 32 // s for s in strides}


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("vgg", {"stages": (3,)}, "stage 3 does not exist: the stages are 1 to 2"),
        ("mobilenet", {"stages": (0,)}, "stage 0 does not exist: the stages are 1 to 2"),
        ("shufflenet", {"stages": (1,)}, "stage 1 does not exist: the stages are 2 to 3"),
        ("vgg", {"dropout": 1.0}, "dropout must be at least 0 and below 1, not 1.0"),
        ("vgg", {"widths": (4,)}, r"blocks \(1, 2\) and widths \(4,\) differ in length"),
        ("mobilenet", {"width": 0.01}, "width must be at least 0.03125 and at most 64, not 0.01"),
        ("mobilenet", {"blocks": (1,) * 6}, "blocks .* are of more than 5 stages"),
        ("shufflenet", {"groups": 5}, "groups must be 1, 2, 3, 4 or 8, not 5"),
        ("mobilenet", {"stem": "caffe"}, "unknown stem 'caffe'"),
        ("shufflenet", {"width": 0.05}, "leaves stage 2 12 channels.* more than the 12"),
    ],
)
def test_wrong_fields_are_refused(family, fields, message):
    with pytest.raises(UsageError, match=message):
        model_of(family, **fields)
