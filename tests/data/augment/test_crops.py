import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from senet_jax.data.augment.crops import draw_crop


def crops(height, width, count=4000, **fields):
    rng = np.random.default_rng(0)
    return np.array([draw_crop(height, width, rng, **fields) for _ in range(count)])


def test_crops_lie_inside_with_the_given_shares_and_shapes():
    left, top, width, height = crops(375, 500, area=(0.2, 0.6), ratio=(0.5, 2.0)).T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + width <= 500).all()
    assert (top + height <= 375).all()
    # A side is rounded to whole pixels, of 100 at least.
    share, shape = width * height / (375 * 500), width / height
    assert 0.2 * 0.99 < share.min() < 0.21
    assert 0.59 < share.max() < 0.6 * 1.01
    assert 0.5 * 0.99 < shape.min() < 0.51
    assert 1.96 < shape.max() < 2.0 * 1.01


def test_share_log_shape_and_place_of_crops_are_uniform():
    # Nothing that is drawn here can fail to fit, so that the draws are not conditioned.
    left, top, width, height = crops(1000, 1000, area=(0.1, 0.3), ratio=(0.5, 2.0)).T
    for values in (
        (width * height / 1e6 - 0.1) / 0.2,
        np.log(width / height) / math.log(4) + 0.5,
        left / (1000 - width),
        top / (1000 - height),
    ):
        deciles = np.quantile(values, np.arange(0.1, 1, 0.1))
        # Standard errors are at most 0.5 / sqrt(4000) = 0.008.
        np.testing.assert_allclose(deciles, np.arange(0.1, 1, 0.1), atol=0.03)


def test_whole_square_is_the_only_crop_of_all_its_area():
    assert set(map(tuple, crops(7, 7, 20, area=(1.0, 1.0), ratio=(1.0, 1.0)))) == {(0, 0, 7, 7)}


# No crop of these shapes holds the complete area of an image of this shape.
@pytest.mark.parametrize(
    ("height", "width", "ratio", "box"),
    [
        (10, 100, (3 / 4, 4 / 3), (43, 0, 13, 10)),
        (100, 10, (3 / 4, 4 / 3), (0, 43, 10, 13)),
        (1, 1000, (3 / 4, 4 / 3), (499, 0, 1, 1)),
        (1000, 1, (3 / 4, 4 / 3), (0, 499, 1, 1)),
        (1, 9, (0.1, 0.2), (4, 0, 1, 1)),
        (9, 1, (5.0, 9.0), (0, 4, 1, 1)),
    ],
)
def test_central_crop_of_the_nearest_shape_where_nothing_fits(height, width, ratio, box):
    assert draw_crop(height, width, np.random.default_rng(0), (1.0, 1.0), ratio) == box


def test_whole_image_where_its_shape_is_allowed_and_no_draw_fits():
    class Unlucky(np.random.Generator):
        def uniform(self, low, high):
            return low

    rng = Unlucky(np.random.PCG64(0))
    # The whole area in the shape 0.5 is 14 by 7 pixels: it never fits into 10 by 10.
    assert draw_crop(10, 10, rng, (1.0, 1.0), (0.5, 2.0)) == (0, 0, 10, 10)


def test_one_pixel_has_one_crop():
    assert set(map(tuple, crops(1, 1, 50))) == {(0, 0, 1, 1)}


def test_the_generator_determines_the_crops():
    assert np.array_equal(crops(300, 400, 9), crops(300, 400, 9))
    assert len(set(map(tuple, crops(300, 400, 9)))) == 9


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    seed=st.integers(0, 2**32),
    area=st.tuples(st.floats(1e-6, 1), st.floats(1e-6, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)).map(sorted),
)
def test_any_crop_is_at_least_a_pixel_and_inside(height, width, seed, area, ratio):
    box = draw_crop(height, width, np.random.default_rng(seed), tuple(area), tuple(ratio))
    left, top, crop_width, crop_height = box
    assert 0 <= left < left + crop_width <= width
    assert 0 <= top < top + crop_height <= height
    assert all(type(value) is int for value in box)
