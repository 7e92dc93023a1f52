import functools
import itertools
import math
import subprocess
import sys

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from senet_jax.ops.pooling import _padding, adaptive_avg_pool, avg_pool, max_pool
from senet_jax.ops.target import compiled_for

# window, stride, pad: those of the papers' networks, then others.
WINDOWS = [(3, 2, 1), (3, 2, 0), (2, 2, 0), (3, 1, 1), (2, 3, 0), (4, 3, 2), (5, 4, 1)]
SIZES = [(5, 6), (10, 13)]
CASES = list(itertools.product(WINDOWS, SIZES, [False, True]))


def outputs(size, window, stride, pad, ceil_mode):
    """ATen's pooling_output_shape."""
    count = (size + 2 * pad - window + (stride - 1 if ceil_mode else 0)) // stride + 1
    return count - 1 if ceil_mode and (count - 1) * stride >= size + pad else count


def windows(size, window, stride, pad, ceil_mode):
    """The pixels (first, last) of each window inside the image, and its length as ATen has it."""
    for index in range(outputs(size, window, stride, pad, ceil_mode)):
        start = index * stride - pad
        end = min(start + window, size + pad)
        yield max(start, 0), min(end, size), end - start


def naive(x, reduce, *geometry):
    rows, columns = (list(windows(size, *geometry)) for size in x.shape[1:3])
    result = np.empty((x.shape[0], len(rows), len(columns), x.shape[3]))
    for i, (top, bottom, height) in enumerate(rows):
        for j, (left, right, width) in enumerate(columns):
            result[:, i, j] = reduce(x[:, top:bottom, left:right], height * width)
    return result


def noise(size):
    # Below zero, so that a padding of zeros would win every maximum.
    return np.random.default_rng(0).normal(-5, 1, (2, *size, 3))


@pytest.mark.parametrize(("geometry", "size", "ceil_mode"), CASES)
def test_max_pool_equals_the_naive_loop(geometry, size, ceil_mode):
    window, stride, pad = geometry
    x = noise(size)
    expected = naive(x, lambda pixels, _: pixels.max((1, 2)), *geometry, ceil_mode)
    pooled = max_pool(jnp.float32(x), window, stride, pad=pad, ceil_mode=ceil_mode)
    np.testing.assert_array_equal(pooled, np.float32(expected))


@pytest.mark.parametrize(("geometry", "size", "ceil_mode"), CASES)
@pytest.mark.parametrize("count_pad", [True, False])
def test_avg_pool_equals_the_naive_loop(geometry, size, ceil_mode, count_pad):
    def mean(pixels, area):
        return pixels.sum((1, 2)) / (area if count_pad else pixels[0, ..., 0].size)

    window, stride, pad = geometry
    x = noise(size)
    pooled = avg_pool(
        jnp.float32(x), window, stride, pad=pad, ceil_mode=ceil_mode, count_pad=count_pad
    )
    expected = naive(x, mean, *geometry, ceil_mode)
    assert pooled.shape == expected.shape
    np.testing.assert_allclose(pooled, expected, rtol=1e-5)


@pytest.mark.parametrize(("geometry", "size", "ceil_mode"), CASES)
@pytest.mark.parametrize("pool", [max_pool, avg_pool])
def test_windows_leave_nothing_out_of_what_xla_pools(pool, geometry, size, ceil_mode):
    window, stride, pad = geometry
    trace = jax.make_jaxpr(lambda x: pool(x, window, stride, pad=pad, ceil_mode=ceil_mode))
    (reduction,) = (
        equation
        for equation in equations(trace(jnp.zeros((1, *size, 1))).jaxpr)
        if equation.primitive.name.startswith("reduce_window")
    )
    pooled, padding = reduction.invars[0].aval.shape, reduction.params["padding"]
    for axis in (1, 2):
        assert (pooled[axis] + sum(padding[axis]) - window) % stride == 0


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


PRODUCT = """
import jax, numpy as np
from senet_jax.ops.pooling import avg_pool, max_pool
x, w = np.ones((2, 13, 13, 256), np.float32), np.full((256, 128), 0.5, np.float32)
for pool in (avg_pool, max_pool):
    pooled = jax.jit(lambda x, w: pool(x @ w, 2, 2))
    for call in range(10):
        assert (np.asarray(pooled(x, w)) == 128).all()
"""


def test_a_pool_of_a_matrix_product_stays_in_its_memory():
    subprocess.run([sys.executable, "-c", PRODUCT], check=True)


@pytest.mark.parametrize(
    ("size", "padded", "caffe"), [(112, 56, 56), (113, 57, 56), (114, 57, 57), (8, 4, 4), (2, 1, 1)]
)
def test_output_sizes_of_the_stem_pools(size, padded, caffe):
    x = jnp.zeros((1, size, size, 1))
    assert max_pool(x, 3, 2, pad=1).shape == (1, padded, padded, 1)
    assert max_pool(x, 3, 2, ceil_mode=True).shape == (1, caffe, caffe, 1)


@pytest.mark.parametrize("pool", [max_pool, avg_pool, adaptive_avg_pool])
def test_precision_is_kept(pool):
    assert pool(jnp.ones((1, 4, 4, 2), jnp.bfloat16), 2, 2).dtype == jnp.bfloat16


@pytest.mark.parametrize("shape", [(7, 7), (9, 8), (2, 3), (6, 20)])
@pytest.mark.parametrize("size", [(1, 7), (3, 4), (14, 9), (6, 20)])
def test_adaptive_avg_pool_equals_the_naive_loop(size, shape):
    x = noise(size)
    expected = np.empty((2, *shape, 3))
    for i, j in np.ndindex(shape):
        top, bottom, left, right = (
            round_to((k + end) * side / count)
            for k, side, count in ((i, size[0], shape[0]), (j, size[1], shape[1]))
            for end, round_to in ((0, math.floor), (1, math.ceil))
        )
        expected[:, i, j] = x[:, top:bottom, left:right].mean((1, 2))
    np.testing.assert_allclose(adaptive_avg_pool(jnp.float32(x), *shape), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "window", "stride", "pad", "ceil_mode"),
    [
        ((11, 12), 3, 2, 1, False),
        ((12, 11), 3, 2, 0, True),
        ((8, 9), 2, 2, 0, False),
        ((7, 6), 3, 1, 1, False),
        ((9, 10), 2, 3, 0, False),
        ((1, 2), 3, 2, 1, False),
    ],
)
def test_gradient_of_the_max_pool_is_xlas(size, window, stride, pad, ceil_mode):
    # Few values, so that windows have several pixels with their maximum.
    x = jnp.float32(np.random.default_rng(0).integers(0, 4, (2, *size, 3)))

    def ours(x):
        return max_pool(x, window, stride, pad=pad, ceil_mode=ceil_mode)

    def theirs(x):
        padding = [_padding(side, window, stride, pad, ceil_mode) for side in size]
        return nn.max_pool(x, (window, window), (stride, stride), padding)

    def run(function):
        y, back = jax.vjp(function, x)
        return y, back(jnp.float32(np.random.default_rng(1).integers(1, 9, y.shape)))[0]

    expected = run(theirs)
    for target in ("cpu", "gpu"):
        with compiled_for(target):
            found = jax.jit(functools.partial(run, ours))()
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def pooled_with_gradient(function, x):
    y, back = jax.vjp(function, x)
    return y, back(jnp.asarray(np.random.default_rng(1).integers(1, 9, y.shape), x.dtype))[0]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_relu_before_the_pool_is_the_same_in_it(target, dtype):
    # Windows without positive pixels have no gradient.
    x = jnp.asarray(np.random.default_rng(0).integers(-9, 4, (2, 11, 12, 3)), dtype)

    expected = pooled_with_gradient(
        lambda x: nn.max_pool(nn.relu(x), (3, 3), (2, 2), ((1, 1), (1, 1))), x
    )
    with compiled_for(target):
        found = pooled_with_gradient(lambda x: max_pool(x, 3, 2, pad=1, relu=True), x)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert (expected[0] == 0).any()


@pytest.mark.parametrize("relu", [False, True])
def test_both_forms_of_the_max_pool_treat_nan_and_inf_alike(relu):
    rng = np.random.default_rng(2)
    x = rng.integers(-9, 9, (2, 11, 12, 3)).astype(np.float32)
    for number in (np.nan, np.inf, -np.inf):
        x[rng.random(x.shape) < 0.1] = number

    def run(target):
        with compiled_for(target):
            return pooled_with_gradient(lambda x: max_pool(x, 3, 2, pad=1, relu=relu), jnp.array(x))

    found, expected = run("gpu"), run("cpu")
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert np.isnan(found[0]).any()
    assert np.isinf(found[0]).any()
