import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from senet_jax.config import MeshConfig
from senet_jax.data.config import AugmentConfig
from senet_jax.data.normalization import Normalization
from senet_jax.errors import UsageError
from senet_jax.network import normalize
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.run import Run
from senet_jax.training.step import key_data, make_train_step


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def first_step(config):
    run = Run(config)
    batch = meshes.to_devices(run.batches[0][0], run.mesh)
    return run, run.train_step(run.fresh_state(), batch)


def test_a_step_is_the_same_on_one_device_and_on_eight(tiny):
    # Plain SGD of rate 1, so that the update is the gradient itself.
    optimizer = dataclasses.replace(
        tiny.optimizer, learning_rate=1.0, warmup_epochs=0, momentum=0, nesterov=False
    )
    tiny = dataclasses.replace(tiny, optimizer=optimizer)
    one, (state, metrics) = first_step(tiny)
    eight, (state8, metrics8) = first_step(dataclasses.replace(tiny, mesh=MeshConfig(data=8)))
    assert (one.mesh.size, eight.mesh.size) == (1, 8)
    for name in metrics:
        assert float(metrics[name]) == pytest.approx(float(metrics8[name]), rel=1e-5)
    before = one.fresh_state()
    for start, a, b in zip(
        leaves(before.params), leaves(state.params), leaves(state8.params), strict=True
    ):
        assert not np.array_equal(a, start)
        np.testing.assert_allclose(start - b, start - a, rtol=1e-4, atol=1e-6)
    for a, b in zip(leaves(state.batch_stats), leaves(state8.batch_stats), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_the_batch_is_split_and_the_state_is_everywhere(tiny):
    config = dataclasses.replace(tiny, mesh=MeshConfig(data=8))
    run, (state, _) = first_step(config)
    batch = meshes.to_devices(run.batches[0][0], run.mesh)
    assert {shard.data.shape[0] for shard in batch["image"].addressable_shards} == {12}
    assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(state))


def test_a_step_is_the_textbook_step(tiny):
    optimizer = dataclasses.replace(tiny.optimizer, warmup_epochs=0, nesterov=False)
    config = dataclasses.replace(
        tiny,
        optimizer=optimizer,
        label_smoothing=0.1,
        model=dataclasses.replace(tiny.model, dropout=0.0),
        data=dataclasses.replace(tiny.data, augment=AugmentConfig()),
    )
    run, (state, metrics) = first_step(config)
    start, batch = run.fresh_state(), run.batches[0][0]
    images = (batch["image"] / 255 - 0.305) / 0.376

    def loss_fn(params):
        variables = {"params": params, "batch_stats": start.batch_stats}
        logits, _ = run.model.apply(
            variables, jnp.float32(images), train=True, mutable=["batch_stats"]
        )
        log_p = jax.nn.log_softmax(logits)
        targets = 0.9 * np.eye(10)[batch["label"]] + 0.1 / 10
        return -(targets * log_p).sum(-1).mean(), logits

    gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, logits), grads = gradient(start.params)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    right = (np.asarray(logits).argmax(-1) == batch["label"]).mean()
    assert float(metrics["top1"]) == pytest.approx(right)
    assert float(metrics["grad_norm"]) == pytest.approx(float(optax.tree.norm(grads)), rel=1e-4)
    paths = jax.tree_util.tree_leaves_with_path(start.params)
    for (path, before), grad, after in zip(paths, leaves(grads), leaves(state.params), strict=True):
        decay = 1e-4 if path[-1].key == "kernel" else 0.0
        expected = before - 0.05 * (grad + decay * before)
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-6)
    assert int(state.step) == 1


def test_the_average_follows_parameters_and_statistics(tiny):
    run = Run(dataclasses.replace(tiny, ema_decay=0.15))
    state = run.fresh_state()
    average = {"params": state.params, "batch_stats": state.batch_stats}
    average = jax.tree.map(np.asarray, average)
    for step, keep in enumerate([0.1, 0.15, 0.15]):  # min(0.15, (1 + step) / (10 + step))
        batch = meshes.to_devices(run.batches[step][0], run.mesh)
        state, _ = run.train_step(state, batch)
        new = {"params": state.params, "batch_stats": state.batch_stats}
        average = jax.tree.map(lambda old, x, k=keep: k * old + (1 - k) * x, average, new)
    for a, b in zip(leaves(average), leaves(state.ema), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert state.eval_variables is state.ema


def test_the_step_donates_the_state(tiny):
    run = Run(tiny)
    state = run.fresh_state()
    run.train_step(state, meshes.to_devices(run.batches[0][0], run.mesh))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_dropout_and_augmentation_depend_on_seed_and_step_alone(tiny):
    run = Run(tiny)
    batch = meshes.to_devices(run.batches[0][0], run.mesh)

    def loss(seed):
        _, metrics = run.programs.train(run.fresh_state(), batch, key_data(seed))
        return float(metrics["loss"])

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_runs_that_differ_by_the_seed_share_one_program(tiny, tmp_path):
    def losses(run):
        state, found = run.fresh_state(), []
        for index in range(2):
            batch = meshes.to_devices(run.batches[index][0], run.mesh)
            state, metrics = run.train_step(state, batch)
            found.append(float(metrics["loss"]))
        return found

    first = Run(tiny)
    other = first.with_seed(7, tmp_path / "other")
    alone = Run(dataclasses.replace(tiny, seed=7))
    assert other.config == dataclasses.replace(tiny, seed=7, run_dir=tmp_path / "other")
    own, seventh = losses(first), losses(other)
    assert seventh == losses(alone)
    assert seventh != own
    assert first.programs.train._cache_size() == 1
    assert other.programs is first.programs


@pytest.mark.slow
def test_drop_block_rises_from_nothing_to_its_rate_over_the_run(tiny):
    model = dataclasses.replace(tiny.model, dropout=0.0, drop_block=0.4)
    run = Run(dataclasses.replace(tiny, model=model))
    batch = meshes.to_devices(run.batches[0][0], run.mesh)
    plain = Run(dataclasses.replace(tiny, model=dataclasses.replace(model, drop_block=0.0)))
    full = Run(dataclasses.replace(tiny, model=dataclasses.replace(model, drop_block=0.2)))
    constant = make_train_step(
        full.task,
        full.network,
        full.optimizer,
        ema_decay=0.9,
    )

    def gradient(step, number):
        state = run.fresh_state().replace(step=jnp.asarray(number, jnp.int32))
        return float(step(state, batch, key_data(0))[1]["grad_norm"])

    assert gradient(run.programs.train, 0) == pytest.approx(
        gradient(plain.programs.train, 0), rel=1e-5
    )
    # Halfway through its 28 steps it has half its rate.
    assert gradient(run.programs.train, 14) == pytest.approx(gradient(constant, 14), rel=1e-6)
    assert gradient(run.programs.train, 28) != pytest.approx(gradient(constant, 28), rel=1e-2)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        (None, "peak learning rate 0.05"),
        (96, "peak learning rate 0.05"),
        (384, "peak learning rate 0.0125, scaled to batches of 96: 0.05 is for 384"),
    ],
)
def test_a_run_says_its_learning_rate(tiny, base, said):
    optimizer = dataclasses.replace(tiny.optimizer, base_batch=base)
    run = Run(dataclasses.replace(tiny, optimizer=optimizer))
    *_, images, rate = run.describe().splitlines()
    assert rate == said
    assert f"validation images of {len(run.dataset.classes)} classes, " in images
    assert float(run.schedule(7)) == pytest.approx(float(said.split()[3].rstrip(",")))


def test_normalize_gives_zero_mean_and_unit_deviation():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    mean, std = ((images / 255).mean((0, 1, 2)), (images / 255).std((0, 1, 2)))
    out = np.asarray(normalize(jnp.asarray(images), Normalization(tuple(mean), tuple(std))))
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("batch_size", "advice"), [(4, "use 8,"), (12, "use 8 or 16"), (97, "use 96 or 104")]
)
def test_a_batch_that_the_devices_do_not_divide_is_refused(batch_size, advice):
    with pytest.raises(UsageError, match=advice):
        meshes.check_batch_size(batch_size, meshes.make_mesh(8))


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(UsageError, match="there are 8"):
        meshes.make_mesh(9)
