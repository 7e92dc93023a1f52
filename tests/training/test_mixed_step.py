import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.config import MeshConfig
from senet_jax.data.augment.device import change_batch
from senet_jax.data.augment.keys import StepKeys
from senet_jax.data.config import AugmentConfig
from senet_jax.errors import UsageError
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.run import Run

MIXING = AugmentConfig(mixup=0.4, cutmix=1.0)


def mixed(config, **fields):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **fields))


@pytest.fixture
def mixing(tiny):
    """A run with mixup and CutMix, whose images are cropped too and whose labels are smoothed."""
    config = mixed(tiny, augment=dataclasses.replace(MIXING, pad=1))
    model = dataclasses.replace(tiny.model, dropout=0.0)
    return dataclasses.replace(config, model=model, label_smoothing=0.1)


def step_at(run, step):
    """The state and the metrics of a step."""
    batch = meshes.to_devices(run.batches[step][0], run.mesh)
    return run.train_step(moved(run.fresh_state(), step), batch)


def moved(state, step):
    """A network that says something of its own of each image; a fresh one says zeros of all."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.5, leaf.shape), state.params)
    params = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), params, state.params)
    return state.replace(params=params, step=jnp.full_like(state.step, step))


def test_loss_and_top1_are_of_mixed_images_and_smoothed_targets(mixing, run_of):
    run = run_of(mixing)
    start, kinds = moved(run.fresh_state(), 0), set()
    variables = {"params": start.params, "batch_stats": start.batch_stats}
    config = mixing.data.augment
    change = jax.jit(lambda images, keys: change_batch(images, keys, mean=(0.305,), config=config))
    apply = jax.jit(lambda x: run.model.apply(variables, x, train=True, mutable=["batch_stats"])[0])
    for step in range(4):
        _, metrics = step_at(run, step)
        batch, _ = run.batches[step]
        images, share = change(batch["image"], StepKeys.of(jax.random.key(mixing.seed), step))
        before, labels, share = np.roll(batch["label"], 1), batch["label"], float(share)
        logits = apply((images / 255 - 0.305) / 0.376)
        own, other = np.eye(10)[labels], np.eye(10)[before]
        targets = 0.9 * (share * own + (1 - share) * other) + 0.1 / 10
        loss = -(targets * jax.nn.log_softmax(logits)).sum(-1).mean()
        assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
        dominant = labels if share >= 0.5 else before
        right = (np.asarray(logits).argmax(-1) == dominant).mean()
        assert float(metrics["top1"]) == pytest.approx(right)
        shown = run.preview(step)
        assert shown.shared == pytest.approx(share)
        assert np.array_equal(shown.images, np.rint(images))
        kinds.add((share * 64 % 1 == 0, share >= 0.5))
    # Shares of whole pixels, of 64, are CutMix's; either kind and either label was there.
    assert {cutmix for cutmix, _ in kinds} == {own for _, own in kinds} == {False, True}


def test_a_mixed_step_is_the_same_on_one_device_and_on_eight(mixing, run_of):
    state, metrics = step_at(run_of(mixing), 0)
    state8, metrics8 = step_at(Run(dataclasses.replace(mixing, mesh=MeshConfig(data=8))), 0)
    for name in metrics:
        assert float(metrics[name]) == pytest.approx(float(metrics8[name]), rel=1e-5)
    for one, eight in zip(jax.tree.leaves(state), jax.tree.leaves(state8), strict=True):
        np.testing.assert_allclose(eight, one, rtol=1e-4, atol=1e-6)


def test_titles_give_the_shares_of_both_classes(tiny):
    run = Run(mixed(tiny, augment=MIXING))
    shown, classes = run.preview(2), run.dataset.classes
    titles = shown.titles(classes)
    own, other = classes[shown.arrays["label"][5]], classes[shown.arrays["label"][4]]
    assert titles[5] == f"{shown.shared:.2f} {own}\n{1 - shown.shared:.2f} {other}"
    assert titles[0].endswith(classes[shown.arrays["label"][-1]])


def test_what_is_shown_without_augmentation_is_the_batch(tiny):
    run = Run(mixed(tiny, augment=AugmentConfig()))
    (batch, _), shown = run.batches[3], run.preview(3)
    assert np.array_equal(shown.images, batch["image"])
    assert np.array_equal(shown.arrays["label"], batch["label"])
    assert shown.titles(run.dataset.classes) == [str(label) for label in batch["label"]]


@pytest.mark.parametrize("fields", [{"augment": AugmentConfig(erasing=0.1)}, {"image_size": 32}])
def test_a_run_refuses_what_its_images_do_not_take(tiny, fields):
    with pytest.raises(UsageError, match="is for photographs"):
        Run(mixed(tiny, **fields))
