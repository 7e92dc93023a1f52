import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import UsageError
from senet_jax.attention import CBAMConfig
from senet_jax.models.cost import cost
from senet_jax.models.zoo import create_model
from senet_jax.ops.compute import EVALUATION, Compute

CHANNELS, HIDDEN = 6, 3
KEY = jax.random.key(0)


def images(n=2, height=4, width=5):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, height, width, CHANNELS)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def perceptron(x, params):
    hidden = x @ params["reduce"]["kernel"] + params["reduce"].get("bias", 0)
    return np.maximum(hidden, 0) @ params["expand"]["kernel"] + params["expand"].get("bias", 0)


def spatial_logits(x, kernel):
    """A convolution of mean and maximum over the channels, padded with zeros, pixel by pixel."""
    maps = np.stack([x.mean(-1), x.max(-1)], axis=-1)
    side, (n, height, width) = len(kernel), x.shape[:3]
    logits = np.zeros((n, height, width, 1))
    for i, j, a, b in np.ndindex(height, width, side, side):
        row, column = i + a - side // 2, j + b - side // 2
        if 0 <= row < height and 0 <= column < width:
            logits[:, i, j, 0] += maps[:, row, column] @ kernel[a, b, :, 0]
    return logits


@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize(("bias", "norm"), [(True, True), (False, False)])
def test_channels_then_pixels_are_rescaled(random_variables, kernel_size, bias, norm):
    x = images()
    config = CBAMConfig(reduction=2, bias=bias, kernel_size=kernel_size, norm=norm)
    module = config.build(EVALUATION)
    variables = random_variables(module, x)
    y, state = module.apply(variables, x, mutable="intermediates")

    params = jax.tree.map(np.asarray, variables["params"])
    squeezed = perceptron(x.mean((1, 2)), params) + perceptron(x.max((1, 2)), params)
    gate = sigmoid(squeezed)[:, None, None]
    logits = spatial_logits(x * gate, params["spatial"]["kernel"])
    if norm:
        stats = variables["batch_stats"]["spatial_bn"]
        logits = (logits - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
        logits = logits * params["spatial_bn"]["scale"] + params["spatial_bn"]["bias"]
    spatial_gate = sigmoid(logits)
    sown = state["intermediates"]
    np.testing.assert_allclose(sown["gate"][0], gate, atol=1e-6)
    np.testing.assert_allclose(sown["spatial_gate"][0], spatial_gate, atol=1e-6)
    np.testing.assert_allclose(y, x * gate * spatial_gate, atol=1e-6)


def test_training_takes_the_statistics_of_groups_of_the_batch(random_variables):
    x = images(4)
    variables = random_variables(CBAMConfig(reduction=2).build(EVALUATION), x)

    @functools.partial(jax.jit, static_argnums=1)
    def apply(x, norm_group=None):
        module = CBAMConfig(reduction=2).build(Compute(train=True, norm_group=norm_group))
        return module.apply(variables, x, mutable="batch_stats")

    groups, state = apply(x, 2)
    halves, states = zip(*[apply(half) for half in np.split(x, 2)], strict=True)
    np.testing.assert_allclose(groups, np.concatenate(halves), atol=1e-6)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *states)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, mean)
    assert not np.allclose(apply(x)[0], groups)


def test_at_first_all_pixels_have_the_same_gate():
    module = CBAMConfig(reduction=2).build(Compute(train=True))

    @jax.jit
    def sown(x):
        return module.init_with_output(KEY, x, mutable=True)[1]["intermediates"]

    np.testing.assert_array_equal(sown(images())["spatial_gate"][0], 0.5)


def test_gates_are_float32_and_the_product_is_not():
    x = jnp.asarray(images(), jnp.bfloat16)
    module = CBAMConfig(reduction=2).build(Compute(train=True, dtype=jnp.bfloat16))
    y, state = jax.eval_shape(lambda: module.init_with_output(KEY, x, mutable=True))
    assert y.dtype == jnp.bfloat16
    gates = {name: sown[0].dtype for name, sown in state["intermediates"].items()}
    assert gates == {"gate": jnp.float32, "spatial_gate": jnp.float32}


def test_parameters_of_resnet50_are_those_of_the_authors_network():
    # As osmr/imgclsmob counts its copy of the network released with the paper; its 4,116.97M are
    # operations of another counting.
    assert cost(create_model("resnet50", attention=CBAMConfig()), 224).params == 28_089_624


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel_size": 4}, "kernel_size must be odd, at least 1 and at most 63, not 4"),
        ({"reduction": 0}, "reduction must be at least 0.01, not 0"),
        ({"gate": "sigmod"}, "did you mean sigmoid"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        CBAMConfig(**fields)


def test_a_reduction_larger_than_the_channels_is_refused():
    with pytest.raises(UsageError, match="reduction 16 leaves no hidden channel of 6"):
        CBAMConfig().build(EVALUATION).init(KEY, images())
