import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.attention.gates import ACTIVATIONS, GATES

GRID = np.linspace(-8, 8, 65)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def hard_sigmoid(x):
    return np.clip(x + 3, 0, 6) / 6


NUMPY_GATES = {
    "sigmoid": sigmoid,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "hard_sigmoid": hard_sigmoid,
}
NUMPY_ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "hard_swish": lambda x: x * hard_sigmoid(x),
}


def test_every_gate_and_activation_has_an_oracle():
    assert NUMPY_GATES.keys() == GATES.keys()
    assert NUMPY_ACTIVATIONS.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("name", NUMPY_GATES)
def test_gate_equals_numpy(name):
    np.testing.assert_allclose(
        GATES[name](jnp.float32(GRID)), NUMPY_GATES[name](GRID), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", NUMPY_ACTIVATIONS)
def test_activation_equals_numpy(name):
    np.testing.assert_allclose(
        ACTIVATIONS[name](jnp.float32(GRID)), NUMPY_ACTIVATIONS[name](GRID), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "x", "one"), [("hard_sigmoid", 3.0, 1.0), ("hard_sigmoid", -3.0, 0.0), ("relu", 1, 1)]
)
def test_gate_reaches_its_bounds_exactly(name, x, one):
    assert GATES[name](jnp.float32(x)) == one
