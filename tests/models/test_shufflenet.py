import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import create_model
from senet_jax.models.cost import cost
from senet_jax.models.shufflenet import Unit, channel_shuffle
from senet_jax.models.zoo import find
from senet_jax.ops.compute import EVALUATION

WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
NAMES = {f"shufflenet_v1_g{groups}": groups for groups in (1, 2, 4, 8)} | {"shufflenet_v1": 3}


@functools.cache
def cost_of(name, **fields):
    return cost(create_model(name, **fields), find(name).input_size)


def formula(groups=3, width=1.0, stem=24, se=False):
    params, before = 27 * stem + 2 * stem, stem
    for stage, units in enumerate((4, 8, 4)):
        outputs = round(WIDTHS[groups] * width) * 2**stage
        inner = outputs // 4
        for unit in range(units):
            branch = outputs - before if unit == 0 else outputs
            first = 1 if stage == unit == 0 else groups
            params += before * inner // first + 9 * inner + inner * branch // groups
            params += 2 * (inner + inner + branch)
            params += (2 * branch * (branch // 16) + branch // 16 + branch) * se
            before = outputs
    return params + (before + 1) * 1000


@pytest.mark.parametrize("name", NAMES)
def test_parameters_by_groups_are_the_hand_formula(name):
    assert cost_of(name).params == formula(NAMES[name])


# The last row of Table 1, which leaves the classifier out.
@pytest.mark.parametrize(
    ("name", "mmacs"), list(zip(NAMES, (143, 140, 133, 137, 137), strict=True))
)
def test_complexity_by_groups_is_that_of_table_1(name, mmacs):
    classifier = 4 * WIDTHS[NAMES[name]] * 1000
    assert round((cost_of(name).macs - classifier) / 1e6) == mmacs


# Complexity in Tables 2 and 5 and, of 8 groups, in the authors' repository.
@pytest.mark.parametrize(
    ("name", "fields", "stem", "mmacs"),
    [
        ("shufflenet_v1_x0_25", {"width": 0.25}, 12, 13),
        ("shufflenet_v1_x0_5", {"width": 0.5}, 12, 38),
        ("shufflenet_v1", {}, 24, 137),
        ("shufflenet_v1_x1_5", {"width": 1.5}, 24, 292),
        ("shufflenet_v1_x2", {"width": 2}, 48, 524),
        ("shufflenet_v1_g8", {"groups": 8, "width": 0.5}, 16, 40),
        ("shufflenet_v1_g8", {"groups": 8, "width": 2}, 48, 522),
    ],
)
def test_cost_by_width_is_what_is_published(name, fields, stem, mmacs):
    found = cost_of(name, **fields)
    assert found.params == formula(**fields, stem=stem)
    assert int(found.macs / 1e6 + 0.5) == mmacs


def test_exact_published_parameters():
    assert cost_of("shufflenet_v1").params == 1_865_728
    assert cost_of("se_shufflenet_v1").params == formula(se=True) == 2_484_533
    assert round(cost_of("se_shufflenet_v1").macs / 1e6) == 138


def test_maps_are_those_of_table_1():
    model = create_model("shufflenet_v1", features_only=True)
    maps = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False)[
            0
        ]
    )
    assert {stride: y.shape[1:] for stride, y in maps.items()} == {
        2: (112, 112, 24),
        4: (56, 56, 24),
        8: (28, 28, 240),
        16: (14, 14, 480),
        32: (7, 7, 960),
    }


def test_channel_shuffle_deals_the_groups_out():
    x = jnp.arange(2 * 6.0).reshape(1, 1, 2, 6)
    shuffled = channel_shuffle(x, 3)
    np.testing.assert_array_equal(shuffled[0, 0, 0], [0, 2, 4, 1, 3, 5])
    np.testing.assert_array_equal(shuffled[0, 0, 1], [6, 8, 10, 7, 9, 11])


@pytest.mark.parametrize(("channels", "groups"), [(60, 3), (48, 8), (12, 1), (12, 12)])
def test_channel_shuffle_is_undone_by_that_into_the_other_factor(channels, groups):
    x = jnp.arange(4.0 * channels).reshape(2, 2, 1, channels)
    back = channel_shuffle(channel_shuffle(x, groups), channels // groups)
    np.testing.assert_array_equal(back, x)


def test_after_the_shuffle_every_group_sees_every_group(random_variables):
    """Without it a unit would be as many separate networks as it has groups."""
    unit = Unit(36, 3, first_groups=3, stride=1, attention=None, compute=EVALUATION)
    x = jax.random.normal(jax.random.key(0), (1, 1, 1, 36))
    variables = random_variables(unit, x)
    # So that the ReLU stops nothing.
    variables["params"]["bn1"]["bias"] = jnp.full(9, 10.0)

    def branch(x):
        _, state = unit.apply(variables, x, capture_intermediates=True, mutable=["intermediates"])
        return state["intermediates"]["conv3"]["__call__"][0][0, 0, 0]

    jacobian = np.asarray(jax.jit(jax.jacrev(branch))(x))[:, 0, 0, 0]
    assert np.all(np.abs(jacobian).reshape(3, 12, 3, 12).sum((1, 3)) > 0)


@pytest.mark.parametrize(
    ("groups", "width", "channels"),
    [(2, 0.5, 104), (4, 0.5, 144), (2, 0.25, 48), (4, 0.25, 64), (8, 0.25, 96)],
)
def test_channels_are_rounded_to_multiples_for_the_groups(groups, width, channels):
    model = create_model("shufflenet_v1", groups=groups, width=width, features_only=True)
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    init = functools.partial(model.init_with_output, train=False)
    maps, _ = jax.eval_shape(init, jax.random.key(0), x)
    assert [maps[stride].shape[-1] for stride in (8, 16, 32)] == [
        channels * factor for factor in (1, 2, 4)
    ]
    assert channels % (4 * groups) == 0
