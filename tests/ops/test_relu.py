import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.ops.relu import relu_of_sum
from senet_jax.ops.target import compiled_for


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_only_gradients_of_positive_numbers_pass(target):
    x = jnp.float32([-2, -0.0, 0, 2**-99, 3, jnp.nan, jnp.inf, -jnp.inf])
    gradient = jnp.float32([1, 2, 3, 4, 5, 6, 7, jnp.nan])
    with compiled_for(target):
        y, back = jax.vjp(jax.jit(relu_of_sum), x)
        (of_x,) = back(gradient)
    np.testing.assert_array_equal(y, [0, 0, 0, 2**-99, 3, np.nan, np.inf, 0])
    np.testing.assert_array_equal(of_x, [0, 0, 0, 4, 5, 0, 7, 0])
