"""The options of the networks for CIFAR that are no ``ResNet``."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from senet_jax import (
    SqueezeExciteConfig,
    UsageError,
    create_model,
)
from senet_jax.config import OptimizerConfig
from senet_jax.data.normalization import Normalization
from senet_jax.interchange import from_torch, to_torch
from senet_jax.models.preact_resnet import PREACT_RESNETS, PreactResNet
from senet_jax.models.shake_shake import SHAKE_SHAKES, ShakeShake
from senet_jax.network import Network
from senet_jax.tasks.classification import Classification
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.optimizer import make_optimizer
from senet_jax.training.state import init_state
from senet_jax.training.step import key_data, make_train_step

TINY = {"blocks": (1, 2), "widths": (4, 8), "stem_width": 4, "num_classes": 5}
NETWORKS = {
    "preact": PreactResNet(**TINY),
    "preact bottleneck": PreactResNet(**TINY, bottleneck=True),
    "shake": ShakeShake(**TINY),
    "shake bottleneck": ShakeShake(**TINY, bottleneck=True, cardinality=2, backward="even"),
}
SE = SqueezeExciteConfig(reduction=2)
KEY = jax.random.key(0)

ONE_BLOCK = {
    name: dataclasses.replace(model, blocks=(1,), widths=(4,)) for name, model in NETWORKS.items()
}
each_network = pytest.mark.parametrize("model", NETWORKS.values(), ids=NETWORKS)
each_one_block = pytest.mark.parametrize("model", ONE_BLOCK.values(), ids=ONE_BLOCK)
each_trained = pytest.mark.parametrize(
    "model",
    [
        pytest.param(
            dataclasses.replace(model, attention=SE),
            id=name,
            marks=[pytest.mark.slow] if model.bottleneck else [],
        )
        for name, model in ONE_BLOCK.items()
    ],
)


def images(size=6, channels=3, n=4):
    rng = np.random.default_rng(size)
    return rng.standard_normal((n, size, size, channels)).astype(np.float32)


def shapes(model, size=8, channels=3):
    x = jnp.zeros((2, size, size, channels))
    return jax.eval_shape(lambda: model.init_with_output(KEY, x, train=False))


def paths(model):
    flat = flatten_dict(shapes(model)[1], sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


def evaluate(model, variables, x):
    return jax.jit(lambda variables: model.apply(variables, x, train=False))(variables)


def gradients(model, variables, x, seed=7):
    def loss(params):
        logits, state = model.apply(
            {**variables, "params": params},
            x,
            train=True,
            rngs={"dropout": jax.random.key(seed)},
            mutable=["batch_stats"],
        )
        return jnp.sum(logits**2), state

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


@pytest.mark.parametrize("size", [32, 27])
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("preact_resnet164", (64, 128, 256)),
        ("wrn16_8", (128, 256, 512)),
        ("shake_shake26_2x96d", (96, 192, 384)),
        ("shake_even29_2x4x64d", (256, 512, 1024)),
    ],
)
def test_features_are_the_maps_of_every_stride(name, channels, size):
    plain = create_model(f"cifar_{name}", blocks=(1, 1, 1))
    maps, variables = shapes(dataclasses.replace(plain, features_only=True), size)
    sides = {1: size, 2: -(-size // 2), 4: -(-size // 4)}
    assert {stride: x.shape[1] for stride, x in maps.items()} == sides
    assert tuple(x.shape[-1] for x in maps.values()) == channels
    expected = shapes(plain, size)[1]
    del expected["params"]["head"]
    assert variables == expected


@pytest.mark.parametrize("name", ["cifar_wrn16_8", "cifar_shake_shake26_2x32d"])
def test_what_is_no_batch_of_float_images_is_refused(name):
    for x in (jnp.zeros((8, 8, 3)), jnp.zeros((1, 8, 8, 3), jnp.uint8)):
        with pytest.raises(UsageError, match="images must be"):
            create_model(name).init(KEY, x, train=False)


@pytest.mark.parametrize("name", [*PREACT_RESNETS, *SHAKE_SHAKES])
def test_weights_go_out_and_come_back(name):
    fields = {"blocks": (1, 1, 2), "widths": (4, 8, 12), "stem_width": 4}
    if "_se_" in name:
        fields["attention"] = SE
    leaves = shapes(create_model(name, **fields))[1]
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), leaves)
    state_dict = to_torch(name, variables, **fields)
    assert "stage4.block2.bn1.weight" in state_dict or (
        "stage4.block2.branch2.bn1.running_var" in state_dict
    )
    jax.tree.map(np.testing.assert_array_equal, from_torch(name, state_dict, **fields), variables)


@each_trained
def test_the_loss_falls_on_a_batch_that_is_repeated(model):
    mesh = meshes.make_mesh(1)
    optimizer = make_optimizer(OptimizerConfig(), lambda step: 0.1)
    network = Network(model, Normalization((0.5,) * 3, (0.25,) * 3), mesh)
    step = make_train_step(Classification(), network, optimizer)
    labels = np.arange(20) % 5
    noise = np.random.default_rng(0).integers(0, 100, (20, 6, 6, 3), np.uint8)
    # Each class has its shade.
    batch = {"image": noise + np.uint8(30) * labels.astype(np.uint8)[:, None, None, None]}
    batch["label"] = labels
    init = functools.partial(init_state, model, optimizer, image_shape=(6, 6, 3), ema=False)
    state = jax.jit(init, out_shardings=meshes.replicated(mesh))(KEY)
    losses = []
    for _ in range(20):
        state, metrics = step(state, meshes.to_devices(batch, mesh), key_data(0))
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all()
    assert all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.batch_stats))
    )
    assert losses[0] == pytest.approx(np.log(5), abs=0.2)
    assert np.mean(losses[-3:]) < 0.75 * losses[0]
