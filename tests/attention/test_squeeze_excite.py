import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from senet_jax import SqueezeExciteConfig, UsageError
from senet_jax.attention.gates import ACTIVATIONS, GATES
from senet_jax.attention.squeeze import SQUEEZES
from senet_jax.ops.compute import Compute

CHANNELS, HIDDEN = 6, 3


def images(dtype=jnp.float32):
    return jax.random.normal(jax.random.key(0), (2, 4, 5, CHANNELS), dtype)


def random_params(bias=True):
    rng = np.random.default_rng(1)
    layers = {"reduce": (CHANNELS, HIDDEN), "expand": (HIDDEN, CHANNELS)}
    params = {layer: {"kernel": rng.normal(size=shape)} for layer, shape in layers.items()}
    if bias:
        for layer in params.values():
            layer["bias"] = rng.normal(size=layer["kernel"].shape[1])
    return jax.tree.map(jnp.float32, params)


def shapes(params):
    return {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}


def apply_with_gate(config, params, x):
    y, state = config.build().apply({"params": params}, x, mutable=["intermediates"])
    (gate,) = state["intermediates"]["gate"]
    return y, gate


# test_squeeze.py and test_gates.py hold the rows of the three tables against NumPy; this holds
# equations 2 to 4, written out in NumPy around them.
@pytest.mark.parametrize(
    ("squeeze", "gate", "activation", "bias"),
    [
        *[(squeeze, "sigmoid", "relu", True) for squeeze in [*SQUEEZES, "none"]],
        *[("avg", gate, "relu", False) for gate in GATES],
        *[("std", "tanh", activation, True) for activation in ACTIVATIONS],
        ("none", "hard_sigmoid", "silu", False),
    ],
)
def test_block_equals_equations_2_to_4(squeeze, gate, activation, bias):
    config = SqueezeExciteConfig(squeeze, gate, activation, width=HIDDEN, bias=bias)
    params, x = random_params(bias), images()

    z = np.asarray(x) if squeeze == "none" else np.asarray(SQUEEZES[squeeze](x))[:, None, None]
    for layer, nonlinearity in (("reduce", ACTIVATIONS[activation]), ("expand", GATES[gate])):
        z = z @ np.asarray(params[layer]["kernel"])
        if bias:
            z = z + np.asarray(params[layer]["bias"])
        z = np.asarray(nonlinearity(z))

    y, sown = apply_with_gate(config, params, x)
    assert sown.shape == z.shape
    np.testing.assert_allclose(sown, z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y, x * z, rtol=1e-4, atol=1e-5)


def test_defaults_are_those_of_table_2():
    assert SqueezeExciteConfig() == SqueezeExciteConfig(
        squeeze="avg", gate="sigmoid", activation="relu", reduction=16, divisor=1, bias=True
    )


def test_no_squeeze_is_a_squeeze_of_every_pixel_by_itself():
    params, x = random_params(), images()
    full = SqueezeExciteConfig("none", width=HIDDEN).build().apply({"params": params}, x)
    pixels = x.reshape(-1, 1, 1, CHANNELS)
    each = SqueezeExciteConfig("avg", width=HIDDEN).build().apply({"params": params}, pixels)
    np.testing.assert_allclose(full, each.reshape(x.shape), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("squeeze", [*SQUEEZES, "none"])
@pytest.mark.parametrize("channels", [32, 64, 100])
@pytest.mark.parametrize("reduction", [2, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_parameters_are_the_formula(squeeze, channels, reduction, bias):
    config = SqueezeExciteConfig(squeeze, reduction=reduction, bias=bias)
    x = jax.ShapeDtypeStruct((1, 3, 3, channels), jnp.float32)
    hidden = channels // reduction
    expected = {"reduce/kernel": (channels, hidden), "expand/kernel": (hidden, channels)}
    if bias:
        expected |= {"reduce/bias": (hidden,), "expand/bias": (channels,)}
    params = jax.eval_shape(config.build().init, jax.random.key(0), x)["params"]
    assert shapes(params) == expected


@pytest.mark.parametrize(
    ("fields", "channels", "hidden"),
    [
        ({}, 64, 4),
        ({}, 16, 1),
        ({}, 100, 6),
        ({"reduction": 0.5}, 16, 32),
        ({"width": 5}, 64, 5),
        ({"width": 5, "reduction": 4, "divisor": 8}, 2, 5),
        # timm: make_divisible(channels / 16, 8, round_limit=0)
        ({"divisor": 8}, 16, 8),
        ({"divisor": 8}, 64, 8),
        ({"divisor": 8}, 128, 8),
        ({"divisor": 8}, 176, 8),
        ({"divisor": 8}, 192, 16),
        ({"divisor": 8}, 256, 16),
        ({"divisor": 8}, 312, 16),
        ({"divisor": 8}, 320, 24),
        ({"divisor": 8}, 2048, 128),
    ],
)
def test_hidden_width(fields, channels, hidden):
    assert SqueezeExciteConfig(**fields).hidden_width(channels) == hidden


@pytest.mark.parametrize(("gate", "one"), [("hard_sigmoid", 3.0), ("relu", 1.0)])
@pytest.mark.parametrize("squeeze", [*SQUEEZES, "none"])
def test_a_gate_of_ones_is_the_identity(gate, one, squeeze):
    params, x = random_params(), images()
    params["expand"] = {
        "kernel": jnp.zeros((HIDDEN, CHANNELS)),
        "bias": jnp.full((CHANNELS,), one),
    }
    module = SqueezeExciteConfig(squeeze, gate, width=HIDDEN).build()
    np.testing.assert_array_equal(module.apply({"params": params}, x), x)


@pytest.mark.parametrize("squeeze", [*SQUEEZES, "none"])
def test_gate_is_float32_and_output_is_of_the_input_or_of_dtype(squeeze):
    config = SqueezeExciteConfig(squeeze, width=HIDDEN)
    params, low = random_params(), images(jnp.bfloat16)
    _, gate = apply_with_gate(config, params, low)
    assert gate.dtype == jnp.float32
    # Were any of it bfloat16, the two would differ in the third digit.
    _, same = apply_with_gate(config, params, low.astype(jnp.float32))
    np.testing.assert_allclose(gate, same, rtol=1e-6)

    def output(dtype, x):
        return config.build(Compute(train=False, dtype=dtype)).apply({"params": params}, x).dtype

    assert output(None, low) == jnp.bfloat16
    assert output(None, images()) == jnp.float32
    assert output(jnp.bfloat16, images()) == jnp.bfloat16


def test_parameters_are_float32_whatever_the_input():
    params = SqueezeExciteConfig(width=HIDDEN).build().init(jax.random.key(0), images("bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_two_builds_of_one_description_do_not_share_parameters():
    config = SqueezeExciteConfig(width=HIDDEN)

    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x):
            return config.build()(x)

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Inner(name="second")(Inner(name="first")(x))

    params = Outer().init(jax.random.key(0), images())["params"]
    first, second = (params[name]["se"]["reduce"]["kernel"] for name in ("first", "second"))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)


def test_description_is_a_value():
    config = SqueezeExciteConfig(gate="tanh")
    same = dataclasses.replace(SqueezeExciteConfig(), gate="tanh")
    assert config == same
    assert hash(config) == hash(same)
    assert len({config, same, SqueezeExciteConfig()}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gate = "relu"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"squeeze": "avgmix"}, "unknown squeeze 'avgmix': did you mean avgmax"),
        ({"squeeze": "nome"}, "unknown squeeze 'nome': did you mean none"),
        ({"gate": "sigmiod"}, "unknown gate 'sigmiod': did you mean sigmoid"),
        ({"activation": "sulu"}, "unknown activation 'sulu': did you mean silu"),
        ({"reduction": 0}, "reduction must be at least 0.01, not 0"),
        ({"reduction": -16}, "reduction must be at least 0.01, not -16"),
        ({"width": 0}, "width must be at least 1, or None .*, not 0"),
        ({"divisor": 0}, "divisor must be at least 1, not 0"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        SqueezeExciteConfig(**fields)


def test_a_reduction_larger_than_the_channels_is_refused():
    message = "reduction 16 leaves no hidden channel of 6: use a reduction of at most 6"
    with pytest.raises(UsageError, match=message):
        SqueezeExciteConfig().build().init(jax.random.key(0), images())
