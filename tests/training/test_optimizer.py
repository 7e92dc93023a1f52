import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from senet_jax.config import OptimizerConfig
from senet_jax.errors import UsageError
from senet_jax.models.zoo import create_model
from senet_jax.tasks.base import is_kernel
from senet_jax.training.optimizer import (
    OPTIMIZERS,
    check_schedule,
    make_optimizer,
    make_schedule,
    observe_validation,
    plateau_scale,
    scaled_to,
)


def test_cosine_after_a_linear_warmup():
    config = OptimizerConfig(learning_rate=0.4, warmup_epochs=2)
    rate = make_schedule(config, steps_per_epoch=10, epochs=10)
    assert rate(0) == 0
    assert rate(5) == pytest.approx(0.1)
    assert rate(20) == pytest.approx(0.4)
    assert rate(60) == pytest.approx(0.2, rel=1e-5)
    assert rate(80) == pytest.approx(0.2 * (1 + math.cos(math.pi * 60 / 80)), rel=1e-5)
    assert rate(100) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("warmup", [0, 1])
def test_steps_at_the_milestones(warmup):
    config = OptimizerConfig(
        learning_rate=1.0, schedule="step", milestones=(3, 5.5), warmup_epochs=warmup
    )
    rate = make_schedule(config, steps_per_epoch=10, epochs=8)
    rates = [float(rate(step)) for step in (29, 30, 54, 55, 79)]
    assert rates == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("fields", "steps_per_epoch", "epochs", "message"),
    [
        ({}, 2**21, 2**10, "at most 2,147,483,647 can be counted"),
        ({"warmup_epochs": 0.9}, 1, 1, "are all of the 1 steps"),
        ({"schedule": "step", "milestones": (2, 2.01)}, 10, 5, r"are the steps \[20, 20\]"),
        ({"schedule": "step", "milestones": (4.99,)}, 10, 5, r"before the end \(50\)"),
        ({"schedule": "step", "milestones": (0.01,)}, 10, 5, "steps apart"),
    ],
)
def test_a_schedule_that_steps_cannot_follow_is_refused(fields, steps_per_epoch, epochs, message):
    config = OptimizerConfig(**fields)
    with pytest.raises(UsageError, match=message):
        check_schedule(config, steps_per_epoch, epochs)


def test_a_schedule_that_steps_can_follow_is_taken():
    check_schedule(OptimizerConfig(), 2**21, 2**10 - 1)
    step = OptimizerConfig(schedule="step", warmup_epochs=0.1, milestones=(0.2, 4.9))
    check_schedule(step, 10, 5)


def test_kernels_decay_and_nothing_else():
    model = create_model("cifar_seresnet8")
    images = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    paths = traverse_util.flatten_dict(shapes["params"])
    names = {path[-1]: is_kernel(path) for path in paths}
    assert names == {"kernel": True, "bias": False, "scale": False}


def test_the_task_says_what_decays_and_what_the_head_is():
    config = OptimizerConfig(learning_rate=1.0, momentum=0.0, nesterov=False, weight_decay=0.5)
    optimizer = make_optimizer(
        config,
        lambda step: 1.0,
        body_rate=0.1,
        head=("bias",),
        decays=lambda path: path == ("bias",),
    )
    zero = jax.tree.map(jnp.zeros_like, GRADS)
    updates, _ = optimizer.update(zero, optimizer.init(params()), params())
    # Only the bias decays, by half of itself, and it is the head.
    np.testing.assert_allclose(updates["kernel"], [0.0, 0.0])
    np.testing.assert_allclose(updates["bias"], [-1.5])
    updates, _ = optimizer.update(GRADS, optimizer.init(params()), params())
    np.testing.assert_allclose(updates["kernel"], [-0.03, -0.04], rtol=1e-6)


def params():
    return {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}


GRADS = {"kernel": jnp.array([0.3, 0.4]), "bias": jnp.array([1.2])}


def two_steps(config):
    optimizer = make_optimizer(config, make_schedule(config, 10, 10))
    values, state = params(), None
    state = optimizer.init(values)
    for _ in range(2):
        updates, state = optimizer.update(GRADS, state, values)
        values = jax.tree.map(jnp.add, values, updates)
    return values


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_that_of_pytorch(nesterov):
    config = OptimizerConfig(
        schedule="step", milestones=(9,), weight_decay=0.1, nesterov=nesterov, momentum=0.9
    )
    got = two_steps(config)
    for name, decay in (("kernel", 0.1), ("bias", 0.0)):
        value, velocity = np.array(params()[name]), 0.0
        for _ in range(2):
            grad = np.array(GRADS[name]) + decay * value
            velocity = 0.9 * velocity + grad
            value = value - 0.1 * (grad + 0.9 * velocity if nesterov else velocity)
        np.testing.assert_allclose(got[name], value, rtol=1e-6)


def test_adamw_decays_apart_from_the_gradient():
    config = OptimizerConfig(
        name="adamw", schedule="step", milestones=(9,), weight_decay=0.1, learning_rate=0.01
    )
    got = two_steps(config)
    # With a constant gradient every Adam step is the learning rate times its sign.
    kernel, bias = np.array(params()["kernel"]), np.array(params()["bias"])
    for _ in range(2):
        kernel = kernel - 0.01 * (1 + 0.1 * kernel)
        bias = bias - 0.01
    np.testing.assert_allclose(got["kernel"], kernel, rtol=1e-5)
    np.testing.assert_allclose(got["bias"], bias, rtol=1e-5)


def test_lars_gives_kernels_a_rate_by_their_norm_and_biases_none():
    config = OptimizerConfig(
        name="lars",
        schedule="step",
        milestones=(9,),
        weight_decay=0.1,
        trust_coefficient=0.02,
        nesterov=False,
    )
    got = two_steps(config)
    value, velocity = np.array(params()["kernel"]), 0.0
    for _ in range(2):
        grad = np.array(GRADS["kernel"]) + 0.1 * value
        local = 0.02 * np.linalg.norm(value) / np.linalg.norm(grad)
        velocity = 0.9 * velocity + 0.1 * local * grad
        value = value - velocity
    np.testing.assert_allclose(got["kernel"], value, rtol=1e-5)
    # The bias: two steps of plain momentum.
    np.testing.assert_allclose(got["bias"], 3.0 - 0.1 * 1.2 * (1 + 1.9), rtol=1e-6)


def test_lamb_scales_kernels_by_their_norm_and_no_biases():
    config = OptimizerConfig(
        name="lamb", schedule="step", milestones=(9,), weight_decay=0.1, learning_rate=0.01
    )
    got = two_steps(config)
    # With a constant gradient every Adam step is its sign.
    kernel = np.array(params()["kernel"])
    for _ in range(2):
        update = 1 + 0.1 * kernel
        kernel = kernel - 0.01 * np.linalg.norm(kernel) / np.linalg.norm(update) * update
    np.testing.assert_allclose(got["kernel"], kernel, rtol=1e-5)
    np.testing.assert_allclose(got["bias"], 3.0 - 0.02, rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
@pytest.mark.parametrize("eps", [None, 0.5])
def test_the_constants_of_adam_are_those_of_the_config(name, eps):
    fields = {"b1": 0.5, "b2": 0.75, "eps": eps, "weight_decay": 0.0, "learning_rate": 0.01}
    config = OptimizerConfig(name=name, schedule="step", milestones=(9,), **fields)
    optimizer = make_optimizer(config, make_schedule(config, 10, 10))
    values = {"bias": jnp.array([3.0])}
    state, expected, mean, square = optimizer.init(values), 3.0, 0.0, 0.0
    eps = eps or {"adamw": 1e-8, "lamb": 1e-6}[name]
    for step, grad in enumerate((1.2, -0.3, 0.4), 1):
        updates, state = optimizer.update({"bias": jnp.array([grad])}, state, values)
        values = jax.tree.map(jnp.add, values, updates)
        mean, square = 0.5 * mean + 0.5 * grad, 0.75 * square + 0.25 * grad**2
        corrected = mean / (1 - 0.5**step), square / (1 - 0.75**step)
        expected -= 0.01 * corrected[0] / (math.sqrt(corrected[1]) + eps)
    np.testing.assert_allclose(values["bias"], expected, rtol=1e-6)


def test_every_optimizer_of_the_config_is_in_the_table():
    assert {*OPTIMIZERS} == {*typing.get_args(typing.get_type_hints(OptimizerConfig)["name"])}


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_polynomial_of_the_share_of_steps_left(power):
    config = OptimizerConfig(learning_rate=0.4, schedule="polynomial", power=power, warmup_epochs=2)
    rate = make_schedule(config, steps_per_epoch=10, epochs=10)
    assert rate(10) == pytest.approx(0.2)
    assert rate(20) == pytest.approx(0.4)
    assert rate(40) == pytest.approx(0.4 * (3 / 4) ** power)
    assert rate(100) == pytest.approx(0, abs=1e-7)


def test_the_gradient_is_clipped_to_its_global_norm():
    config = OptimizerConfig(
        schedule="step", milestones=(9,), weight_decay=0, momentum=0, nesterov=False, clip_norm=0.13
    )
    optimizer = make_optimizer(config, make_schedule(config, 10, 10))
    updates, _ = optimizer.update(GRADS, optimizer.init(params()), params())
    # The norm of the gradient is 1.3.
    for name, grad in GRADS.items():
        np.testing.assert_allclose(updates[name], -0.1 * 0.1 * grad, rtol=1e-5)


@pytest.mark.parametrize(
    ("base", "batch", "expected"), [(None, 64, 0.6), (1024, 1024, 0.6), (1024, 256, 0.15)]
)
def test_the_rate_is_scaled_with_the_batch(base, batch, expected):
    config = OptimizerConfig(learning_rate=0.6, base_batch=base, warmup_epochs=1)
    rate = make_schedule(scaled_to(config, batch), steps_per_epoch=10, epochs=5)
    assert rate(10) == pytest.approx(expected)
    assert rate(5) == pytest.approx(expected / 2)


LOSSES = [3.0, 2.0, 2.0, 1.9999, 2.1, 1.0, 1.0, 1.0, 1.5, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]


@pytest.mark.parametrize("frozen", [(), ("bias",)])
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_a_plateau_scales_the_updates(patience, frozen):
    config = OptimizerConfig(
        schedule="plateau", patience=patience, max_drops=2, decay=0.5, weight_decay=0, momentum=0
    )
    optimizer = make_optimizer(config, make_schedule(config, 10, 10), frozen=frozen)
    state = optimizer.init(params())
    best, waited, scale = math.inf, 0, 1.0
    for loss in LOSSES:
        state = observe_validation(config, state, loss)
        fell = loss < best * (1 - 1e-4)
        best, waited = (loss, 0) if fell else (best, waited + 1)
        if waited == patience:
            scale, waited = max(scale / 2, 0.25), 0
        assert plateau_scale(config, state) == scale
        updates, state = optimizer.update(GRADS, state, params())
        np.testing.assert_allclose(updates["kernel"], -0.1 * scale * GRADS["kernel"], rtol=1e-6)
        bias = 0.0 if frozen else -0.1 * scale * GRADS["bias"]
        np.testing.assert_allclose(updates["bias"], bias, rtol=1e-6)
    assert scale < 1


def test_a_plateau_can_be_saved_before_the_first_validation():
    config = OptimizerConfig(schedule="plateau")
    state = make_optimizer(config, make_schedule(config, 10, 10)).init(params())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_other_schedules_know_no_plateau():
    config = OptimizerConfig()
    state = make_optimizer(config, make_schedule(config, 10, 10)).init(params())
    assert observe_validation(config, state, 1.0) is state
    assert plateau_scale(config, state) == 1
