import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import UsageError
from senet_jax.attention import GatherExciteConfig, SqueezeExciteConfig
from senet_jax.attention.gather_excite import nearest
from senet_jax.models.cost import cost
from senet_jax.models.zoo import create_model
from senet_jax.ops.compute import EVALUATION, Compute

CHANNELS = 4
KEY = jax.random.key(0)


def images(n=2, height=9, width=6):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, height, width, CHANNELS)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def window(x, row, column, reach):
    """The pixels at most so far from one of them in each direction that the map has."""
    return x[:, max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]


def mean_gather(x, extent):
    """Section 3.1: the mean over 2e - 1 pixels, centred at every e-th."""
    rows, columns = (range(0, size, extent) for size in x.shape[1:3])
    means = [window(x, i, j, extent - 1).mean((1, 2)) for i in rows for j in columns]
    return np.stack(means, axis=1).reshape(len(x), len(rows), len(columns), -1)


def strided_depthwise(x, kernel):
    """A 3x3 depthwise convolution of stride 2, padded with zeros on all sides."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = (range(0, size, 2) for size in x.shape[1:3])
    sums = [(padded[:, i : i + 3, j : j + 3] * kernel).sum((1, 2)) for i in rows for j in columns]
    return np.stack(sums, axis=1).reshape(len(x), len(rows), len(columns), -1)


def norm(x, params, stats):
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    return x * params["scale"] + params["bias"]


def conv_gather(x, variables, extent, relu_last):
    params, stats = (jax.tree.map(np.asarray, variables[c]) for c in ("params", "batch_stats"))
    count = {0: 1, 2: 1, 4: 2, 8: 3}[extent]
    for index in range(1, count + 1):
        kernel = params[f"conv{index}"]["kernel"][:, :, 0]
        x = strided_depthwise(x, kernel) if extent else (x * kernel).sum((1, 2), keepdims=True)
        x = norm(x, params[f"bn{index}"], stats[f"bn{index}"])
        if index < count or relu_last:
            x = np.maximum(x, 0)
    return x


def perceptron(x, params):
    hidden = np.maximum(x @ params["reduce"]["kernel"] + params["reduce"]["bias"], 0)
    return hidden @ params["expand"]["kernel"] + params["expand"]["bias"]


def copies(x, height, width):
    """Every pixel of the large map, one by one, from the small one."""
    y = np.zeros((len(x), height, width, x.shape[-1]))
    for i, j in itertools.product(range(height), range(width)):
        y[:, i, j] = x[:, i * x.shape[1] // height, j * x.shape[2] // width]
    return y


@pytest.mark.parametrize("extent", [0, 2, 4, 8])
@pytest.mark.parametrize("mlp", [False, True])
@pytest.mark.parametrize("gather", ["avg", "conv"])
def test_a_map_is_rescaled_by_gathers_around_its_pixels(random_variables, extent, mlp, gather):
    x = images()
    module = GatherExciteConfig(extent, gather, mlp, reduction=2).build(EVALUATION)
    variables = random_variables(module, x)
    y, state = module.apply(variables, x, mutable="intermediates")

    if gather == "conv":
        gathered = conv_gather(x, variables, extent, relu_last=mlp)
    else:
        gathered = mean_gather(x, extent) if extent else x.mean((1, 2), keepdims=True)
    if mlp:
        gathered = perceptron(gathered, jax.tree.map(np.asarray, variables["params"]))
    gate = sigmoid(gathered)
    np.testing.assert_allclose(state["intermediates"]["gate"][0], gate, atol=1e-6)
    np.testing.assert_allclose(y, x * copies(gate, 9, 6), atol=1e-6)


def test_a_mean_through_two_layers_is_squeeze_and_excitation(random_variables):
    x = images()
    se = SqueezeExciteConfig(reduction=2).build()
    variables = random_variables(se, x)
    ge = GatherExciteConfig(mlp=True, reduction=2).build(Compute(train=True))
    np.testing.assert_array_equal(ge.apply(variables, x), se.apply(variables, x))


def test_training_takes_the_statistics_of_groups_of_the_batch(random_variables):
    x, config = images(4), GatherExciteConfig(4, "conv")
    variables = random_variables(config.build(EVALUATION), x)

    @functools.partial(jax.jit, static_argnums=1)
    def apply(x, norm_group=None):
        module = config.build(Compute(train=True, norm_group=norm_group))
        return module.apply(variables, x, mutable="batch_stats")

    groups, state = apply(x, 2)
    halves, states = zip(*[apply(half) for half in np.split(x, 2)], strict=True)
    np.testing.assert_allclose(groups, np.concatenate(halves), atol=1e-6)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *states)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, mean)
    assert not np.allclose(apply(x)[0], groups)


@pytest.mark.parametrize("size", [4, 6, 7])
def test_enlarging_copies_the_nearest_pixel(size):
    x = images(1, 3, 4)
    np.testing.assert_array_equal(nearest(jnp.asarray(x), size, 8), copies(x, size, 8))


def test_gate_is_float32_and_the_product_is_not():
    x = jnp.asarray(images(), jnp.bfloat16)
    config = GatherExciteConfig(2, "conv", mlp=True, reduction=2)
    module = config.build(Compute(train=True, dtype=jnp.bfloat16))
    y, state = jax.eval_shape(lambda: module.init_with_output(KEY, x, mutable=True))
    assert y.dtype == jnp.bfloat16
    assert state["intermediates"]["gate"][0].dtype == jnp.float32


BLOCKS, WIDTHS, MAPS = (3, 4, 6, 3), (256, 512, 1024, 2048), (56, 28, 14, 7)
"""ResNet-50: blocks, channels and side of the map of each stage."""


def over_blocks(of_block):
    return sum(n * of_block(c, m) for n, c, m in zip(BLOCKS, WIDTHS, MAPS, strict=True))


@pytest.mark.parametrize(
    ("fields", "added"),
    [
        ({}, 0),
        ({"extent": 8, "gather": "conv"}, over_blocks(lambda c, m: 3 * (9 * c + 2 * c))),
        ({"gather": "conv"}, over_blocks(lambda c, m: m * m * c + 2 * c)),
        (
            {"gather": "conv", "mlp": True},
            over_blocks(lambda c, m: m * m * c + 2 * c + 2 * c * c // 16 + c // 16 + c),
        ),
    ],
    ids=["theta-minus", "theta-8", "theta", "theta-plus"],
)
def test_parameters_of_resnet50(fields, added):
    network = create_model("resnet50", attention=GatherExciteConfig(**fields))
    assert cost(network, 224).params == 25_557_032 + added


def test_a_gather_over_the_whole_map_is_of_one_size():
    config = GatherExciteConfig(gather="conv")
    variables = config.build(Compute(train=True)).init(KEY, images())
    message = "made for maps of 9x6 pixels, not 8x6: give the network images of the size"
    with pytest.raises(UsageError, match=message):
        config.build(EVALUATION).apply(variables, images(height=8))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"extent": 3}, "extent must be 0, 2, 4 or 8, not 3"),
        ({"gather": "convolution"}, "did you mean conv"),
        ({"gate": "sigmod"}, "did you mean sigmoid"),
        ({"reduction": -1}, "reduction must be at least 0.01, not -1"),
    ],
)
def test_wrong_fields_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        GatherExciteConfig(**fields)
