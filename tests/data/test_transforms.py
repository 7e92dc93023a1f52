from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from senet_jax.data.config import AugmentConfig
from senet_jax.data.transforms import EvalTransform, TrainTransform


def encode(image):
    out = BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


GRADIENT = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 4, 48, axis=0).repeat(
    3, axis=-1
)


def test_training_images_are_a_function_of_the_generator():
    transform = TrainTransform(16, AugmentConfig(flip=True))
    data = encode(GRADIENT)
    first, again, other = (transform(data, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first.shape == (16, 16, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_exif_turns_images_in_training_and_evaluation():
    exif = Image.Exif()
    exif[0x0112] = 6
    out = BytesIO()
    Image.fromarray(GRADIENT).save(out, "PNG", exif=exif)
    upright = encode(np.ascontiguousarray(np.rot90(GRADIENT, -1)))
    augment = AugmentConfig(crop_ratio=(0.5, 0.6))
    for train in (TrainTransform(16, augment, True), TrainTransform(16, augment)):
        images = [train(data, np.random.default_rng(0)) for data in (out.getvalue(), upright)]
        assert np.array_equal(*images) == train.exif_orientation
    for view in (EvalTransform(16, 0.5, "bilinear", True), EvalTransform(16, 0.5, "bilinear")):
        images = [view(data) for data in (out.getvalue(), upright)]
        assert np.array_equal(*images) == view.exif_orientation


@pytest.mark.parametrize("flip", [False, True])
def test_half_of_the_images_are_mirrored_if_asked(flip):
    transform = TrainTransform(16, AugmentConfig(flip=flip))
    rng = np.random.default_rng(0)
    drawn = [transform(encode(GRADIENT), rng) for _ in range(200)]
    mirrored = sum(int(image[8, 0, 0]) > int(image[8, -1, 0]) for image in drawn)
    assert 70 < mirrored < 130 if flip else mirrored == 0


def test_crops_have_the_share_of_the_area_that_is_asked_for():
    rng = np.random.default_rng(0)
    whole = TrainTransform(48, AugmentConfig(crop_area=(1, 1), crop_ratio=(64 / 48, 64 / 48)))
    spans = np.ptp(whole(encode(GRADIENT), rng).astype(int))
    assert spans >= 240
    small = TrainTransform(48, AugmentConfig(crop_area=(0.1, 0.1), crop_ratio=(1, 1)))
    for _ in range(20):
        # sqrt(0.1 * 64 * 48) = 17.5 pixels of 4 levels.
        assert np.ptp(small(encode(GRADIENT), rng).astype(int)) == pytest.approx(4 * 17, abs=8)


def test_evaluation_takes_the_centre():
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, 4:60] = 200
    view = EvalTransform(24, 1.0, "bilinear")(encode(image))
    assert view.shape == (24, 24, 3)
    assert np.all(view == 200)
    half = EvalTransform(24, 0.5, "bicubic")(encode(GRADIENT))
    assert half[12, 12, 0] == pytest.approx(128, abs=6)
