import functools
import hashlib

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_digits

from senet_jax.data.digit_scenes import (
    CLASSES,
    _digits,
    _enlarged,
    _steps_apart,
    digit_split,
    draw_scene,
    draw_scenes,
)
from senet_jax.errors import UsageError

COUNT = 400


@functools.cache
def scenes(split="train", seed=0, side=64, count=COUNT):
    return [draw_scene(split, seed, index, side) for index in range(count)]


def digest(drawn):
    whole = hashlib.sha256()
    for scene in drawn:
        for array in scene[:5]:
            whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def test_the_scenes_are_the_same_for_ever():
    drawn = [*scenes()[:30], *(draw_scene("val", 3, index, 96) for index in range(30))]
    assert digest(drawn) == "8b6e847dabcae7aa4365aa6944a8f508e3a45422383d631af238f7da3f042d0e"


def test_a_scene_depends_on_split_seed_and_index_alone():
    assert digest([draw_scene("train", 0, 7)]) == digest([scenes()[7]])
    others = [draw_scene(*key) for key in (("train", 0, 8), ("train", 1, 7), ("val", 0, 7))]
    assert len({digest([scene]) for scene in (scenes()[7], *others)}) == 4


def test_arrays_have_the_scenes_in_order():
    images, labels = draw_scenes("val", 2, 3, 72)
    for index in range(3):
        scene = draw_scene("val", 2, index, 72)
        assert np.array_equal(images[index], scene.image)
        assert np.array_equal(labels[index], scene.label)


def test_masks_boxes_and_labels_agree_to_the_pixel():
    for scene in scenes():
        assert scene.image.shape == (64, 64, 3)
        assert scene.masks.sum(0).max(initial=0) <= 1, "masks overlap"
        label = np.zeros((64, 64), np.uint8)
        for mask, box, digit in zip(scene.masks, scene.boxes, scene.classes, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            label[mask] = digit + 1
        assert np.array_equal(scene.label, label)
        assert scene.label.max() < len(CLASSES) == 11


def test_one_to_six_digits_of_two_to_four_times_their_size():
    counts = np.bincount([len(scene.classes) for scene in scenes(side=96)], minlength=7)
    assert len(counts) == 7
    assert (counts[1:] > 10).all()
    heights = np.concatenate([s.boxes[:, 3] - s.boxes[:, 1] for s in scenes(side=96)])
    assert 12 <= heights.min() < 16
    assert 30 < heights.max() <= 32
    drawn = np.bincount(np.concatenate([scene.classes for scene in scenes()]), minlength=10)
    assert (drawn > drawn.sum() / 20).all()


def test_a_tenth_is_empty_and_in_a_fifth_digits_touch():
    drawn = scenes(count=1000)
    empty = sum(len(scene.classes) == 0 for scene in drawn)
    touching = sum(scene.touching for scene in drawn)
    # Four standard deviations are 3.8 and 5.1 points.
    assert abs(empty / 1000 - 0.1) < 0.038
    assert abs(touching / 1000 - 0.2) < 0.051


def test_digits_touch_where_it_is_said_and_nowhere_else():
    for scene in scenes():
        grown = [ndimage.binary_dilation(mask) for mask in scene.masks]
        pairs = [
            (one & other).any()
            for place, one in enumerate(grown)
            for other in scene.masks[place + 1 :]
        ]
        assert sum(pairs) == scene.touching


def test_validation_has_digits_of_its_own():
    train, val = digit_split()
    assert len(train) == 1437
    assert len(val) == 360
    assert not set(train) & set(val)
    digits = load_digits()
    for split, own in (("train", train), ("val", val)):
        assert np.array_equal(_digits(split).images, digits.images[own])
        assert np.array_equal(_digits(split).names, digits.target[own])


def test_digits_stand_out_from_their_background():
    for scene in scenes():
        for mask in scene.masks:
            ring = ndimage.binary_dilation(mask, iterations=2) & (scene.label == 0)
            assert abs(scene.image[mask].mean() - scene.image[ring].mean()) > 15


def test_a_third_of_the_backgrounds_is_flat():
    flat = [len(np.unique(s.image[s.label == 0], axis=0)) == 1 for s in scenes()]
    assert 0.25 < np.mean(flat) < 0.42


@pytest.mark.parametrize("size", [16, 21, 32])
def test_digits_are_scaled_bilinearly(size):
    digit = load_digits().images[5]
    ours = _enlarged(digit.astype(np.uint8), size)
    pillow = Image.fromarray(digit.astype(np.float32) * (255 / 16))
    theirs = np.asarray(pillow.resize((size, size), Image.Resampling.BILINEAR))
    assert np.abs(ours - theirs).max() <= 2


def test_a_digit_comes_until_it_touches():
    still = np.array([[1, 1, 0], [1, 0, 0]], bool)
    moved = np.array([[0, 1], [1, 1]], bool)
    # Row by row: from 2 - 1 and 1 - 0, the larger.
    assert _steps_apart(still, moved, 0, True) == 1
    assert _steps_apart(still, moved, 1, True) == 0
    assert _steps_apart(still, moved, -1, True) == 2
    assert _steps_apart(still, moved, 0, False) == -2
    assert _steps_apart(still, moved, 2, True) is None


@pytest.mark.parametrize("side", [63, 193])
def test_a_side_out_of_range_is_refused(side):
    with pytest.raises(UsageError, match=f"64 to 192 pixels, not {side}"):
        draw_scene("train", 0, 0, side)
