import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from senet_jax.models.branches import Conv, Fork, Path, Pool, UnitConfig, chain, follow, side_after
from senet_jax.ops.compute import EVALUATION

STEPS = (
    Conv("c", 2, 7, 2),
    Conv("c", 2, (1, 7)),
    Conv("c", 2, 3, padded=False),
    Conv("c", 2, 3, 2, padded=False),
    Pool("max"),
    Pool("avg", count_pad=False),
    Pool("max", 2),
    Pool("max", 2, ceil_mode=True),
)


class Follow(nn.Module):
    steps: Path
    config: UnitConfig = UnitConfig(EVALUATION)

    @nn.compact
    def __call__(self, x):
        return follow(self.steps, x, self.config)


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_step_knows_the_side_and_the_stride_of_its_map(step):
    for side in range(3, 12):
        x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        y, _ = jax.eval_shape(Follow((step,)).init_with_output, jax.random.key(0), x)
        assert y.shape[1:3] == (step.side(side),) * 2
    assert step.side(480) - step.side(240) == 240 // step.stride


def test_what_leaves_nothing_has_no_side():
    assert [Conv("c", 2, 3, padded=False).side(side) for side in (1, 2, 3)] == [None, None, 1]
    assert [Pool("max", 2).side(side) for side in (1, 2, 3)] == [None, None, 1]
    assert [Pool("max", 2, ceil_mode=True).side(side) for side in (1, 2, 3)] == [None, 1, 1]
    assert side_after((Pool("max", 2), Conv("c", 2)), 2) is None


def test_paths_of_different_sizes_have_no_side():
    fork = Fork(((Conv("c", 2, 3, 2),), (Pool("max", 2, ceil_mode=True),)))
    assert [side_after((fork,), side) for side in range(1, 7)] == [None, 1, None, 2, None, 3]


def test_chains_are_counted_from_one():
    assert chain("alone", (8,)) == (Conv("alone", 8),)
    assert chain("path", Pool("avg"), (4, 3), (8, (1, 7), 2, False)) == (
        Pool("avg"),
        Conv("path_2", 4, 3),
        Conv("path_3", 8, (1, 7), 2, False),
    )


@pytest.mark.parametrize("bias", [False, True])
def test_a_fork_concatenates_in_order_what_numpy_computes(random_variables, bias):
    """1x1 convolutions are matrix products; the second path forks again after a 3x3 mean."""
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32)
    inner = Fork(((Conv("third", 2),), ()))
    path = (Fork(((Conv("first", 4),), (Pool("avg"), Conv("second", 3), inner))),)
    model = Follow(path, UnitConfig(EVALUATION, use_bias=bias, epsilon=0.1))
    variables = random_variables(model, x)
    assert ("bias" in variables["params"]["first"]["conv"]) == bias

    def unit(name, x):
        params, stats = variables["params"][name], variables["batch_stats"][name]["bn"]
        y = x @ params["conv"]["kernel"][0, 0] + params["conv"].get("bias", 0)
        y = (y - stats["mean"]) / np.sqrt(stats["var"] + 0.1)
        return np.maximum(y * params["bn"]["scale"] + params["bn"]["bias"], 0)

    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    mean = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2)).mean((-1, -2))
    second = unit("second", mean)
    expected = np.concatenate([unit("first", x), unit("third", second), second], -1)
    np.testing.assert_allclose(model.apply(variables, x), expected, rtol=1e-5, atol=1e-6)
