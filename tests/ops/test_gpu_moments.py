import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.ops import gpu_moments
from senet_jax.ops.gpu_moments import FEWEST_PIXELS, MOST_PIXELS, affine, scale, shifted_sums
from senet_jax.ops.moments import scale as scale_of_target
from senet_jax.ops.target import compiled_for

RNG = np.random.default_rng(0)
SHAPES = [(6, 4, 5, 2), (6, 36, 32, 2), (6, 1, 1, 3), (6, 3)]
"""Maps of one block and of several, single pixels and vectors."""

every_shape = pytest.mark.parametrize("shape", SHAPES)
every_grouping = pytest.mark.parametrize("groups", [1, 3, 6])


def noise(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def grouped(x, groups):
    return x.reshape(groups, -1, x.shape[-1])


def over(each, x):
    """Numbers of groups and channels as an array that broadcasts against the maps."""
    each = jnp.repeat(each, len(x) // len(each), axis=0)
    return each.reshape(len(x), *(1,) * (x.ndim - 2), x.shape[-1])


def with_gradients(function, arguments, cotangents):
    def run(arguments, cotangents):
        y, back = jax.vjp(function, *arguments)
        return y, back(cotangents)

    return jax.jit(run)(arguments, cotangents)


def close(found, expected, tolerance=2e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max())
        ),
        found,
        expected,
    )


@every_shape
@every_grouping
@pytest.mark.parametrize("of_samples", [False, True])
def test_sums_are_those_of_the_distances_to_the_shift(shape, groups, of_samples):
    shift, n = jnp.float32(np.arange(shape[-1])), shape[0]

    def ours(x):
        return shifted_sums(x, shift, groups, of_samples)

    def plain(x):
        x = x - shift
        totals = grouped(x, n).sum(1) if of_samples else None
        return grouped(x, groups).sum(1), grouped(x * x, groups).sum(1), totals

    cotangents = [noise(groups, shape[-1]), noise(groups, shape[-1]), noise(n, shape[-1])]
    arguments = (2 + noise(*shape),)
    cotangents = (*cotangents[:2], cotangents[2] if of_samples else None)
    close(with_gradients(ours, arguments, cotangents), with_gradients(plain, arguments, cotangents))


@every_shape
@every_grouping
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("gated", [False, True])
def test_affine_and_its_gradients(shape, groups, relu, gated):
    def plain(x, centre, factor, offset, gate=None):
        y = (x - over(centre, x)) * over(factor, x) + over(offset, x)
        y = y if gate is None else y * over(gate, x)
        return jax.nn.relu(y) if relu else y

    def ours(x, centre, factor, offset, gate=None):
        return affine(x, centre, factor, offset, gate, relu, jnp.float32)

    numbers = [noise(groups, shape[-1]) for _ in range(3)]
    arguments = (noise(*shape), *numbers, *([noise(shape[0], shape[-1])] if gated else []))
    cotangent = noise(*shape)
    close(with_gradients(ours, arguments, cotangent), with_gradients(plain, arguments, cotangent))


@every_shape
def test_scale_is_chosen_by_target_and_has_its_gradients(shape):
    arguments, cotangent = (noise(*shape), noise(shape[0], shape[-1])), noise(*shape)
    found = with_gradients(scale, arguments, cotangent)
    close(found, with_gradients(lambda x, factor: x * over(factor, x), arguments, cotangent))
    with compiled_for("gpu"):
        chosen = jax.make_jaxpr(functools.partial(scale_of_target))(*arguments)
    assert str(chosen) == str(jax.make_jaxpr(scale)(*arguments))
    assert str(chosen) != str(jax.make_jaxpr(scale_of_target)(*arguments))


def test_bfloat16_maps_have_float32_sums():
    x, factor = jnp.bfloat16(5 + noise(2, 16, 16, 3)), noise(2, 3)
    total, squares, _ = shifted_sums(x, jnp.zeros(3), 1, False)
    assert total.dtype == squares.dtype == jnp.float32
    exact = grouped(np.float64(x), 1)
    close((total, squares), (exact.sum(1), (exact**2).sum(1)), 1e-4)
    _, (of_x, of_factor) = with_gradients(scale, (x, factor), x)
    assert (of_x.dtype, of_factor.dtype) == (jnp.bfloat16, jnp.float32)
    close(of_factor, (grouped(np.float64(x), 2) ** 2).sum(1), 1e-4)


@pytest.mark.parametrize("side", [1, 7, 14, 28, 31, 56, 61, 112, 113, 224])
def test_blocks_divide_a_map_into_few_parts(side):
    length = gpu_moments._block(side**2)
    assert side**2 % length == 0
    if side == 31:
        # A prime, whose rows would be short and many.
        assert length == side**2
    else:
        assert min(FEWEST_PIXELS, side**2) <= length <= MOST_PIXELS
        assert side**2 // length <= side
