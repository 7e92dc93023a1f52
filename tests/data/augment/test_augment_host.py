import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from senet_jax.data.augment.host import (
    LIGHTING_DIRECTIONS,
    change_image,
    draw_lighting,
)
from senet_jax.data.augment.image_ops import FILL
from senet_jax.data.config import AugmentConfig

IMAGE = np.random.default_rng(0).integers(60, 180, (40, 40, 3), dtype=np.uint8)
EVERYTHING = AugmentConfig(
    rotation=10.0,
    pixel_shift=20,
    color_jitter=0.4,
    lighting=0.1,
    policy="randaugment",
    erasing=0.5,
)


def change(config, seed=0, image=IMAGE):
    return change_image(image, np.random.default_rng(seed), config)


def test_without_changes_it_is_the_image_and_nothing_is_drawn():
    rng = np.random.default_rng(0)
    # This function leaves crops, flips and the device's changes alone.
    config = AugmentConfig(flip=True, pad=4, cutout=8, mixup=0.2, cutmix=1.0)
    assert change_image(IMAGE, rng, config) is IMAGE
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(
    "config", [EVERYTHING, dataclasses.replace(EVERYTHING, policy="autoaugment")]
)
@pytest.mark.parametrize("shape", [(40, 40, 3), (1, 1, 3), (7, 90, 3)])
def test_generator_and_config_determine_what_is_done(config, shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    image.flags.writeable = False
    outs = [change(config, seed, image) for seed in range(20)]
    assert {(out.shape, out.dtype.name) for out in outs} == {(shape, "uint8")}
    again = change(pickle.loads(pickle.dumps(config)), 3, image)
    assert np.array_equal(outs[3], again)
    assert len({out.tobytes() for out in outs}) > 10


def test_pixel_shift_is_one_whole_number_in_its_range():
    config = AugmentConfig(pixel_shift=20)
    shifts = []
    for seed in range(600):
        difference = change(config, seed).astype(int) - IMAGE
        assert (difference == difference[0, 0, 0]).all()
        shifts.append(difference[0, 0, 0])
    # All 41 are equally likely: the chance to miss one of them is 2e-5.
    assert set(shifts) == set(range(-20, 21))


def test_pixel_shift_stops_at_black_and_white():
    image = np.stack([np.arange(256, dtype=np.uint8)[None]] * 3, axis=-1)
    for seed in range(20):
        out = change(AugmentConfig(pixel_shift=200), seed, image).astype(int)
        shift = out[0, 128, 0] - 128
        if abs(shift) < 127:
            assert np.array_equal(out[0, :, 0], (np.arange(256) + shift).clip(0, 255))


def test_lighting_has_the_covariance_of_the_published_components():
    rng = np.random.default_rng(0)
    colors = np.array([draw_lighting(rng, 0.1) for _ in range(20_000)])
    vectors = np.array([[-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948]])
    assert colors.mean(0) == pytest.approx(0, abs=0.15)
    # Along the components, the deviations are those of the eigenvalues.
    along = colors @ vectors.T
    assert along.std(0) == pytest.approx([0.1 * 255 * 0.2175, 0.1 * 255 * 0.0188], rel=0.05)
    assert np.corrcoef(along.T)[0, 1] == pytest.approx(0, abs=0.05)


def test_the_published_components_are_orthonormal():
    np.testing.assert_allclose(LIGHTING_DIRECTIONS.T @ LIGHTING_DIRECTIONS, np.eye(3), atol=2e-4)


def test_lighting_adds_one_colour_rounded_to_all_pixels():
    for seed in range(5):
        color = draw_lighting(np.random.default_rng(seed), 0.5)
        out = change(AugmentConfig(lighting=0.5), seed)
        assert np.array_equal(out, np.rint(IMAGE + color).clip(0, 255))
        assert not np.array_equal(out, IMAGE)


def test_jitter_is_three_changes_in_any_order():
    kinds = {"b": ImageEnhance.Brightness, "c": ImageEnhance.Contrast, "s": ImageEnhance.Color}
    orders, factors = set(), []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        order = "".join("bcs"[index] for index in rng.permutation(3))
        expected = Image.fromarray(IMAGE)
        for kind in order:
            factor = rng.uniform(0.6, 1.4)
            factors.append(factor)
            expected = kinds[kind](expected).enhance(factor)
        orders.add(order)
        assert np.array_equal(change(AugmentConfig(color_jitter=0.4), seed), expected)
    assert len(orders) == 6
    assert min(factors) < 0.65
    assert max(factors) > 1.35


def test_jitter_of_1_goes_from_black_to_twice_as_bright():
    image = np.full((4, 4, 3), 100, np.uint8)  # Grey: contrast and saturation do nothing.
    means = [change(AugmentConfig(color_jitter=1.0), seed, image).mean() for seed in range(300)]
    assert min(means) < 10
    assert max(means) > 190
    assert np.mean(means) == pytest.approx(100, abs=12)


def test_rotation_is_within_its_degrees_either_way():
    # Right of the centre of this image is one bright line; where it leaves tells the angle.
    image = np.zeros((101, 101, 3), np.uint8)
    image[50, 51:] = 255
    angles = []
    for seed in range(200):
        out = change(AugmentConfig(rotation=10.0), seed, image)[:, 90, 1].astype(float)
        rows = np.arange(101) * (np.arange(101) > 20) * (np.arange(101) < 80)
        angles.append(np.degrees(np.arctan2(50 - (rows * out).sum() / out[21:80].sum(), 40)))
    assert -10.2 < min(angles) < -9
    assert 9 < max(angles) < 10.2
    assert np.mean(angles) == pytest.approx(0, abs=1.5)
    assert FILL in {tuple(change(AugmentConfig(rotation=10.0), s, image)[0, 0]) for s in range(5)}


def test_erasing_fills_rectangles_of_published_sizes_with_noise():
    image = np.zeros((200, 200, 3), np.uint8)
    shares, ratios, pixels = [], [], []
    for seed in range(400):
        out = change(AugmentConfig(erasing=0.5), seed, image)
        rows, columns = np.flatnonzero(out.any((1, 2))), np.flatnonzero(out.any((0, 2)))
        if len(rows):
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            inside = out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            shares.append(height * width / 200**2)
            ratios.append(width / height)
            pixels.append(inside.mean())
            assert not np.delete(out, slice(rows[0], rows[-1] + 1), axis=0).any()
    assert 160 < len(shares) < 240
    assert 0.019 < min(shares) < 0.05
    assert 0.36 < max(shares) < 0.405
    assert min(ratios) < 0.4
    assert max(ratios) > 2.5
    assert np.mean(pixels) == pytest.approx(127.5, abs=1)


def test_erasing_always_and_never():
    image = np.zeros((32, 32, 3), np.uint8)
    assert all(change(AugmentConfig(erasing=1.0), seed, image).any() for seed in range(50))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    rotation=st.floats(0, 180),
    color_jitter=st.floats(0, 1),
    lighting=st.floats(0, 2),
    pixel_shift=st.integers(0, 255),
    policy=st.sampled_from(["autoaugment", "randaugment", None]),
    randaugment_ops=st.integers(0, 4),
    randaugment_magnitude=st.integers(0, 30),
    erasing=st.floats(0, 1),
)
def test_any_config_changes_any_image_into_one_of_its_size(seed, shape, **fields):
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = image.copy()
    out = change(AugmentConfig(**fields), seed, image)
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    assert np.array_equal(image, before)
