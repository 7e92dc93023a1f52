import dataclasses

import numpy as np
import pytest
from PIL import Image

from senet_jax.data.config import AugmentConfig, CropConfig
from senet_jax.data.scene_transforms import SceneTransform, draw_size, scale_label, scaled_part
from senet_jax.data.scenes import Scene, padded_scene

IGNORED = 255


def noise(height, width, seed=0, classes=5):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return Scene(image, rng.integers(0, classes, (height, width), np.uint8))


def coded(height, width):
    """A scene whose label can be read off its image: the red of a pixel is 10 times its class."""
    label = np.add.outer(np.arange(height) // 7, np.arange(width) // 5).astype(np.uint8) % 20
    return Scene(np.repeat(label[..., None] * 10, 3, -1), label)


def transform(size=(24, 24), augment=None, **crop):
    return SceneTransform(size, CropConfig(**crop), augment or AugmentConfig(), (0, 0, 0), IGNORED)


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def drawn(view, scene, seed):
    return view(scene, np.random.default_rng(seed))


@pytest.mark.parametrize("scaled", [(29, 41), (62, 80), (93, 37), (500, 333)])
def test_labels_take_the_pixel_that_pillow_takes(scaled):
    label = noise(62, 80).label
    pillow = Image.fromarray(label).resize(scaled[::-1], Image.Resampling.NEAREST)
    differs = scale_label(label, scaled) != np.asarray(pillow)
    # A centre on the edge of two pixels is as near to both, and Pillow computes in floats.
    edges = [
        (2 * np.arange(other) + 1) * own % (2 * other) == 0
        for own, other in zip(label.shape, scaled, strict=True)
    ]
    assert not differs[~edges[0]][:, ~edges[1]].any()
    assert not edges[0].all()
    assert not edges[1].all()


@pytest.mark.parametrize("scaled", [(30, 41), (100, 130), (62, 80)])
def test_a_part_is_cut_out_of_the_scaled_scene(scaled):
    scene = noise(62, 80)
    whole = np.asarray(Image.fromarray(scene.image).resize(scaled[::-1], Image.Resampling.BILINEAR))
    part = scaled_part(scene, scaled, (5, 11), (20, 30))
    window = slice(5, 25), slice(11, 41)
    assert np.array_equal(part.label, scale_label(scene.label, scaled)[window])
    difference = np.abs(part.image.astype(int) - whole[window])
    # Pillow rounds the places of a part on their own.
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.9


def test_a_part_at_the_end_is_inside():
    scene = noise(37, 53)
    for scaled in ((101, 97), (11, 13), (3, 200)):
        part = scaled_part(scene, scaled, (0, 0), scaled)
        assert part.image.shape == (*scaled, 3)
        assert part.label.shape == scaled


def test_scenes_are_a_function_of_the_generator():
    view = transform(scale=(0.5, 2), augment=AugmentConfig(flip=True, color_jitter=0.4))
    scene = noise(40, 60)
    assert same(drawn(view, scene, 3), drawn(view, scene, 3))
    assert len({drawn(view, scene, seed).image.tobytes() for seed in range(20)}) == 20


def test_image_and_label_move_together():
    view = transform((30, 36), scale=(0.5, 2), augment=AugmentConfig(flip=True))
    for seed in range(30):
        image, label = drawn(view, coded(60, 80), seed)
        inside = label != IGNORED
        shown = np.rint(image[..., 0] / 10).astype(int)
        # Only on the borders of the classes does the interpolation show another one.
        assert (shown == label)[inside].mean() > 0.7
        assert inside.any()


def test_padding_is_ignored_and_to_the_right_and_below():
    view = dataclasses.replace(transform((50, 70)), fill=(9, 8, 7))
    scene = noise(40, 60)
    image, label = drawn(view, scene, 0)
    assert same((image[:40, :60], label[:40, :60]), scene)
    outside = np.ones((50, 70), bool)
    outside[:40, :60] = False
    assert (label[outside] == IGNORED).all()
    assert (image[outside] == (9, 8, 7)).all()


def test_colours_change_neither_the_label_nor_the_padding():
    augment = AugmentConfig(color_jitter=0.4, lighting=0.1, pixel_shift=20)
    plain = transform((50, 70))
    scene = noise(40, 60)
    image, label = drawn(dataclasses.replace(plain, augment=augment), scene, 0)
    assert np.array_equal(label, drawn(plain, scene, 0).label)
    assert not image[40:].any()
    assert np.abs(image[:40, :60].astype(int) - scene.image).mean() > 3


def sizes_of(scene, count=300, **crop):
    view, rng = transform(**crop), np.random.default_rng(0)
    return np.array([draw_size(scene.label.shape, view.crop, rng) for _ in range(count)])


def test_the_longer_side_is_drawn_as_the_authors_draw_it():
    sizes = sizes_of(noise(30, 45), base=100, scale=(0.5, 2.0), side="long")
    assert sizes[:, 1].min() < 55
    assert sizes[:, 1].max() > 195
    assert ((sizes[:, 1] >= 50) & (sizes[:, 1] <= 200)).all()
    assert np.array_equal(sizes[:, 0], (sizes[:, 1] * 30 / 45 + 0.5).astype(int))


def test_the_shorter_side_is_drawn_as_torchvision_draws_it():
    sizes = sizes_of(noise(30, 45), base=100, scale=(0.5, 2.0), side="short")
    assert ((sizes[:, 0] >= 50) & (sizes[:, 0] <= 200)).all()
    assert np.array_equal(sizes[:, 1], (sizes[:, 0] * 45 / 30).astype(int))
    assert np.ptp(sizes[:, 0]) > 140


def test_without_a_base_the_scale_is_that_of_the_image():
    sizes = sizes_of(noise(60, 30), scale=(0.5, 0.5))
    assert (sizes == (30, 15)).all()


def test_crops_come_from_everywhere():
    height, width = 20, 30
    place = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    scene = Scene(np.zeros((height, width, 3), np.uint8), place)
    view = dataclasses.replace(transform((8, 8)), ignored=65535)
    corners = {int(drawn(view, scene, seed).label[0, 0]) for seed in range(4000)}
    assert corners == {row * width + column for row in range(13) for column in range(23)}


@pytest.mark.parametrize("flip", [False, True])
def test_half_of_the_scenes_are_mirrored_if_asked(flip):
    scene = noise(24, 24)
    view = transform(augment=AugmentConfig(flip=flip))
    mirrored = Scene(scene.image[:, ::-1], scene.label[:, ::-1])
    found = [drawn(view, scene, seed) for seed in range(200)]
    assert all(same(each, scene) or same(each, mirrored) for each in found)
    count = sum(same(each, mirrored) for each in found)
    assert 70 < count < 130 if flip else count == 0


def test_a_scene_is_not_written_to():
    scene = noise(24, 24)
    before = scene.image.copy(), scene.label.copy()
    for seed in range(5):
        drawn(transform(augment=AugmentConfig(flip=True, color_jitter=0.4)), scene, seed)
    assert same(scene, before)


def test_labels_of_sixteen_bits_are_kept():
    scene = Scene(np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 300, np.uint16))
    padded = padded_scene(scene, (6, 5), (0, 0, 0), 65535)
    assert padded.label.dtype == np.uint16
    assert padded.label[0, 0] == 300
    assert padded.label[5, 4] == 65535
