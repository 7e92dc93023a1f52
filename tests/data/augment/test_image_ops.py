import numpy as np
import pytest
from PIL import Image

from senet_jax.data.augment.image_ops import FILL, OPERATIONS, rotate

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)


def apply(name, amount, pixels=PIXELS):
    return np.asarray(OPERATIONS[name](Image.fromarray(pixels), amount)).astype(int)


@pytest.mark.parametrize(
    ("name", "amount"),
    [
        ("Brightness", 1.0),
        ("Color", 1.0),
        ("Contrast", 1.0),
        ("Identity", 0.0),
        ("Posterize", 8),
        ("Rotate", 0.0),
        ("Sharpness", 1.0),
        ("ShearX", 0.0),
        ("ShearY", 0.0),
        ("Solarize", 256),
        ("TranslateX", 0.0),
        ("TranslateY", 0.0),
    ],
)
def test_amount_that_changes_nothing(name, amount):
    assert np.array_equal(apply(name, amount), PIXELS)


@pytest.mark.parametrize("threshold", [0, 77, 255])
def test_solarize_inverts_from_the_threshold_on(threshold):
    expected = np.where(threshold > PIXELS, PIXELS, 255 - PIXELS)
    assert np.array_equal(apply("Solarize", threshold), expected)
    assert np.array_equal(apply("Invert", 0.0), 255 - PIXELS)


@pytest.mark.parametrize("bits", [1, 4, 7])
def test_posterize_keeps_the_highest_bits(bits):
    assert np.array_equal(apply("Posterize", bits), PIXELS >> (8 - bits) << (8 - bits))


def grey(pixels):
    return np.repeat(np.asarray(Image.fromarray(pixels).convert("L"))[..., None], 3, axis=-1)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.6])
@pytest.mark.parametrize(
    ("name", "towards"),
    [
        ("Brightness", np.zeros_like(PIXELS)),
        ("Contrast", np.full_like(PIXELS, round(grey(PIXELS).mean()))),
        ("Color", grey(PIXELS)),
    ],
)
def test_enhancements_blend_with_black_mean_grey_and_no_colour(name, towards, factor):
    expected = (towards + factor * (PIXELS.astype(float) - towards)).clip(0, 255)
    assert np.abs(apply(name, factor) - expected).max() < 1


def test_sharpness_0_smooths_and_2_is_as_far_on_the_other_side():
    smooth, sharp = apply("Sharpness", 0.0), apply("Sharpness", 2.0)
    inside = PIXELS[1:-1, 1:-1].astype(float)
    around = sum(
        PIXELS[1 + dy : 23 + dy, 1 + dx : 29 + dx].astype(float) * (5 if dx == dy == 0 else 1)
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    )
    np.testing.assert_allclose(smooth[1:-1, 1:-1], around / 13, atol=1)
    np.testing.assert_allclose(
        sharp[1:-1, 1:-1], (2 * inside - smooth[1:-1, 1:-1]).clip(0, 255), atol=1
    )


def test_auto_contrast_stretches_each_channel():
    narrow = 60 + PIXELS // 3
    low, high = narrow.min((0, 1)), narrow.max((0, 1))
    expected = (narrow - low.astype(float)) * 255 / (high - low.astype(float))
    assert np.abs(apply("AutoContrast", 0.0, narrow) - expected).max() <= 1


def test_equalize_flattens_the_histogram():
    dark = np.random.default_rng(0).triangular(0, 0, 255, (200, 200, 3)).astype(np.uint8)
    for channel in apply("Equalize", 0.0, dark).reshape(-1, 3).T:
        np.testing.assert_allclose(
            np.quantile(channel / 255, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05
        )


def test_translation_moves_whole_pixels_and_fills_the_mean():
    moved = apply("TranslateX", 0.25)  # 7.5 of 30
    assert np.array_equal(moved[:, :23], PIXELS[:, 7:])
    assert (moved[:, 23:] == FILL).all()
    moved = apply("TranslateY", -0.25)  # 6 of 24
    assert np.array_equal(moved[6:], PIXELS[:18])
    assert (moved[:6] == FILL).all()


def test_shear_moves_each_row_or_column_in_proportion():
    ramp = np.repeat(np.arange(0, 240, 8, dtype=np.uint8)[None, :, None], 24, axis=0)
    ramp = np.repeat(ramp, 3, axis=-1)
    row, column = np.mgrid[:24, :30] + 0.5
    inside = column + 0.3 * row < 29
    # A pixel further right is 8 brighter.
    expected = 8 * (column + 0.3 * row - 0.5)
    assert np.abs(apply("ShearX", 0.3, ramp)[..., 0] - expected)[inside].max() <= 1
    square = ramp[:, :24]
    sheared = apply("ShearX", 0.2, square)
    assert np.array_equal(
        apply("ShearY", 0.2, square.transpose(1, 0, 2)), sheared.transpose(1, 0, 2)
    )


def test_rotation_is_counterclockwise_around_the_centre():
    square = PIXELS[:, :24]
    turned = np.asarray(rotate(Image.fromarray(square), 90))
    assert np.array_equal(turned, np.rot90(square))
    corner = np.asarray(rotate(Image.fromarray(square), 45))[0, 0]
    assert tuple(corner) == FILL
