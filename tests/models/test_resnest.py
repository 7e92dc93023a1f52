import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import SplitAttentionConfig, create_model
from senet_jax.models.cost import cost
from senet_jax.models.resnest import resnest


def test_radix_zero_has_the_parameters_of_resnet_d():
    plain = cost(create_model("resnet26d"), 64)
    fast = cost(resnest("26d", radix=0, fast=True)(), 64)
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
def test_the_pool_follows_the_convolution_but_in_fast_networks(fast, size):
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
    model = resnest("14d", radix=radix, cardinality=2, width=32)(
        blocks=(1,), widths=(16,), stem_width=4, num_classes=5, drop_block=0.1
    )
    images = np.random.default_rng(0).standard_normal((3, 16, 16, 4)).astype(np.float32)
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
