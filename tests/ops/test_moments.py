import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.ops.moments import affine, sample_moments, scale

RNG = np.random.default_rng(0)
SHAPES = [(3, 4, 5, 2), (2, 3, 16, 4), (2, 1, 1, 3), (4, 3)]
"""Short rows, rows that are runs, single pixels and vectors."""

every_shape = pytest.mark.parametrize("shape", SHAPES)


def noise(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def pixels(x):
    return x.reshape(x.shape[0], -1, x.shape[-1])


def gradients(function, arguments, cotangents):
    return jax.jit(lambda a, c: jax.vjp(function, *a)[1](c))(arguments, cotangents)


def close(found, expected, tolerance=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        found,
        expected,
    )


@every_shape
def test_moments_are_those_of_the_pixels_of_each_sample(shape):
    x = 2 + 3 * noise(*shape)
    mean, var = jax.jit(sample_moments)(x)
    close((mean, var), (pixels(x).mean(1), pixels(x).var(1)))


@every_shape
def test_gradients_of_the_moments_are_those_of_numpys_formulas(shape):
    x, cotangents = noise(*shape), (noise(shape[0], shape[-1]), noise(shape[0], shape[-1]))

    def plain(x):
        x = pixels(x)
        return x.mean(1), x.var(1)

    close(gradients(sample_moments, (x,), cotangents), gradients(plain, (x,), cotangents))


@pytest.mark.parametrize("ratio", [1e3, 1e4])
@pytest.mark.parametrize("side", [5, 16])
def test_a_mean_far_above_the_deviation_costs_no_accuracy(ratio, side):
    x = (ratio + RNG.standard_normal((4, side, side, 3))).astype(np.float32)
    exact = pixels(x.astype(np.float64)).var(1)
    _, var = jax.jit(sample_moments)(x)
    np.testing.assert_allclose(var, exact, rtol=2e-3)
    if ratio == 1e4:
        careless = pixels(x * x).mean(1) - pixels(x).mean(1) ** 2
        assert np.abs(careless / exact - 1).max() > 0.1


@every_shape
def test_affine_and_its_gradients(shape):
    numbers = [noise(shape[0], shape[-1]) for _ in range(3)]

    def plain(x, centre, factor, offset):
        over = (shape[0], *(1,) * (len(shape) - 2), shape[-1])
        return (x - centre.reshape(over)) * factor.reshape(over) + offset.reshape(over)

    arguments, cotangent = (noise(*shape), *numbers), noise(*shape)
    close(jax.jit(affine)(*arguments), plain(*arguments))
    close(gradients(affine, arguments, cotangent), gradients(plain, arguments, cotangent))


def test_scale_and_its_gradients():
    arguments, cotangent = (noise(2, 3, 16, 4), noise(2, 4)), noise(2, 3, 16, 4)

    def plain(x, factor):
        return x * factor[:, None, None]

    close(jax.jit(scale)(*arguments), plain(*arguments))
    close(gradients(scale, arguments, cotangent), gradients(plain, arguments, cotangent))


def test_bfloat16_maps_have_float32_sums():
    x, factor = jnp.bfloat16(5 + noise(2, 16, 16, 3)), noise(2, 3)
    mean, var = sample_moments(x)
    assert mean.dtype == var.dtype == jnp.float32
    exact = pixels(np.float64(x))
    close((mean, var), (exact.mean(1), exact.var(1)), 1e-4)
    of_x, of_factor = gradients(scale, (x, factor), x)
    assert (of_x.dtype, of_factor.dtype) == (jnp.bfloat16, jnp.float32)
    close(of_factor, (exact**2).sum(1), 1e-4)
