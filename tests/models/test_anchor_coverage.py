"""The best anchor of an object, against a search of all anchors."""

import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.models.detection.coverage import anchor_overlap
from senet_jax.models.zoo import create_model
from senet_jax.ops.boxes import iou


@pytest.mark.parametrize("style", ["torchvision", "detectron2"])
def test_the_best_anchor_is_found_without_a_search(style):
    network = create_model(
        "fasterrcnn_resnet18_fpn",
        widths=(4, 4, 4, 4),
        blocks=(1, 1, 1, 1),
        anchor_sizes=(8, 12, 17, 24, 32, 48, 64, 96, 128, 160),
        anchor_style=style,
    )
    shape, rng = (96, 160), np.random.default_rng(0)
    corners, sides = rng.uniform(0, (140, 80), (300, 2)), rng.lognormal(2.8, 0.7, (300, 2))
    boxes = np.concatenate([corners, np.minimum(corners + sides, (160, 96))], 1)
    grids = [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
    anchors = np.concatenate(network.anchors(shape, grids))
    expected = np.asarray(iou(jnp.array(boxes, jnp.float32), jnp.array(anchors))).max(1)
    found = anchor_overlap(network, boxes, shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert 0.2 < (found > 0.5).mean() < 0.95
