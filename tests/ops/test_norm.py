import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.ops.norm import batch_norm

RNG = np.random.default_rng(0)
X = RNG.normal(2.0, 3.0, (3, 4, 5, 2))
AXES = (0, 1, 2)


def variables():
    params = {"scale": jnp.float32([0.5, -2.0]), "bias": jnp.float32([1.0, 3.0])}
    stats = {"mean": jnp.float32([0.3, -0.4]), "var": jnp.float32([1.5, 0.7])}
    return {"params": params, "batch_stats": stats}


def normalised(x, mean, var, params, epsilon=1e-5):
    y = (x - np.asarray(mean)) / np.sqrt(np.asarray(var) + epsilon)
    return y * np.asarray(params["scale"]) + np.asarray(params["bias"])


def test_training_uses_the_biased_statistics_of_the_batch():
    state = variables()
    y, _ = batch_norm(True).apply(state, jnp.float32(X), mutable=["batch_stats"])
    expected = normalised(X, X.mean(AXES), X.var(AXES), state["params"])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_running_statistics_keep_nine_tenths_of_themselves():
    state = variables()
    _, new = batch_norm(True).apply(state, jnp.float32(X), mutable=["batch_stats"])
    for name, batch in (("mean", X.mean(AXES)), ("var", X.var(AXES))):
        expected = 0.9 * np.asarray(state["batch_stats"][name]) + 0.1 * batch
        np.testing.assert_allclose(new["batch_stats"][name], expected, rtol=1e-5)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_evaluation_uses_the_running_statistics_and_keeps_them(epsilon):
    state = variables()
    y, new = batch_norm(False, epsilon=epsilon).apply(
        state, jnp.float32(X), mutable=["batch_stats"]
    )
    expected = normalised(X, *state["batch_stats"].values(), state["params"], epsilon)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    for name, before in state["batch_stats"].items():
        np.testing.assert_array_equal(new["batch_stats"][name], before)


@pytest.mark.parametrize("zero_scale", [False, True])
def test_scale_starts_at_one_or_at_zero(zero_scale):
    module = batch_norm(True, zero_scale=zero_scale)
    y, state = module.init_with_output(jax.random.key(0), jnp.float32(X))
    np.testing.assert_array_equal(state["params"]["scale"], np.full(2, float(not zero_scale)))
    np.testing.assert_array_equal(state["params"]["bias"], np.zeros(2))
    assert (np.abs(y).max() == 0) == zero_scale


def test_statistics_of_bfloat16_are_float32():
    low = jnp.bfloat16(X)
    y, new = batch_norm(True, dtype=jnp.bfloat16).apply(variables(), low, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    mean, old = new["batch_stats"]["mean"], variables()["batch_stats"]["mean"]
    assert mean.dtype == jnp.float32
    expected = 0.9 * np.asarray(old) + 0.1 * np.float64(low).mean(AXES)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)
