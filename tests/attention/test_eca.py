import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import UsageError
from senet_jax.attention import ECAConfig
from senet_jax.ops.compute import Compute


def test_gate_is_a_sigmoid_of_the_weighted_neighbours():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 10)).astype(np.float32)
    kernel = np.float32([0.5, -1.0, 2.0, 0.3, -0.7])
    module = ECAConfig(kernel_size=5).build()
    y = module.apply({"params": {"conv": {"kernel": kernel[:, None, None]}}}, x)

    squeezed = x.mean(axis=(1, 2))
    expected = np.zeros_like(x)
    for channel in range(10):
        score = 0.0
        for tap in range(5):
            neighbour = channel + tap - 2
            if 0 <= neighbour < 10:
                score = score + kernel[tap] * squeezed[:, neighbour]
        expected[..., channel] = x[..., channel] / (1 + np.exp(-score))[:, None, None]
    np.testing.assert_allclose(y, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "size"), [(8, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)]
)
def test_kernel_grows_with_the_channels(channels, size):
    assert ECAConfig().kernel(channels) == size
    x = jnp.zeros((1, 2, 2, channels))
    params = jax.eval_shape(lambda: ECAConfig().build().init(jax.random.key(0), x))["params"]
    assert jax.tree.map(jnp.shape, params) == {"conv": {"kernel": (size, 1, 1)}}


def test_gate_is_float32_and_the_product_is_not():
    x = jnp.ones((1, 2, 2, 8), jnp.bfloat16)
    module = ECAConfig().build(Compute(train=False, dtype=jnp.bfloat16))
    params = module.init(jax.random.key(0), x)
    y, state = module.apply(params, x, mutable="intermediates")
    assert y.dtype == jnp.bfloat16
    assert state["intermediates"]["gate"][0].dtype == jnp.float32


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd, .*, not 4"),
        ({"gate": "sigmod"}, "did you mean sigmoid"),
        ({"squeeze": "average"}, "unknown squeeze 'average'"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        ECAConfig(**fields)
