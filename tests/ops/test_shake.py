import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError

from senet_jax.ops.shake import Shake, shake
from senet_jax.training.distributed import mesh as meshes

KEY = jax.random.key(3)
A, B, G = jax.random.normal(jax.random.key(0), (3, 16, 3, 2, 4))


def weights(forward, backward, key=KEY, mix=shake):
    """Alpha and beta of each image, by the value and the gradients of the mix."""

    @jax.jit
    def both(key, a, b):
        mixed, pull = jax.vjp(lambda a, b: mix(key, a, b, forward=forward, backward=backward), a, b)
        return mixed, *pull(G)

    mixed, grad_a, grad_b = both(key, A, B)
    alpha = ((mixed - B) / (A - B)).mean((1, 2, 3))
    beta = (grad_a / G).mean((1, 2, 3))
    for found, first, second, weight in ((mixed, A, B, alpha), (None, G, 0 * G, beta)):
        w = weight[:, None, None, None]
        expected = w * first + (1 - w) * second
        np.testing.assert_allclose(grad_a if found is None else found, expected, atol=1e-4)
    np.testing.assert_allclose(grad_a + grad_b, G, atol=1e-6)
    return np.asarray(alpha), np.asarray(beta)


def test_each_image_mixes_value_and_gradient_by_its_own_numbers():
    alpha, beta = weights("shake", "shake")
    for drawn in (alpha, beta):
        assert len(np.unique(drawn.round(4))) == len(drawn)
        assert np.all((drawn >= -1e-4) & (drawn <= 1 + 1e-4))
    assert np.abs(alpha - beta).max() > 0.1
    assert np.abs(weights("shake", "shake", jax.random.key(4))[0] - alpha).max() > 0.1


@pytest.mark.parametrize(
    ("forward", "backward", "alpha_drawn", "beta_drawn"),
    [
        ("shake", "even", True, False),
        ("even", "shake", False, True),
        ("even", "even", False, False),
        ("even", "keep", False, False),
    ],
)
def test_even_is_a_half(forward, backward, alpha_drawn, beta_drawn):
    for drawn, random in zip(weights(forward, backward), (alpha_drawn, beta_drawn), strict=True):
        assert (np.abs(drawn - 0.5).max() > 0.1) == random


def test_keep_is_the_true_gradient():
    alpha, beta = weights("shake", "keep")
    np.testing.assert_allclose(alpha, beta, atol=1e-4)
    assert alpha.std() > 0.1


def test_the_numbers_are_uniform():
    ones, zeros = jnp.ones((4000, 1, 1, 1)), jnp.zeros((4000, 1, 1, 1))
    alpha, pull = jax.vjp(lambda a: shake(KEY, a, zeros), ones)
    (beta,) = pull(ones)
    for drawn in (np.ravel(alpha), np.ravel(beta)):
        np.testing.assert_allclose(np.quantile(drawn, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)
    assert abs(np.corrcoef(np.ravel(alpha), np.ravel(beta))[0, 1]) < 0.06


def test_a_mesh_mixes_as_one_device_does():
    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(_, a, b):
        mixed, pull = jax.vjp(lambda a, b: shake(KEY, a, b), a, b)
        return mixed, pull(mixed)

    mesh = meshes.make_mesh(8)
    split = jax.device_put((A, B), meshes.over_batch(mesh))
    found = value_and_gradients("eight", *split)
    assert len(found[0].sharding.device_set) == 8
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6),
        found,
        value_and_gradients("one", A, B),
    )


def test_low_precision_stays_low():
    low = jnp.bfloat16
    mixed, pull = jax.vjp(lambda a, b: shake(KEY, a, b), A.astype(low), B.astype(low))
    assert {x.dtype for x in (mixed, *pull(mixed))} == {jnp.dtype(low)}


def test_shaking_is_random_in_training_and_a_mean_in_evaluation():
    module = Shake("shake", "shake")
    np.testing.assert_allclose(module.apply({}, A, B, False), (A + B) / 2, rtol=1e-6)
    with pytest.raises(InvalidRngError):
        module.apply({}, A, B, True)

    def mix(key, a, b, forward, backward):
        return Shake(forward, backward).apply({}, a, b, True, rngs={"dropout": key})

    alpha, beta = weights("shake", "even", mix=mix)
    assert alpha.std() > 0.1
    np.testing.assert_allclose(beta, 0.5, atol=1e-4)


@pytest.mark.parametrize("backward", ["even", "keep"])
def test_what_draws_nothing_needs_no_key(backward):
    mixed = Shake("even", backward).apply({}, A, B, True)
    np.testing.assert_allclose(mixed, (A + B) / 2, rtol=1e-6)
