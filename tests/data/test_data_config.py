import dataclasses
import math

import pytest

from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.errors import UsageError


@pytest.mark.parametrize(
    ("field", "outside"),
    [
        ("pad", (-1,)),
        ("cutout", (-1,)),
        ("crop_area", ((0.0, 1.0), (0.5, 0.4), (0.5, 1.1), (-0.1, 0.5))),
        ("crop_ratio", ((0.0, 1.0), (2.0, 1.0), (1.0, math.inf))),
        ("rotation", (-1.0, 181.0)),
        ("pixel_shift", (-1, 256)),
        ("color_jitter", (-0.1, 1.1)),
        ("lighting", (-0.1, math.nan, math.inf)),
        ("randaugment_ops", (-1,)),
        ("randaugment_magnitude", (-1, 31)),
        ("erasing", (-0.1, 1.1)),
        ("mixup", (-0.2, math.inf)),
        ("cutmix", (-1.0, math.nan)),
    ],
)
def test_augmentation_outside_its_range_is_refused(field, outside):
    for value in outside:
        config = dataclasses.replace(AugmentConfig(policy="randaugment"), **{field: value})
        with pytest.raises(UsageError, match=rf"data.augment.{field} must be .*, not "):
            DataConfig(augment=config).validate()


@pytest.mark.parametrize(
    ("field", "outside"),
    [
        ("batch_size", 0),
        ("eval_batch_size", 0),
        ("image_size", 0),
        ("train_sizes", (128, 0)),
        ("crop_pct", 0.0),
        ("crop_pct", 1.1),
        ("workers", -1),
        ("max_corrupt", -0.1),
        ("max_corrupt", 1.5),
    ],
)
def test_data_outside_its_range_is_refused(field, outside):
    with pytest.raises(UsageError, match=rf"data.{field} must be .*, not "):
        dataclasses.replace(DataConfig(), **{field: outside}).validate()


def test_the_recipes_of_the_papers_and_the_limits_are_allowed():
    for augment in (
        AugmentConfig(),
        AugmentConfig(flip=True, rotation=10.0, pixel_shift=20),
        AugmentConfig(
            flip=True, color_jitter=0.4, lighting=0.1, policy="autoaugment", mixup=0.2, cutmix=1.0
        ),
        AugmentConfig(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), erasing=1.0, color_jitter=1.0),
        AugmentConfig(policy="randaugment", randaugment_ops=3, randaugment_magnitude=30),
    ):
        DataConfig(augment=augment, image_size=224, train_sizes=(128, 160), crop_pct=1.0).validate()


@pytest.mark.parametrize("policy", [None, "autoaugment"])
def test_fields_of_randaugment_need_randaugment(policy):
    config = AugmentConfig(policy=policy, randaugment_magnitude=9)
    with pytest.raises(UsageError, match="randaugment_magnitude needs"):
        config.validate()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_area", (0.25, 1.0)),
        ("crop_ratio", (1.0, 1.0)),
        ("interpolation", "bicubic"),
        ("rotation", 10.0),
        ("pixel_shift", 20),
        ("color_jitter", 0.4),
        ("lighting", 0.1),
        ("policy", "autoaugment"),
        ("erasing", 0.25),
    ],
)
def test_small_images_refuse_what_is_for_photographs(field, value):
    config = DataConfig(augment=dataclasses.replace(AugmentConfig(), **{field: value}))
    config.check_images(photographs=True)
    with pytest.raises(UsageError, match=f"data.augment.{field} is for photographs"):
        config.check_images(photographs=False)


@pytest.mark.parametrize(("field", "value"), [("pad", 4), ("cutout", 16)])
def test_photographs_refuse_what_is_for_small_images(field, value):
    config = DataConfig(augment=dataclasses.replace(AugmentConfig(), **{field: value}))
    config.check_images(photographs=False)
    with pytest.raises(UsageError, match=f"data.augment.{field} is for small images"):
        config.check_images(photographs=True)


@pytest.mark.parametrize(
    ("field", "value"), [("image_size", 64), ("train_sizes", (32, 64)), ("exif_orientation", True)]
)
def test_small_images_have_a_size_of_their_own(field, value):
    config = dataclasses.replace(DataConfig(name="digits"), **{field: value})
    config.check_images(photographs=True)
    with pytest.raises(UsageError, match=f"data.{field} is for photographs: the images of digits"):
        config.check_images(photographs=False)


def test_every_image_can_be_mirrored_and_mixed():
    config = DataConfig(augment=AugmentConfig(flip=True, mixup=0.2, cutmix=1.0))
    config.check_images(photographs=True)
    config.check_images(photographs=False)
