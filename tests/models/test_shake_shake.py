"""Shake-Shake networks: counts, blocks and the shifted shortcut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError
from numpy_layers import conv, norm, relu, squeeze_excite

from senet_jax import SqueezeExciteConfig, UsageError, create_model
from senet_jax.models.cost import cost
from senet_jax.models.shake_shake import ShakeBlock, ShakeShake, ShiftedShortcut
from senet_jax.ops.compute import EVALUATION, Compute

SE = SqueezeExciteConfig(reduction=2)


def basic(width, se=False):
    """Parameters of a 26-layer network of ten classes, by hand."""
    total, before = 27 * 16 + 2 * 16, 16
    for features in (width, 2 * width, 4 * width):
        # Two halves of a projection are one, with one batch norm.
        total += before * features + 2 * features
        branches = 2 * 9 * (before * features + 7 * features**2) + 2 * 4 * 2 * 2 * features
        hidden = features // 16
        total += branches + (4 * (2 * features * hidden + hidden + features) if se else 0)
        before = features
    return total + 10 * before + 10


def resnext(classes, se=False):
    """Parameters of a 29-layer network of two branches of four groups, by hand."""
    total, before = 27 * 64 + 2 * 64, 64
    for width in (64, 128, 256):
        inner, features, hidden = 4 * width, 4 * width, width // 4
        total += before * features + 2 * features
        for inputs in (before, features, features):
            branch = inputs * inner + 9 * inner * inner // 4 + inner * features
            total += 2 * (branch + 2 * (2 * inner + features))
            total += 2 * features * hidden + hidden + features if se else 0
        before = features
    return total + classes * (before + 1)


@pytest.mark.parametrize(
    ("name", "fields", "expected", "published"),
    [
        ("shake_shake26_2x32d", {}, 2_923_162, 2.9),
        ("shake_shake26_2x64d", {}, basic(64), 11.7),
        ("shake_shake26_2x96d", {}, basic(96), 26.2),
        ("shake_even29_2x4x64d", {"num_classes": 10}, resnext(10), 34.4),
        ("shake_even29_2x4x64d", {}, resnext(100), None),
        ("se_shake_shake26_2x96d", {}, basic(96, se=True), None),
        ("se_shake_even29_2x4x64d", {}, resnext(100, se=True), None),
    ],
)
def test_parameters_are_the_hand_formula_and_the_published_ones(name, fields, expected, published):
    found = cost(create_model(f"cifar_{name}", **fields), 32).params
    assert found == expected
    assert published in (round(found / 1e6, 1), None)


def noise(size, channels):
    return np.random.default_rng(0).standard_normal((2, *size, channels)).astype(np.float32)


@pytest.mark.parametrize(("size", "stride"), [((6, 6), 2), ((7, 5), 2), ((4, 5), 1), ((1, 1), 2)])
def test_the_second_half_of_the_shortcut_sees_the_pixel_before(random_variables, size, stride):
    module, x = ShiftedShortcut(6, stride, EVALUATION), noise(size, 3)
    variables = random_variables(module, x)
    params, stats = variables["params"], variables["batch_stats"]
    shifted = np.zeros_like(x)
    shifted[:, 1:, 1:] = x[:, :-1, :-1]
    halves = [conv(part, params[f"conv{i}"], stride) for i, part in enumerate((x, shifted), 1)]
    expected = norm(np.concatenate(halves, -1), params["bn"], stats["bn"])
    found = jax.jit(lambda tree: module.apply(tree, x))(variables)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("bottleneck", "inputs", "stride"),
    [(False, 4, 1), (False, 6, 2), (True, 16, 1), (True, 6, 2)],
)
def test_a_block_is_the_author_s(random_variables, bottleneck, inputs, stride):
    groups = 2 if bottleneck else 1
    block = ShakeBlock(4, bottleneck, groups, "shake", "shake", SE, EVALUATION, stride)
    x = noise((6, 5), inputs)
    variables = random_variables(block, x)
    params, stats = variables["params"], variables["batch_stats"]

    def layer(x, name, index, stride=1):
        x = conv(x, params[name][f"conv{index}"], stride)
        return norm(x, params[name][f"bn{index}"], stats[name][f"bn{index}"])

    def branch(x, name):
        if bottleneck:
            x = relu(layer(x, name, 1))
            return layer(relu(layer(x, name, 2, stride)), name, 3)
        return layer(relu(layer(relu(x), name, 1, stride)), name, 2)

    y = (branch(x, "branch1") + branch(x, "branch2")) / 2
    shortcut = x
    if inputs == 6 and bottleneck:
        shortcut = layer(x, "shortcut", 1, stride)
    elif inputs == 6:
        tree = {kind: variables[kind]["shortcut"] for kind in variables}
        shortcut = ShiftedShortcut(4, stride, EVALUATION).apply(tree, jax.nn.relu(x))
    expected = shortcut + squeeze_excite(y, params["se"])
    expected = relu(expected) if bottleneck else expected
    if bottleneck:
        assert params["branch1"]["conv2"]["kernel"].shape == (3, 3, 4, 8)
    found = jax.jit(lambda tree: block.apply(tree, x))(variables)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_network_is_stem_block_relu_and_head(random_variables, bottleneck):
    # Blocks as wide as the stem, so that no projection hides its ReLU, which a ResNeXt's has.
    fields = {"blocks": (1,), "widths": (4,), "stem_width": 16 if bottleneck else 4}
    model, x = ShakeShake(**fields, bottleneck=bottleneck, num_classes=3), noise((5, 5), 3)
    variables = random_variables(model, x, False)
    params, stats = variables["params"], variables["batch_stats"]
    stem = params["stem"]
    y = norm(conv(x, stem["conv1"]), stem["bn1"], stats["stem"]["bn1"])
    y = relu(y) if bottleneck else y
    block = ShakeBlock(4, bottleneck, 1, "shake", "shake", None, EVALUATION)
    tree = {kind: variables[kind]["stage2"]["block1"] for kind in variables}
    y = jax.jit(lambda y: block.apply(tree, y))(y.astype(np.float32))
    expected = relu(np.asarray(y)).mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]
    found = jax.jit(lambda tree: model.apply(tree, x, train=False))(variables)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("forward", "backward", "value_drawn", "gradient_drawn"),
    [("shake", "even", True, False), ("even", "shake", False, True)],
)
def test_branches_are_mixed_in_training_by_the_fields(
    random_variables, forward, backward, value_drawn, gradient_drawn
):
    x = noise((5, 5), 4)
    block = ShakeBlock(4, False, 1, forward, backward, None, Compute(train=True))
    variables = random_variables(block, x)

    @jax.jit
    def train(seed):
        def loss(params):
            tree, rngs = {**variables, "params": params}, {"dropout": jax.random.key(seed)}
            y, _ = block.apply(tree, x, rngs=rngs, mutable=["batch_stats"])
            return jnp.sum(y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)), y

        grads, y = jax.grad(loss, has_aux=True)(variables["params"])
        return y, grads["branch1"]["conv2"]["kernel"]

    drawn = [not np.allclose(*pair, rtol=1e-3) for pair in zip(train(0), train(1), strict=True)]
    assert drawn == [value_drawn, gradient_drawn]


def test_training_needs_the_key_unless_nothing_is_drawn():
    fields = {"blocks": (1,), "widths": (4,), "stem_width": 4, "num_classes": 2}
    x = jnp.ones((2, 4, 4, 3))

    def train(**coefficients):
        model = ShakeShake(**fields, **coefficients)

        def forward():
            variables = model.init(jax.random.key(0), x, train=False)
            return model.apply(variables, x, train=True, mutable=["batch_stats"])[0]

        return jax.eval_shape(forward)

    assert train(forward="even", backward="even").shape == (2, 2)
    with pytest.raises(InvalidRngError):
        train()


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("shake_shake26_2x32d", {"forward": "shaky"}, "unknown forward 'shaky': did you mean sha"),
        ("shake_shake26_2x32d", {"forward": "keep"}, "unknown forward 'keep': did you mean even"),
        ("shake_shake26_2x32d", {"backward": "evn"}, "unknown backward 'evn': did you mean even"),
        ("shake_shake26_2x32d", {"cardinality": 2}, "basic blocks have no cardinality"),
        ("shake_shake26_2x32d", {"widths": (3, 6, 12)}, r"must be even, not \(3, 6, 12\)"),
        ("shake_shake26_2x32d", {"blocks": (1,)}, "differ in length"),
        ("shake_even29_2x4x64d", {"cardinality": 0}, "cardinality must be at least 1, not 0"),
    ],
)
def test_wrong_fields_are_refused(name, fields, message):
    with pytest.raises(UsageError, match=message):
        create_model(f"cifar_{name}", **fields)
