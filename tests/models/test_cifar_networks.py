"""The options of the networks for CIFAR that are no ``ResNet``."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError
from flax.traverse_util import flatten_dict, unflatten_dict

from senet_jax import (
    ECAConfig,
    SelectiveKernelConfig,
    SqueezeExciteConfig,
    UsageError,
    create_model,
)
from senet_jax.attention.gates import GATES
from senet_jax.data.config import AugmentConfig
from senet_jax.interchange import from_torch, to_torch
from senet_jax.models.cost import cost
from senet_jax.models.preact_resnet import PREACT_RESNETS, PreactResNet
from senet_jax.models.shake_shake import SHAKE_SHAKES, ShakeShake
from senet_jax.training import mesh as meshes
from senet_jax.training.config import OptimizerConfig
from senet_jax.training.optimizer import make_optimizer
from senet_jax.training.state import init_state
from senet_jax.training.step import make_train_step

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


@each_one_block
def test_features_lead_to_the_logits(random_variables, model):
    x = images()
    variables = random_variables(model, x, False)
    maps = evaluate(dataclasses.replace(model, features_only=True), variables, x)
    head = variables["params"]["head"]
    logits = maps[1].mean(axis=(1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(evaluate(model, variables, x), logits, rtol=1e-4, atol=1e-5)


@each_network
@pytest.mark.parametrize("stages", [None, (2,), (3,), ()])
def test_se_stands_in_every_block_of_the_chosen_stages_and_changes_nothing_else(model, stages):
    features = {2: 16, 3: 32} if model.bottleneck else {2: 4, 3: 8}
    expected = {
        f"params/stage{stage}/block{block}/se/expand/kernel": (
            features[stage] // 2,
            features[stage],
        )
        for stage in ((2, 3) if stages is None else stages)
        for block in range(1, TINY["blocks"][stage - 2] + 1)
    }
    found = paths(dataclasses.replace(model, attention=SE, stages=stages))
    se = {path: shape for path, shape in found.items() if "/se/" in path}
    assert {path: se[path] for path in se if path.endswith("expand/kernel")} == expected
    assert len(se) == 4 * len(expected)
    assert {path: found[path] for path in found.keys() - se.keys()} == paths(model)


@each_one_block
def test_a_gate_of_one_changes_nothing(random_variables, monkeypatch, model):
    x, with_se = images(), dataclasses.replace(model, attention=SE)
    variables = random_variables(with_se, x, False)
    flat = flatten_dict(variables)
    plain = unflatten_dict({path: leaf for path, leaf in flat.items() if "se" not in path})
    expected = evaluate(model, plain, x)
    monkeypatch.setitem(GATES, "sigmoid", jnp.ones_like)
    np.testing.assert_allclose(evaluate(with_se, variables, x), expected, rtol=1e-5, atol=1e-6)


def test_any_attention_that_rescales_goes_in():
    for model in NETWORKS.values():
        found = paths(dataclasses.replace(model, attention=ECAConfig()))
        assert sum("/eca/" in path for path in found) == 3
        with pytest.raises(UsageError, match="SelectiveKernelConfig replaces the 3x3 convolution"):
            dataclasses.replace(model, attention=SelectiveKernelConfig())


@each_trained
def test_remat_changes_neither_names_nor_values_nor_gradients(random_variables, model):
    x = images()
    model = dataclasses.replace(model, dropout=0.3)
    if isinstance(model, PreactResNet):
        model = dataclasses.replace(model, block_dropout=0.3)
    remat = dataclasses.replace(model, remat=True)
    variables = random_variables(model, x, False)
    assert shapes(remat)[1] == shapes(model)[1]
    expected = gradients(model, variables, x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        gradients(remat, variables, x),
        expected,
    )
    for leaf in jax.tree.leaves(expected):
        assert np.isfinite(leaf).all()
        assert np.any(leaf != 0)
    text = str(jax.make_jaxpr(lambda tree: remat.apply(tree, x, train=False))(variables))
    assert "remat" in text
    assert cost(remat, 8) == cost(model, 8)


@each_network
def test_bfloat16_keeps_parameters_and_logits_in_float32(random_variables, model):
    x = images()
    low = dataclasses.replace(model, attention=SE, dtype=jnp.bfloat16)
    logits, variables = shapes(low)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    maps, _ = shapes(dataclasses.replace(low, features_only=True))
    assert {x.dtype for x in maps.values()} == {jnp.dtype("bfloat16")}
    variables = random_variables(low, x, False)
    train = functools.partial(
        low.apply, train=True, rngs={"dropout": KEY}, mutable=["batch_stats", "intermediates"]
    )
    _, state = jax.eval_shape(train, variables, x)
    kept = flatten_dict(state)
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
    assert sum(path[-1] == "gate" for path in kept) == 3


@pytest.mark.parametrize(
    ("model", "rate"),
    [
        (ONE_BLOCK["preact"], "dropout"),
        (ONE_BLOCK["preact"], "block_dropout"),
        # Without the shaking, which would hide what dropout does.
        (dataclasses.replace(ONE_BLOCK["shake"], forward="even", backward="even"), "dropout"),
    ],
)
def test_what_training_drops_evaluation_keeps(random_variables, model, rate):
    x = images(n=8)
    variables = random_variables(model, x, False)
    dropping = dataclasses.replace(model, **{rate: 0.5})
    np.testing.assert_array_equal(evaluate(dropping, variables, x), evaluate(model, variables, x))
    with pytest.raises(InvalidRngError):
        jax.eval_shape(lambda: dropping.apply(variables, x, train=True, mutable=["batch_stats"]))

    @jax.jit
    def train(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return dropping.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    np.testing.assert_array_equal(train(1), train(1))
    assert not np.allclose(train(1), train(2))


@each_network
@pytest.mark.parametrize(("size", "channels"), [(1, 1), (9, 4)])
def test_takes_any_channels_and_sizes(model, size, channels):
    assert shapes(model, size, channels)[0].shape == (2, 5)


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
    stats = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    step = make_train_step(model, optimizer, mesh, **stats, seed=0, augmentation=AugmentConfig())
    labels = np.arange(20) % 5
    noise = np.random.default_rng(0).integers(0, 100, (20, 6, 6, 3), np.uint8)
    # Each class has its shade.
    batch = {"image": noise + np.uint8(30) * labels.astype(np.uint8)[:, None, None, None]}
    batch["label"] = labels
    init = functools.partial(init_state, model, optimizer, image_shape=(6, 6, 3), ema=False)
    state = jax.jit(init, out_shardings=meshes.replicated(mesh))(KEY)
    losses = []
    for _ in range(20):
        state, metrics = step(state, meshes.to_devices(batch, mesh))
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all()
    assert all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.batch_stats))
    )
    assert losses[0] == pytest.approx(np.log(5), abs=0.2)
    assert np.mean(losses[-3:]) < 0.75 * losses[0]
