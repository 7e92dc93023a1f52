"""Anchors against loops over pixels and torchvision."""

import math

import numpy as np
import pytest

from senet_jax import UsageError
from senet_jax.ops import anchors as ops
from senet_jax.ops.anchors import cell_anchors, grid_anchors, pyramid_anchors
from tests.ops.torchvision_oracle import needs_torchvision, torchvision


def test_anchors_of_size_32_are_those_that_both_projects_print():
    rounded = [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    assert cell_anchors([32], [0.5, 1, 2]).tolist() == rounded
    exact = 32 * math.sqrt(2) / 2
    expected = [
        [-exact, -exact / 2, exact, exact / 2],
        [-16, -16, 16, 16],
        [-exact / 2, -exact, exact / 2, exact],
    ]
    np.testing.assert_allclose(cell_anchors([32], [0.5, 1, 2], "detectron2"), expected, rtol=1e-6)


def test_halves_are_rounded_to_the_even_number():
    assert cell_anchors([5], [1.0]).tolist() == [[-2, -2, 2, 2]]
    assert cell_anchors([7], [1.0]).tolist() == [[-4, -4, 4, 4]]
    assert cell_anchors([5], [1.0], "detectron2").tolist() == [[-2.5, -2.5, 2.5, 2.5]]


def test_styles_count_sizes_and_ratios_in_their_own_order():
    widths = {
        style: (cells[:, 2] - cells[:, 0]).tolist()
        for style in ("torchvision", "detectron2")
        for cells in [cell_anchors([8, 16], [1, 4], style)]
    }
    assert widths == {"torchvision": [8, 16, 4, 8], "detectron2": [8, 4, 16, 8]}


def test_a_grid_is_counted_by_row_column_and_anchor():
    cell = cell_anchors([8, 16], [1.0])
    expected = [
        [column * 5 + x1, row * 4 + y1, column * 5 + x2, row * 4 + y2]
        for row in range(2)
        for column in range(3)
        for x1, y1, x2, y2 in cell.tolist()
    ]
    found = grid_anchors(cell, (2, 3), (4, 5))
    assert found.tolist() == expected
    assert found.dtype == np.float32


@pytest.mark.parametrize(("style", "step"), [("torchvision", 33), ("detectron2", 32)])
def test_strides_of_a_map_that_does_not_divide_the_image(style, step):
    (level,) = pyramid_anchors((100, 100), [(3, 3)], [(8,)], (1.0,), style)
    assert (level[:, 0] + level[:, 2]).tolist() == [0, 2 * step, 4 * step] * 3


def test_a_pyramid_has_an_array_a_level():
    grids = [(16, 20), (8, 10), (4, 5), (2, 3), (1, 2)]
    levels = pyramid_anchors((64, 80), grids)
    assert [len(level) for level in levels] == [3 * h * w for h, w in grids]
    # The middle of the middle ratio is the pixel times the stride.
    assert levels[1][3 * 13 + 1].tolist() == [3 * 8 - 32, 8 - 32, 3 * 8 + 32, 8 + 32]


@pytest.mark.usefixtures("unchecked")
def test_what_gives_no_anchors_is_refused():
    for wrong in (lambda: cell_anchors([], [1.0]), lambda: cell_anchors([8], [-1.0])):
        with pytest.raises(UsageError, match="positive sizes and ratios"):
            wrong()
    with pytest.raises(UsageError, match="torchvision"):
        cell_anchors([8], [1.0], "torchvison")
    with pytest.raises(UsageError, match="for 5 levels, but 1 feature maps"):
        pyramid_anchors((64, 64), [(2, 2)])


PROGRAM = """
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
def function(image, grids, sizes, ratios):
    generator = AnchorGenerator(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes))
    images = ImageList(torch.zeros(1, 3, *image), [tuple(image)])
    return generator(images, [torch.zeros(1, 1, *grid) for grid in grids])[0]
"""


@pytest.mark.slow
@needs_torchvision
@pytest.mark.parametrize(
    ("image", "grids", "sizes", "ratios"),
    [
        ((160, 224), [(40, 56), (20, 28), (10, 14), (5, 7), (3, 4)], ops.SIZES, ops.RATIOS),
        ((100, 70), [(25, 18), (3, 3)], ((7, 13, 31), (5, 90, 17)), (0.3, 1.0, 3.7)),
    ],
)
def test_anchors_equal_those_of_torchvision(image, grids, sizes, ratios):
    arguments = list(image), list(map(list, grids)), list(map(list, sizes)), list(ratios)
    found = np.concatenate(pyramid_anchors(image, grids, sizes, ratios))
    np.testing.assert_array_equal(found, torchvision(PROGRAM, *arguments))
