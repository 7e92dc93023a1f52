import numpy as np
import pytest

from senet_jax.analysis.found import draw_objects
from senet_jax.inference.objects import PastedMasks
from senet_jax.ops.masks import paste_masks
from senet_jax.tasks.coco_ap import results_of_image

HEIGHT, WIDTH = 20, 30
BOXES = np.array([[2, 3, 12, 15], [5.5, 1, 29, 8], [0, 10, 9, 19]], np.float32)


@pytest.mark.parametrize("style", ["torchvision", "detectron2"])
def test_masks_are_those_pasted_at_once(style):
    masks = np.random.default_rng(0).random((3, 7, 7), np.float32)
    expected = paste_masks(masks, BOXES, HEIGHT, WIDTH, style)
    assert expected.any((1, 2)).all()
    found = PastedMasks(masks, BOXES, HEIGHT, WIDTH, style)
    assert len(found) == 3
    assert np.array_equal(np.stack(list(found)), expected)
    assert np.array_equal(found[-1], expected[-1])
    assert np.array_equal(found[1:], expected[1:])
    with pytest.raises(IndexError):
        found[3]

    labels, scores = np.array([0, 1, 0]), np.array([0.9, 0.8, 0.7])
    image = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    drawn = [draw_objects(image, BOXES, labels, ["", "", ""], each) for each in (found, expected)]
    assert np.array_equal(*drawn)
    assert (drawn[0] != image).any()
    rows = [results_of_image(1, BOXES, labels, scores, each) for each in (found, expected)]
    assert rows[0] == rows[1]
