import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.data.augment.device import change_batch
from senet_jax.data.augment.keys import StepKeys
from senet_jax.data.augment.mix import draw_weights, mix
from senet_jax.data.augment.small_images import augment
from senet_jax.data.config import AugmentConfig
from senet_jax.training.distributed import mesh as meshes

KEYS = jax.random.split(jax.random.key(0), 2000)


@functools.cache
def weights(**fields):
    """Weights of many batches."""
    draw = jax.jit(lambda key: draw_weights(key, 48, 64, **fields))
    return np.asarray(jax.lax.map(draw, KEYS))


def test_an_image_is_mixed_with_the_one_before_it_cyclically():
    values = np.random.default_rng(0).uniform(size=(5, 2, 3, 1)).astype(np.float32)
    share = np.random.default_rng(1).uniform(size=(2, 3, 1)).astype(np.float32)
    mixed = np.asarray(mix(jnp.asarray(values), jnp.asarray(share)))
    for row in range(5):
        expected = share * values[row] + (1 - share) * values[row - 1]
        np.testing.assert_allclose(mixed[row], expected, rtol=1e-6)


def test_mixup_has_one_weight_of_beta_a_a():
    drawn = weights(mixup=0.2, cutmix=0.0)
    assert drawn.shape == (2000, 48, 64, 1)
    assert (drawn == drawn[:, :1, :1]).all()
    shares = drawn[:, 0, 0, 0]
    assert shares.min() >= 0
    assert shares.max() <= 1
    # Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1)).
    assert shares.mean() == pytest.approx(0.5, abs=0.04)
    assert shares.var() == pytest.approx(1 / (4 * 1.4), rel=0.08)


def test_cutmix_pastes_a_rectangle_shaped_like_the_image():
    height, width = 48, 64
    sides, centres = [], []
    for weight in weights(mixup=0.0, cutmix=1.0)[..., 0]:
        assert set(np.unique(weight)) <= {0.0, 1.0}
        rows, columns = np.flatnonzero((weight == 0).any(1)), np.flatnonzero((weight == 0).any(0))
        if len(rows) == 0:
            continue
        box = np.zeros((height, width), bool)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert ((weight == 0) == box).all()
        clipped = (
            rows[0] == 0 or columns[0] == 0 or rows[-1] == height - 1 or columns[-1] == width - 1
        )
        if not clipped:
            sides.append((len(rows) / height, len(columns) / width))
            centres.append((rows[0] + len(rows) // 2, columns[0] + len(columns) // 2))
    tall, wide = np.array(sides).T
    assert np.abs(tall - wide).max() <= 1 / height
    assert len(set(centres)) > 200


def test_shares_of_cutmix_are_uniform_before_they_are_clipped():
    kept = weights(mixup=0.0, cutmix=1.0).mean((1, 2, 3))
    # With u uniform, a square of side s = sqrt(u) around a uniform point covers of the unit square
    # (s - s^2 / 4)^2, in the mean: E = 1/2 - 2/5 / 2 + 1/3 / 16, where s^2 = u.
    covered = 1 / 2 - (2 / 5) / 2 + (1 / 3) / 16
    assert (1 - kept).mean() == pytest.approx(covered, abs=0.02)


def test_with_both_half_of_the_batches_are_of_either_kind():
    drawn = weights(mixup=1.0, cutmix=1.0)
    pasted = ((drawn == 0) | (drawn == 1)).all((1, 2, 3))
    assert pasted.mean() == pytest.approx(0.5, abs=0.05)
    blended = drawn[~pasted]
    assert (blended == blended[:, :1, :1]).all()


def batch_of(count, size=6):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_the_share_of_the_label_is_that_of_the_pixels():
    images = jnp.asarray(np.repeat(np.array([0, 255], np.uint8), 6 * 6 * 3).reshape(2, 6, 6, 3))
    config = AugmentConfig(mixup=0.4, cutmix=1.0)
    change = jax.jit(
        lambda key: change_batch(images, StepKeys.split(key), mean=(0.5, 0.5, 0.5), config=config)
    )
    shares = set()
    for key in KEYS[:20]:
        mixed, share = change(key)
        # Image 1 is white and mixed with the black image 0, and the other way round.
        assert float(mixed[1].mean()) / 255 == pytest.approx(float(share), abs=1e-5)
        assert float(mixed[0].mean()) / 255 == pytest.approx(1 - float(share), abs=1e-5)
        shares.add(float(share))
    assert len(shares) > 10


def test_unmixed_batches_are_augmented_with_the_first_split_key():
    images, key = jnp.asarray(batch_of(4)), jax.random.key(3)
    mean = (0.1, 0.2, 0.3)
    config = AugmentConfig(pad=2, flip=True, cutout=3)
    out, share = change_batch(images, StepKeys.split(key), mean=mean, config=config)
    fill = np.array([26, 51, 76], np.uint8)  # Rounded to the even of 25.5 and 76.5.
    expected = augment(images, jax.random.split(key)[0], fill=fill, pad=2, flip=True, cutout=3)
    assert share is None
    assert out.dtype == jnp.uint8
    assert np.array_equal(out, expected)


def test_mixing_comes_last_and_shares_no_random_numbers():
    images, key, mean = jnp.asarray(batch_of(4)), jax.random.key(3), (0.5, 0.5, 0.5)
    plain, _ = change_batch(images, StepKeys.split(key), mean=mean, config=AugmentConfig(pad=2))
    config = AugmentConfig(pad=2, mixup=1.0)
    mixed, share = change_batch(images, StepKeys.split(key), mean=mean, config=config)
    expected = mix(plain.astype(jnp.float32), share)
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-4)


def test_a_mesh_mixes_alike_and_gathers_no_batch():
    images, key = batch_of(32), jax.random.key(1)
    config = AugmentConfig(pad=1, mixup=0.2, cutmix=1.0)

    def change(images, key):
        return change_batch(images, StepKeys.split(key), mean=(0.5, 0.5, 0.5), config=config)

    outs = []
    for devices in (1, 8):
        mesh = meshes.make_mesh(devices)
        where = meshes.over_batch(mesh), meshes.replicated(mesh)
        compiled = jax.jit(change, in_shardings=where).lower(images, key).compile()
        outs.append(compiled(*jax.device_put((images, key), where)))
    assert "all-gather" not in compiled.as_text()
    # Each device sends one image on.
    assert "collective-permute(" in compiled.as_text()
    (one, share), (eight, share8) = outs
    assert float(share) == pytest.approx(float(share8), rel=1e-6)
    np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-4)
