"""Mask targets and pasting against loops over pixels and torchvision."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import UsageError
from senet_jax.ops.masks import crop_masks, paste_mask, paste_masks
from senet_jax.ops.per_image import per_image
from senet_jax.planning.collectives import by_kind, read_collectives
from senet_jax.training.distributed import mesh as meshes
from tests.ops.torchvision_oracle import needs_torchvision, torchvision


def bilinear(mask, y, x):
    """Value between pixels; zero from one pixel outside on."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]:
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * mask[row, column]
    return total


def cropped(mask, box, side, aligned):
    """Mean of the samples of every cell, inside the image."""
    x1, y1, x2, y2 = (float(c) - 0.5 * aligned for c in box)
    height, width = y2 - y1, x2 - x1
    if not aligned:
        height, width = max(height, 1), max(width, 1)
    down, across = math.ceil(height / side), math.ceil(width / side)
    result = np.zeros((side, side))
    for i, j in np.ndindex(side, side):
        for a, b in np.ndindex(down, across):
            y = min(max(y1 + height / side * (i + (a + 0.5) / down), 0), mask.shape[0] - 1)
            x = min(max(x1 + width / side * (j + (b + 0.5) / across), 0), mask.shape[1] - 1)
            result[i, j] += bilinear(mask, y, x) / (down * across)
    return result


def draw(seed=0):
    """Discs of an image of 40 x 50 pixels, and RoIs around them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :50]
    masks = np.stack([(y - 20 - 4 * k) ** 2 + (x - 25 - 3 * k) ** 2 < 90 for k in range(3)])
    corner = rng.uniform(0, 25, (8, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.5, 15, (8, 2))], 1).astype("f4")
    boxes[0] = [0, 0, 50, 40]
    return masks, boxes, rng.integers(0, 3, 8).astype("i4")


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_mask_targets_equal_the_loop(aligned, dtype):
    masks, boxes, of_mask = draw()
    found = crop_masks(jnp.array(masks, dtype), boxes, of_mask, 7, aligned=aligned)
    expected = [
        cropped(masks[m].astype(float), box, 7, aligned)
        for m, box in zip(of_mask, boxes, strict=True)
    ]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert 0.1 < np.mean(expected) < 0.9


def at_centres(mask, box, height, width):
    """Reads the mask at the centre of each pixel."""
    x1, y1, x2, y2 = (float(c) for c in box)
    side = len(mask)
    return [
        [
            bilinear(
                mask,
                (y + 0.5 - y1) / (y2 - y1) * side - 0.5,
                (x + 0.5 - x1) / (x2 - x1) * side - 0.5,
            )
            for x in range(width)
        ]
        for y in range(height)
    ]


def resized(mask, box, height, width):
    """Grows mask and box by a border, and resizes it to whole pixels."""
    padded, scale = np.pad(mask, 1), (len(mask) + 2) / len(mask)
    x1, y1, x2, y2 = (np.float32(c) for c in box)
    middle, half = ((x1 + x2) / 2, (y1 + y2) / 2), ((x2 - x1) / 2 * scale, (y2 - y1) / 2 * scale)
    left, top = (int(m - h) for m, h in zip(middle, half, strict=True))
    right, bottom = (int(m + h) for m, h in zip(middle, half, strict=True))
    rows, columns, last = max(bottom - top + 1, 1), max(right - left + 1, 1), len(padded) - 1
    image = np.zeros((height, width))
    for y in range(max(top, 0), min(bottom + 1, height)):
        for x in range(max(left, 0), min(right + 1, width)):
            row = min(max((y - top + 0.5) * len(padded) / rows - 0.5, 0), last)
            column = min(max((x - left + 0.5) * len(padded) / columns - 0.5, 0), last)
            image[y, x] = bilinear(padded, row, column)
    return image


ORACLES = {"torchvision": resized, "detectron2": at_centres}
BOXES = [
    [3.3, 4.6, 20.2, 17.9],
    [-6.5, -3.2, 9.1, 40.7],
    [18.7, 11.2, 60.3, 15.5],
    [5.2, 5.1, 5.9, 5.8],
    [-30, -30, -20, -20],
    [70, 60, 90, 95],
    [0, 0, 24, 20],
]


@pytest.mark.parametrize("style", ORACLES)
@pytest.mark.parametrize("box", BOXES, ids=str)
def test_pasted_masks_equal_the_loop(style, box):
    mask = np.random.default_rng(0).random((6, 6)).astype("f4")
    found = paste_mask(mask, np.float32(box), 20, 24, style)
    assert found.shape == (20, 24)
    np.testing.assert_allclose(found, ORACLES[style](mask, box, 20, 24), atol=3e-6)


def test_each_style_has_its_own_comparison():
    # The border of the box lies on centres of pixels, where a full mask is a half.
    mask, box = np.ones((1, 4, 4), "f4"), np.float32([[2.5, 2.5, 6.5, 6.5]])
    found = paste_masks(mask, box, 10, 10, "detectron2")[0]
    assert np.flatnonzero(found.any(0)).tolist() == [2, 3, 4, 5, 6]
    half = np.full((1, 4, 4), 0.5, "f4")
    assert not paste_masks(half, box, 10, 10)[0].any()
    assert paste_masks(half, box, 10, 10, "detectron2")[0, 4, 4]


@pytest.mark.parametrize("style", ORACLES)
def test_boxes_without_sense_and_no_boxes_are_empty(style):
    masks = np.ones((2, 4, 4), "f4")
    boxes = np.float32([[np.nan, 0, 5, 5], [0, 0, np.inf, 5]])
    assert not paste_masks(masks, boxes, 8, 9, style).any()
    assert paste_masks(masks[:0], boxes[:0], 8, 9, style).shape == (0, 8, 9)
    degenerate = paste_mask(masks[0], np.float32([4, 4, 4, 2]), 8, 9, style)
    assert degenerate.sum() <= 1


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_style_is_refused():
    with pytest.raises(UsageError, match="detectron2"):
        paste_mask(np.ones((2, 2), "f4"), np.float32([0, 0, 1, 1]), 4, 4, "detectron")


def test_on_a_mesh_there_is_no_collective():
    mesh = meshes.make_mesh(8)
    images = jax.tree.map(lambda *each: np.stack(each), *map(draw, range(8)))

    def step(*images):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return per_image(lambda *image: crop_masks(*image, 7))(*images)

    sharded = meshes.over_batch(mesh)
    lowered = jax.jit(step, in_shardings=sharded, out_shardings=sharded).lower(*images)
    compiled = lowered.compile()
    assert by_kind(read_collectives(compiled.as_text())) == {}
    masks, boxes, of_mask = draw(3)
    np.testing.assert_allclose(
        compiled(*images)[3], crop_masks(jnp.array(masks), boxes, of_mask, 7), atol=1e-6
    )


PROGRAM = """
from torchvision.models.detection import roi_heads
from torchvision.ops.roi_align import _roi_align
roi_heads.roi_align = lambda x, rois, size, scale: _roi_align(x, rois, scale, *size, -1, False)
def function(masks, boxes, of_mask, probabilities, height, width):
    return (roi_heads.project_masks_on_boxes(masks, boxes, of_mask, 14),
            roi_heads.paste_masks_in_image(probabilities[:, None], boxes, (height, width)))
"""


@pytest.mark.slow
@needs_torchvision
def test_masks_equal_those_of_torchvision():
    masks, boxes, of_mask = draw()
    probabilities = np.random.default_rng(0).random((8, 28, 28)).astype("f4")
    targets, pasted = torchvision(
        PROGRAM, masks.astype("u1"), boxes, of_mask.astype("i8"), probabilities, 40, 50
    )
    found = crop_masks(jnp.array(masks), boxes, of_mask, 14)
    np.testing.assert_allclose(found, targets, atol=2e-5)
    for mask, box, expected in zip(probabilities, boxes, pasted, strict=True):
        np.testing.assert_allclose(paste_mask(mask, box, 40, 50), expected[0], atol=1e-5)
