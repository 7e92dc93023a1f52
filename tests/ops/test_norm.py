import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from senet_jax import UsageError
from senet_jax.ops.compute import Compute
from senet_jax.ops.norm import BatchNorm, running_statistics
from senet_jax.ops.target import compiled_for

RNG = np.random.default_rng(0)
X = RNG.normal(2.0, 3.0, (3, 4, 5, 2))
AXES = (0, 1, 2)


def variables():
    params = {"scale": jnp.float32([0.5, -2.0]), "bias": jnp.float32([1.0, 3.0])}
    stats = {"mean": jnp.float32([0.3, -0.4]), "var": jnp.float32([1.5, 0.7])}
    return {"params": params, "batch_stats": stats}


def close(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), found, expected
    )


def normalized(x, mean, var, params, epsilon=1e-5):
    y = (x - np.asarray(mean)) / np.sqrt(np.asarray(var) + epsilon)
    return y * np.asarray(params["scale"]) + np.asarray(params["bias"])


def test_training_uses_the_biased_statistics_of_the_batch():
    state = variables()
    y, _ = BatchNorm(True).apply(state, jnp.float32(X), mutable=["batch_stats"])
    expected = normalized(X, X.mean(AXES), X.var(AXES), state["params"])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_running_statistics_keep_nine_tenths_of_themselves():
    state = variables()
    _, new = BatchNorm(True).apply(state, jnp.float32(X), mutable=["batch_stats"])
    for name, batch in (("mean", X.mean(AXES)), ("var", X.var(AXES))):
        expected = 0.9 * np.asarray(state["batch_stats"][name]) + 0.1 * batch
        np.testing.assert_allclose(new["batch_stats"][name], expected, rtol=1e-5)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_evaluation_uses_the_running_statistics_and_keeps_them(epsilon):
    state = variables()
    y, new = BatchNorm(False, epsilon=epsilon).apply(state, jnp.float32(X), mutable=["batch_stats"])
    expected = normalized(X, *state["batch_stats"].values(), state["params"], epsilon)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    for name, before in state["batch_stats"].items():
        np.testing.assert_array_equal(new["batch_stats"][name], before)


@pytest.mark.parametrize("zero_scale", [False, True])
def test_scale_starts_at_one_or_at_zero(zero_scale):
    module = Compute(train=True).norm(zero_scale=zero_scale)
    y, state = module.init_with_output(jax.random.key(0), jnp.float32(X))
    np.testing.assert_array_equal(state["params"]["scale"], np.full(2, float(not zero_scale)))
    np.testing.assert_array_equal(state["params"]["bias"], np.zeros(2))
    assert (np.abs(y).max() == 0) == zero_scale


def test_statistics_of_bfloat16_are_float32():
    low = jnp.bfloat16(X)
    y, new = BatchNorm(True, dtype=jnp.bfloat16).apply(variables(), low, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    mean, old = new["batch_stats"]["mean"], variables()["batch_stats"]["mean"]
    assert mean.dtype == jnp.float32
    expected = 0.9 * np.asarray(old) + 0.1 * np.float64(low).mean(AXES)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)


def test_agrees_with_flax_in_value_statistics_and_gradient():
    state, x = variables(), jnp.float32(X)
    other = nn.BatchNorm(use_running_average=False, momentum=0.9)

    def loss(module, params, x):
        y, new = module.apply({**state, "params": params}, x, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y)), (y, new)

    found, expected = (
        jax.jit(jax.value_and_grad(functools.partial(loss, m), argnums=(0, 1), has_aux=True))(
            state["params"], x
        )
        for m in (BatchNorm(True), other)
    )
    close(found, expected)


def test_running_statistics_are_the_mean_of_those_of_the_groups():
    rng = np.random.default_rng(1)
    x, state = rng.normal(rng.normal(0, 5, (6, 1, 1, 2)), 2, (6, 4, 5, 2)), variables()
    y, new = BatchNorm(True, group=2).apply(state, jnp.float32(x), mutable=["batch_stats"])
    parts = np.split(x, 3)
    expected = [normalized(p, p.mean(AXES), p.var(AXES), state["params"]) for p in parts]
    np.testing.assert_allclose(y, np.concatenate(expected), rtol=1e-4, atol=1e-5)
    for name, moment in (("mean", np.mean), ("var", np.var)):
        batch = np.mean([moment(p, AXES) for p in parts], axis=0)
        running = 0.9 * np.asarray(state["batch_stats"][name]) + 0.1 * batch
        np.testing.assert_allclose(new["batch_stats"][name], running, rtol=1e-5)


def test_groups_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(UsageError, match="a batch of 3 cannot be divided into groups of 2"):
        BatchNorm(True, group=2).apply(variables(), jnp.float32(X), mutable=["batch_stats"])


class _Block(nn.Module):
    group: int | None = None

    @nn.compact
    def __call__(self, x, train):
        return BatchNorm(train, group=self.group, name="bn1")(x)


@pytest.mark.parametrize(
    ("shape", "group"), [((1, 2), None), ((1, 1, 1, 2), None), ((4, 2), 1), ((4, 1, 1, 2), 1)]
)
def test_statistics_of_a_single_value_are_refused(shape, group):
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return _Block(group, name="block2")(x, train)

    x, network = jnp.ones(shape), Network()
    state = network.init(jax.random.key(0), x, train=True)
    network.apply(state, x, train=False)
    with pytest.raises(UsageError, match="the batch norm block2/bn1 needs more than one value"):
        jax.eval_shape(lambda: network.apply(state, x, train=True, mutable=["batch_stats"]))


@pytest.mark.parametrize(
    ("shape", "group"), [((2, 2), None), ((1, 1, 2, 2), None), ((4, 2), 2), ((4, 2, 1, 2), 1)]
)
def test_two_values_are_enough(shape, group):
    block, x = _Block(group), jnp.ones(shape)
    state = block.init(jax.random.key(0), x, train=True)
    jax.eval_shape(lambda: block.apply(state, x, train=True, mutable=["batch_stats"]))


@pytest.mark.parametrize("group", [None, 1])
def test_a_gate_is_applied_as_if_after_the_norm(group):
    weights = jnp.float32(np.random.default_rng(2).standard_normal((2, 2)))

    def joined(state, x):
        module = BatchNorm(True, group=group)
        return module.apply(
            state, x, lambda mean: jax.nn.sigmoid(mean @ weights), mutable=["batch_stats"]
        )

    def apart(state, x):
        y, new = BatchNorm(True, group=group).apply(state, x, mutable=["batch_stats"])
        return y * jax.nn.sigmoid(y.mean((1, 2)) @ weights)[:, None, None], new

    def both(function):
        def loss(params, x):
            y, new = function({**variables(), "params": params}, x)
            return jnp.sum(jnp.sin(y)), (y, new)

        run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        return run(variables()["params"], jnp.float32(X))

    close(both(joined), both(apart))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("group", [None, 2, 1])
def test_the_form_for_gpus_is_equal_to_that_for_cpus(group, gated, relu, dtype):
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(2.0, 3.0, (4, 5, 9, 2)), dtype)
    weights = jnp.float32(rng.standard_normal((2, 2)))
    cotangent = jnp.asarray(rng.standard_normal(x.shape), dtype)

    def loss(params, x):
        module = BatchNorm(True, group=group)
        gate = (lambda mean: jax.nn.sigmoid(mean @ weights)) if gated else None
        variables_ = {**variables(), "params": params}
        y, new = module.apply(variables_, x, gate, relu=relu, mutable=["batch_stats"])
        return jnp.sum(y.astype(jnp.float32) * cotangent.astype(jnp.float32)), (y, new)

    def run(target):
        with compiled_for(target):
            traced = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
            return traced(variables()["params"], x)

    # A result can differ in the last bit of bfloat16 if the sums round differently.
    relative = 2e-5 if dtype == jnp.float32 else 2**-7
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.float64(a), np.float64(b), rtol=relative, atol=relative
        ),
        run("gpu"),
        run("cpu"),
    )


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_both_forms_treat_nan_and_inf_alike(number):
    x = jnp.float32(X).at[1, 2, 3, 0].set(number)

    def run(target):
        def loss(x):
            return BatchNorm(True).apply(variables(), x, relu=True, mutable=["batch_stats"])

        with compiled_for(target):
            (y, new), back = jax.vjp(loss, x)
            return y, new, back((jnp.ones_like(y), jax.tree.map(jnp.zeros_like, new)))

    found, expected = run("gpu"), run("cpu")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), found, expected
    )
    assert np.isnan(found[0][..., 0]).all()
    assert np.isfinite(found[0][..., 1]).all()


def test_a_large_running_mean_costs_no_accuracy():
    x, state = jnp.float32(1e4 + RNG.standard_normal((4, 16, 16, 2))), variables()
    params = state["params"]
    expected = normalized(
        np.float64(x), *(f(np.float64(x), AXES) for f in (np.mean, np.var)), params
    )
    for target, mean in (("cpu", 0.0), ("gpu", 9_999.0)):
        state["batch_stats"]["mean"] = jnp.full(2, mean)
        with compiled_for(target):
            y, _ = BatchNorm(True).apply(state, x, mutable=["batch_stats"])
        np.testing.assert_allclose(y, expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("train", [False, True])
def test_a_relu_is_part_of_the_result(train):
    state, x = variables(), jnp.float32(X)
    for target in ("cpu", "gpu"):
        with compiled_for(target):
            y, found = (
                BatchNorm(train).apply(state, x, relu=relu, mutable=["batch_stats"])[0]
                for relu in (False, True)
            )
        np.testing.assert_array_equal(found, np.maximum(y, 0))
        assert (np.asarray(y) < 0).any()


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_groups_of_a_device_need_no_word_from_the_others(target):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    x = jnp.float32(np.random.default_rng(3).normal(2, 3, (16, 4, 16, 2)))

    def of(group):
        def function(x):
            module = BatchNorm(True, group=group)
            return jax.grad(
                lambda x: jnp.sum(jnp.sin(module.apply(variables(), x, mutable=["batch_stats"])[0]))
            )(x)

        compiled = jax.jit(function, in_shardings=rows, out_shardings=rows).lower(x).compile()
        text = compiled.as_text()
        found = compiled(jax.device_put(x, rows))
        np.testing.assert_allclose(found, jax.jit(function)(x), rtol=1e-4, atol=1e-5)
        return [name for name in COLLECTIVES if f" {name}(" in text]

    with compiled_for(target):
        assert of(2) == []
        assert of(1) == []
        assert of(None) == ["all-reduce"]


COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


@pytest.mark.parametrize("relu", [False, True])
def test_running_statistics_in_training_with_a_gate(random_variables, relu):
    x = np.random.default_rng(0).standard_normal((3, 4, 5, 6)).astype(np.float32)
    variables = random_variables(BatchNorm(train=True), x)

    def gate(means):
        return jax.nn.sigmoid(means)

    plain = BatchNorm(train=False).apply(variables, x)
    expected = plain * gate(plain.mean((1, 2)))[:, None, None]
    with running_statistics():
        found, state = BatchNorm(train=True).apply(
            variables, x, gate, relu=relu, mutable=["batch_stats"]
        )
        same = BatchNorm(train=True).apply(variables, x)
    np.testing.assert_allclose(found, np.maximum(expected, 0) if relu else expected, rtol=1e-5)
    np.testing.assert_array_equal(same, plain)
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"])
    changed, _ = BatchNorm(train=True).apply(variables, x, mutable=["batch_stats"])
    assert np.abs(changed - plain).max() > 0.1


@pytest.mark.parametrize("group", [None, 2])
def test_samples_that_do_not_count_are_no_part_of_the_statistics(group):
    state = variables()
    x = RNG.normal(2.0, 3.0, (4, 4, 5, 2))
    x[1], x[3] = np.nan, 1e6
    counts = jnp.array([True, False, True, False])

    def run(x):
        def loss(x, params):
            y, new = BatchNorm(True, group=group).apply(
                {**state, "params": params}, x, counts=counts, mutable=["batch_stats"]
            )
            return jnp.where(counts[:, None, None, None], y, 0), new["batch_stats"]

        return loss(x, state["params"])

    y, stats = jax.jit(run)(jnp.float32(x))
    parts = [x[[0, 2]]] if group is None else [x[[0]], x[[2]]]
    moments = [(part.mean(AXES), part.var(AXES)) for part in parts]
    expected = np.concatenate(
        [normalized(part, *own, state["params"]) for part, own in zip(parts, moments, strict=True)]
    )
    np.testing.assert_allclose(y[jnp.array([0, 2])], expected, rtol=1e-4, atol=1e-4)
    for name, batch in zip(("mean", "var"), np.mean(moments, 0), strict=True):
        kept = 0.9 * np.asarray(state["batch_stats"][name]) + 0.1 * batch
        np.testing.assert_allclose(stats[name], kept, rtol=1e-5)


def test_statistics_without_a_sample_stay():
    state = variables()
    y, new = BatchNorm(True).apply(
        state, jnp.float32(X), counts=jnp.zeros(3, bool), mutable=["batch_stats"]
    )
    assert np.isfinite(y).all()
    close(new["batch_stats"], state["batch_stats"])


def test_a_frozen_norm_may_be_constant_and_have_its_own_epsilon():
    state = variables()

    def loss(params, **how):
        with running_statistics(**how):
            y = BatchNorm(True).apply({**state, "params": params}, jnp.float32(X))
        return jnp.sum(y**2), y

    gradients, y = jax.grad(loss, has_aux=True)(state["params"], constant=True, epsilon=0.5)
    close(y, normalized(X, *state["batch_stats"].values(), state["params"], 0.5))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients))
    gradients, _ = jax.grad(loss, has_aux=True)(state["params"])
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradients))
