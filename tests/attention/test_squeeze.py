import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.attention.squeeze import SQUEEZES

NUMPY = {
    "avg": lambda x: x.mean((1, 2)),
    "max": lambda x: x.max((1, 2)),
    "avgmax": lambda x: (x.mean((1, 2)) + x.max((1, 2))) / 2,
    "std": lambda x: np.sqrt(x.var((1, 2)) + 1e-5),
}


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(1.0, 2.0, (3, 5, 4, 6))


def test_every_squeeze_has_an_oracle():
    assert NUMPY.keys() == SQUEEZES.keys()


@pytest.mark.parametrize("name", NUMPY)
def test_squeeze_equals_numpy(name, x):
    np.testing.assert_allclose(SQUEEZES[name](jnp.float32(x)), NUMPY[name](x), rtol=1e-5)


@pytest.mark.parametrize("name", NUMPY)
def test_squeeze_of_bfloat16_is_computed_in_float32(name, x):
    low = jnp.bfloat16(x)
    squeezed = SQUEEZES[name](low)
    assert squeezed.dtype == jnp.float32
    np.testing.assert_allclose(squeezed, NUMPY[name](np.float64(low)), rtol=1e-5)


@pytest.mark.parametrize("name", NUMPY)
def test_squeeze_ignores_the_order_of_the_pixels(name, x):
    turned = np.swapaxes(x, 1, 2)[:, ::-1]
    squeeze = SQUEEZES[name]
    np.testing.assert_allclose(squeeze(jnp.float32(turned)), squeeze(jnp.float32(x)), rtol=1e-6)


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize("size", [1, 3])
def test_gradient_is_finite_where_a_channel_is_constant(name, size):
    constant = jnp.full((2, size, size, 3), 0.7)
    gradient = jax.grad(lambda x: SQUEEZES[name](x).sum())(constant)
    assert np.isfinite(gradient).all()
    # A shift of a channel shifts its mean and its maximum, and leaves its deviation alone.
    np.testing.assert_allclose(gradient.sum((1, 2)), 0.0 if name == "std" else 1.0, atol=1e-5)


def test_std_survives_a_large_mean(x):
    shifted = jnp.float32(x + 1000)
    np.testing.assert_allclose(
        SQUEEZES["std"](shifted), NUMPY["std"](np.float64(shifted)), rtol=1e-4
    )
