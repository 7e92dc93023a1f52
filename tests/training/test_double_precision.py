"""With the 64 bits of jax, training computes in double precision, its constants too."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from senet_jax.config import OptimizerConfig
from senet_jax.data.config import AugmentConfig
from senet_jax.data.normalization import Normalization
from senet_jax.models.resnet import SE, ResNet
from senet_jax.network import Network
from senet_jax.tasks.classification import Classification
from senet_jax.training.distributed.mesh import make_mesh
from senet_jax.training.optimizer import make_optimizer, make_schedule
from senet_jax.training.state import draw_variables, state_of
from senet_jax.training.step import key_data, make_train_step


def precisions(jaxpr):
    """The types of the numbers that a program computes."""
    found = {str(var.aval.dtype) for eqn in jaxpr.eqns for var in eqn.outvars}
    inner = (each for eqn in jaxpr.eqns for each in core.jaxprs_in_params(eqn.params))
    return found.union(*map(precisions, inner))


def traced_step(dtype):
    """The program of a step with all that training has."""
    model = ResNet(
        blocks=(1,),
        widths=(4,),
        stem="cifar",
        stem_width=4,
        bottleneck=False,
        attention=dataclasses.replace(SE, reduction=2),
        num_classes=10,
        dropout=0.1,
        drop_block=0.1,
    )
    config = OptimizerConfig(warmup_epochs=1, clip_norm=1.0)
    optimizer = make_optimizer(config, make_schedule(config, 10, 4), body_rate=0.1)

    def initial():
        drawn = draw_variables(model, jax.random.key(0), (8, 8, 3))
        return state_of(jax.tree.map(lambda x: x.astype(dtype), drawn), optimizer, ema=True)

    step = make_train_step(
        Classification(0.1, AugmentConfig(mixup=0.2, cutmix=1.0)),
        Network(model, Normalization((0.5,) * 3, (0.25,) * 3), make_mesh(1)),
        optimizer,
        ema_decay=0.9999,
        drop_block_steps=40,
    )
    batch = {
        "image": jax.ShapeDtypeStruct((4, 8, 8, 3), dtype),
        "label": jax.ShapeDtypeStruct((4,), np.int32),
    }
    return step.trace(jax.eval_shape(initial), batch, key_data(0)).jaxpr.jaxpr


def test_a_step_in_float64_computes_nothing_in_float32():
    assert "float32" in precisions(traced_step(np.float32))
    with jax.enable_x64(True):
        found = precisions(traced_step(np.float64))
    assert "float64" in found
    assert not {"float32", "bfloat16", "float16"} & found


def rate(schedule, step):
    """The rate that schedules of 40 steps with the peak 0.1 have, 10 of them of warm-up."""
    if step < 10:
        return 0.1 * step / 10
    return {
        "cosine": 0.05 * (1 + math.cos(math.pi * (step - 10) / 30)),
        "polynomial": 0.1 * (1 - (step - 10) / 30) ** 2,
        "step": 0.1 if step < 12 else 0.01,
        "plateau": 0.1,
    }[schedule]


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "step", "plateau"])
def test_updates_in_float64_are_the_formula_in_float64(schedule):
    milestones = (1.2,) if schedule == "step" else ()
    config = OptimizerConfig(schedule=schedule, warmup_epochs=1, milestones=milestones)
    grad = np.array([0.3, -0.7])
    value, velocity = np.array([1.0, -2.0]), np.zeros(2)
    with jax.enable_x64(True):
        optimizer = make_optimizer(config, make_schedule(config, 10, 4))
        values = {"kernel": jnp.asarray(value)}
        state, update = optimizer.init(values), jax.jit(optimizer.update)
        for step in range(15):
            updates, state = update({"kernel": jnp.asarray(grad)}, state, values)
            values = jax.tree.map(jnp.add, values, updates)
            own = grad + 1e-4 * value
            velocity = 0.9 * velocity + own
            value = value - rate(schedule, step) * (own + 0.9 * velocity)
            np.testing.assert_allclose(values["kernel"], value, rtol=0, atol=1e-15)
