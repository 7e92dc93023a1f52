import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import create_model


@pytest.mark.parametrize("name", ["skresnet18", "skresnet50"])
def test_trains_and_evaluates(random_variables, name):
    model = create_model(name, blocks=(1,), widths=(8,), stem_width=8, num_classes=5)
    images = np.random.default_rng(0).standard_normal((3, 16, 16, 1)).astype(np.float32)
    variables = random_variables(model, images, False)

    def loss(params):
        logits, state = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(logits**2), state

    grads, state = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, state)))
    logits = jax.jit(lambda v, x: model.apply(v, x, train=False))({**variables, **state}, images)
    assert np.isfinite(logits).all()


def test_selective_kernels_stand_in_the_3x3_of_both_blocks():
    images = jnp.zeros((1, 32, 32, 3))
    for name, selecting in (("skresnet18", "conv1"), ("skresnet50", "conv2")):
        model = create_model(name, blocks=(1, 1, 1, 1))
        init = functools.partial(model.init, train=False)
        params = jax.eval_shape(init, jax.random.key(0), images)
        block = params["params"]["stage3"]["block1"]
        assert {name for name in block if "path1" in block[name]} == {selecting}
