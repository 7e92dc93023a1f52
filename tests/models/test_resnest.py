import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import SplitAttentionConfig, create_model
from senet_jax.models.cost import cost
from senet_jax.models.resnest import resnest
from senet_jax.models.zoo import find


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("resnest50d", 27_483_240, 5.37),
        ("resnest101e", 48_275_016, 13.32),
        ("resnest50_fast_1s1x64d", 26_217_896, 4.33),
        ("resnest50_fast_2s1x64d", 27_483_240, 4.33),
        ("resnest50_fast_4s1x64d", 31_912_712, 4.34),
        ("resnest50_fast_2s2x40d", 26_943_792, 4.38),
        ("resnest50_fast_1s2x40d", 25_946_680, 4.38),
        ("resnest50d_4s2x40d", 30_417_592, 4.37),
        ("resnest50d_1s4x24d", 25_677_000, 4.40),
    ],
)
def test_cost_is_the_published_one(name, params, gmacs):
    found = cost(create_model(name), find(name).input_size)
    assert found.params == params
    assert found.macs / 1e9 == pytest.approx(gmacs, rel=0.005)


@pytest.mark.parametrize(
    ("name", "params", "size"),
    [
        ("resnest14d", 10_611_688, 224),
        ("resnest26d", 17_069_448, 224),
        ("resnest200e", 70_201_544, 320),
        ("resnest269e", 110_929_480, 416),
    ],
)
def test_parameters_are_as_many_as_in_timm(name, params, size):
    model = create_model(name)
    images = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == params
    assert find(name).input_size == size


def test_radix_zero_has_the_parameters_of_resnet_d():
    plain = cost(create_model("resnet50d"), 224)
    fast = cost(resnest("50d", radix=0, fast=True)(), 224)
    assert fast == plain


def test_radix_is_one_field():
    model = create_model("resnest50d")
    attention = dataclasses.replace(model.attention, radix=4)
    images = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(
        lambda: create_model("resnest50d", attention=attention).init(
            jax.random.key(0), images, train=False
        )
    )
    found = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert found == 31_912_712  # that of 4s1x64d


@pytest.mark.parametrize(("fast", "size"), [(False, 8), (True, 4)])
def test_the_pool_stands_after_the_convolution_and_in_fast_ones_before(fast, size):
    model = resnest("14d", fast=fast, widths=(8, 8, 8, 8), features_only=True)()
    images = jnp.zeros((1, 64, 64, 3))
    _, state = jax.eval_shape(
        lambda: model.init_with_output(
            jax.random.key(0), images, train=False, capture_intermediates=True
        )
    )
    block = state["intermediates"]["stage4"]["block1"]
    assert block["conv2"]["conv"]["__call__"][0].shape[1] == size
    assert block["conv3"]["__call__"][0].shape[1] == 4


@pytest.mark.parametrize("radix", [0, 1, 2, 4])
def test_trains_and_evaluates(random_variables, radix):
    model = resnest("14d", radix=radix, cardinality=2, width=32, widths=(16, 16, 16, 16))(
        num_classes=5, drop_block=0.1, stochastic_depth=0.1, dropout=0.1
    )
    images = np.random.default_rng(0).standard_normal((3, 32, 32, 4)).astype(np.float32)
    variables = random_variables(model, images, False)

    def loss(params):
        logits, state = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
        )
        return jnp.sum(logits**2), state

    grads, state = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, state)))
    logits = jax.jit(lambda v, x: model.apply(v, x, train=False))({**variables, **state}, images)
    assert logits.shape == (3, 5)
    assert np.isfinite(logits).all()


def test_split_attention_goes_into_other_networks():
    model = create_model("resnext50_32x4d", attention=SplitAttentionConfig(), stages=(3, 4))
    images = jnp.zeros((1, 32, 32, 3))
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))["params"]
    assert params["stage3"]["block1"]["conv2"]["conv"]["kernel"].shape == (3, 3, 4, 512)
    assert params["stage2"]["block1"]["conv2"]["kernel"].shape == (3, 3, 4, 128)
