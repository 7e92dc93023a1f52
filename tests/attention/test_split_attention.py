import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import SqueezeExciteConfig, UsageError
from senet_jax.attention import SplitAttentionConfig
from senet_jax.ops.compute import EVALUATION, Compute

CHANNELS, FEATURES = 24, 12


def conv3x3(x, kernel):
    """Sum over the taps of shifted images, zeros beyond the border."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    )


def batch_norm(x, variables, name, channels):
    scale, bias = (variables["params"][name][key][channels] for key in ("scale", "bias"))
    mean, var = (variables["batch_stats"][name][key][channels] for key in ("mean", "var"))
    return (x - mean) / np.sqrt(var + 1e-5) * scale + bias


def share(total, parts, index):
    """Slice of the channels of one part."""
    assert total % parts == 0
    return slice(total // parts * index, total // parts * (index + 1))


def naive(variables, x, groups, radix):
    """Section 3 of the paper, one cardinal group and one split at a time."""
    params, cardinals = variables["params"], []
    hidden_width = params["reduce"]["kernel"].shape[-1]
    for k in range(groups):
        splits = []
        for r in range(radix):
            part = r * groups + k
            taken = share(CHANNELS, groups * radix, part)
            made = share(radix * FEATURES, groups * radix, part)
            y = conv3x3(x[..., taken], params["conv"]["kernel"][..., made])
            splits.append(np.maximum(batch_norm(y, variables, "bn", made), 0))
        squeezed = sum(splits).mean(axis=(1, 2))
        made = share(hidden_width, groups, k)
        hidden = squeezed @ params["reduce"]["kernel"][0, 0][:, made]
        hidden = hidden + params["reduce"]["bias"][made]
        hidden = np.maximum(batch_norm(hidden, variables, "reduce_bn", made), 0)
        logits = []
        for r in range(radix):
            made = share(radix * FEATURES, groups * radix, k * radix + r)
            logits.append(
                hidden @ params["expand"]["kernel"][0, 0][:, made] + params["expand"]["bias"][made]
            )
        if radix == 1:
            weights = [1 / (1 + np.exp(-logits[0]))]
        else:
            total = sum(np.exp(logit) for logit in logits)
            weights = [np.exp(logit) / total for logit in logits]
        cardinals.append(sum(w[:, None, None] * y for w, y in zip(weights, splits, strict=True)))
    return np.concatenate(cardinals, axis=-1)


def apply(module, variables, x):
    return jax.jit(lambda v, x: module.apply(v, x))(variables, x)


def build(random_variables, groups, radix):
    x = np.random.default_rng(1).standard_normal((2, 5, 6, CHANNELS)).astype(np.float32)
    module = SplitAttentionConfig(radix=radix, min_width=8).build_conv(
        FEATURES, EVALUATION, groups=groups
    )
    return module, random_variables(module, x), x


@pytest.mark.parametrize(("groups", "radix"), [(1, 1), (1, 2), (3, 1), (2, 2), (3, 2), (2, 3)])
def test_agrees_with_loops_over_groups_and_splits(random_variables, groups, radix):
    module, variables, x = build(random_variables, groups, radix)
    expected = naive(variables, x, groups, radix)
    np.testing.assert_allclose(apply(module, variables, x), expected, atol=2e-6)


@pytest.mark.parametrize("groups", [1, 3])
def test_radix_one_is_squeeze_and_excitation_in_each_group(random_variables, groups):
    module, variables, x = build(random_variables, groups, 1)
    params, stats = variables["params"], variables["batch_stats"]
    factor = params["reduce_bn"]["scale"] / np.sqrt(stats["reduce_bn"]["var"] + 1e-5)
    reduce_kernel = params["reduce"]["kernel"][0, 0] * factor
    reduce_bias = params["reduce"]["bias"] - stats["reduce_bn"]["mean"]
    reduce_bias = reduce_bias * factor + params["reduce_bn"]["bias"]
    hidden = reduce_bias.size // groups
    se = SqueezeExciteConfig(width=hidden).build()

    rescaled = []
    for k in range(groups):
        taken, made = share(CHANNELS, groups, k), share(FEATURES, groups, k)
        y = conv3x3(x[..., taken], params["conv"]["kernel"][..., made])
        y = np.maximum(batch_norm(y, variables, "bn", made), 0)
        inner = share(hidden * groups, groups, k)
        weights = {
            "reduce": {"kernel": reduce_kernel[:, inner], "bias": reduce_bias[inner]},
            "expand": {
                "kernel": params["expand"]["kernel"][0, 0][:, made],
                "bias": params["expand"]["bias"][made],
            },
        }
        rescaled.append(se.apply({"params": weights}, y))
    expected = np.concatenate(rescaled, axis=-1)
    np.testing.assert_allclose(apply(module, variables, x), expected, atol=2e-6)


def test_weights_of_the_splits_sum_to_one(random_variables):
    module, variables, x = build(random_variables, 2, 3)
    _, state = module.apply(variables, x, mutable="intermediates")
    gate = state["intermediates"]["gate"][0]
    assert gate.shape == (2, 1, 1, 3, FEATURES)
    np.testing.assert_allclose(gate.sum(axis=3), 1, atol=1e-6)


def test_parameters_have_the_published_names_and_shapes():
    module = SplitAttentionConfig(radix=4).build_conv(80, EVALUATION, groups=2)
    x = jnp.zeros((1, 4, 4, 80))
    params = jax.eval_shape(lambda: module.init(jax.random.key(0), x))["params"]
    shapes = {"/".join(k.key for k in path): leaf.shape for path, leaf in _leaves(params)}
    assert shapes == {
        "conv/kernel": (3, 3, 10, 320),
        "bn/scale": (320,),
        "bn/bias": (320,),
        "reduce/kernel": (1, 1, 40, 80),
        "reduce/bias": (80,),
        "reduce_bn/scale": (80,),
        "reduce_bn/bias": (80,),
        "expand/kernel": (1, 1, 40, 320),
        "expand/bias": (320,),
    }


def _leaves(tree):
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def test_hidden_width_is_whole_in_every_group():
    config = SplitAttentionConfig()
    assert config.hidden_width(64, 1) == 32
    assert config.hidden_width(512, 1) == 256
    assert dataclasses.replace(config, radix=1).hidden_width(96, 3) == 33


def test_channels_that_do_not_divide_are_refused():
    module = SplitAttentionConfig(radix=3).build_conv(64, EVALUATION)
    with pytest.raises(UsageError, match="from 64 to 64 channels cannot have 1 groups of 3 splits"):
        module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))


@pytest.mark.parametrize("fields", [{"radix": -1}, {"reduction": 0}, {"min_width": 0}])
def test_wrong_fields_are_refused(fields):
    with pytest.raises(UsageError, match=f"{next(iter(fields))} must be at least"):
        SplitAttentionConfig(**fields)


@pytest.mark.parametrize(("groups", "radix"), [pytest.param(1, 2, marks=pytest.mark.slow), (2, 4)])
def test_a_training_step_moves_no_map_outside_the_convolution(groups, radix):
    x = jnp.zeros((4, 16, 16, 16))
    module = SplitAttentionConfig(radix=radix).build_conv(16, Compute(train=True), groups=groups)
    variables = module.init(jax.random.key(0), x)

    def loss(params, x):
        y, new = module.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y)), new

    step = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    text = step.lower(variables["params"], x).compile().as_text()
    moves = re.findall(r"= (\S+) (transpose|copy|concatenate)\(.*op_name=\"([^\"]*)\"", text)
    outside = [(kind, shape) for shape, kind, name in moves if "/conv/" not in name]
    assert "transpose" not in {kind for kind, _ in outside}
    assert [shape for _, shape in outside if "16,16," in shape] == []
