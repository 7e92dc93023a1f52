import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.ops.compute import EVALUATION, Compute


def naive(x, kernel, stride, dilation, groups, pad=None):
    sides, features = kernel.shape[:2], kernel.shape[3]
    reaches = [dilation * (side - 1) + 1 for side in sides]
    pads = [reach // 2 if pad is None else pad for reach in reaches]
    padded = np.pad(x, ((0, 0), *((side, side) for side in pads), (0, 0)))
    height, width = (
        (side - reach) // stride + 1 for side, reach in zip(padded.shape[1:3], reaches, strict=True)
    )
    result = np.zeros((len(x), height, width, features))
    for i, j, o in np.ndindex(height, width, features):
        group = o // (features // groups)
        channels = slice(group * kernel.shape[2], (group + 1) * kernel.shape[2])
        rows = slice(i * stride, i * stride + reaches[0], dilation)
        columns = slice(j * stride, j * stride + reaches[1], dilation)
        result[:, i, j, o] = (padded[:, rows, columns, channels] * kernel[..., o]).sum((1, 2, 3))
    return result


@pytest.mark.parametrize(
    ("kernel_size", "stride", "dilation", "groups"),
    [
        (1, 1, 1, 1),
        (1, 2, 1, 1),
        (3, 1, 1, 1),
        (3, 2, 1, 1),
        (3, 1, 2, 1),
        (3, 2, 2, 1),
        (3, 2, 1, 2),
        (3, 1, 1, 4),
        (7, 2, 1, 1),
    ],
)
def test_conv_equals_the_naive_loop(kernel_size, stride, dilation, groups):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 9, 4))
    kernel = rng.normal(size=(kernel_size, kernel_size, 4 // groups, 8))
    module = EVALUATION.conv(8, kernel_size, stride=stride, dilation=dilation, groups=groups)
    y = module.apply({"params": {"kernel": jnp.float32(kernel)}}, jnp.float32(x))
    expected = naive(x, kernel, stride, dilation, groups)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kernel_size", "pad"), [((1, 7), None), ((3, 1), None), (3, 0), (1, 2)])
def test_kernels_that_are_not_square_and_other_paddings(kernel_size, pad):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 9, 4))
    sides = (kernel_size,) * 2 if isinstance(kernel_size, int) else kernel_size
    kernel = rng.normal(size=(*sides, 4, 8))
    module = EVALUATION.conv(8, kernel_size, pad=pad)
    y = module.apply({"params": {"kernel": jnp.float32(kernel)}}, jnp.float32(x))
    np.testing.assert_allclose(y, naive(x, kernel, 1, 1, 1, pad), rtol=1e-4, atol=1e-5)


def test_bias_starts_at_zero_and_is_added():
    x = jnp.zeros((1, 2, 2, 1))
    module = EVALUATION.conv(3, 3, use_bias=True)
    params = module.init(jax.random.key(0), x)["params"]
    np.testing.assert_array_equal(params["bias"], np.zeros(3))
    bias = jnp.arange(3.0)
    y = module.apply({"params": params | {"bias": bias}}, x)
    np.testing.assert_array_equal(y, np.broadcast_to(bias, (1, 2, 2, 3)))


@pytest.mark.parametrize("groups", [1, 8])
def test_he_initialization_has_the_variance_2_over_fan_out(groups):
    params = EVALUATION.conv(128, 3, groups=groups).init(
        jax.random.key(0), jnp.zeros((1, 2, 2, 256))
    )
    standard = np.asarray(params["params"]["kernel"]) / np.sqrt(2 / (9 * 128))
    assert abs(standard.mean()) < 5 / np.sqrt(standard.size)
    assert abs(standard.var() - 1) < 5 * np.sqrt(2 / standard.size)
    # A truncated normal of this variance ends at 2.27.
    assert np.mean(np.abs(standard) > 2.3) == pytest.approx(0.0214, abs=0.002)


def test_dtype_is_that_of_the_computation_alone():
    y, variables = (
        Compute(train=False, dtype=jnp.bfloat16)
        .conv(2, 3)
        .init_with_output(jax.random.key(0), jnp.ones((1, 3, 3, 2)))
    )
    assert y.dtype == jnp.bfloat16
    assert variables["params"]["kernel"].dtype == jnp.float32
