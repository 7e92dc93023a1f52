"""Boxes against loops over pairs, finite differences and torchvision."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from senet_jax.ops import boxes as ops
from tests.ops.torchvision_oracle import needs_torchvision, torchvision


def draw(count, seed=0, side=40.0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 100, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(0.5, side, (count, 2))], 1).astype("f4")


def overlap(a, b):
    """IoU of one pair, in Python's floats."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner
    return inner / union if union else 0.0


def coded(box, anchor, weights):
    """Targets of one pair, by the formula of R-CNN (arXiv 1311.2524, appendix C)."""
    (px, py, pw, ph), (gx, gy, gw, gh) = (
        ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1) for x1, y1, x2, y2 in (anchor, box)
    )
    targets = (gx - px) / pw, (gy - py) / ph, math.log(gw / pw), math.log(gh / ph)
    return [weight * target for weight, target in zip(weights, targets, strict=True)]


def test_iou_equals_the_loop_over_pairs():
    a, b = draw(9), draw(7, seed=1)
    a[0], b[0] = b[3], [50, 50, 50, 50]
    a[1] = [50, 50, 50, 50]
    expected = [[overlap(p, q) for q in b.tolist()] for p in a.tolist()]
    found = ops.iou(jnp.array(a), jnp.array(b))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert found[0, 3] == 1
    assert found[1, 0] == 0


def test_iou_of_whole_numbers_is_exact():
    # Half, a third and a quarter must compare with thresholds as the fractions do.
    base = jnp.float32([[0, 0, 4, 4]])
    others = jnp.float32([[0, 0, 4, 2], [0, 0, 2, 2], [2, 0, 6, 4], [4, 0, 8, 4], [-4, -4, 0, 0]])
    assert ops.iou(base, others)[0].tolist() == [0.5, 0.25, np.float32(1 / 3), 0, 0]


def test_iou_of_padding_has_finite_gradients():
    boxes = jnp.array(draw(3)).at[1].set(0)
    gradient = jax.grad(lambda b: ops.iou(b, b).sum())(boxes)
    assert jnp.isfinite(gradient).all()


def test_areas_and_masks():
    boxes = jnp.float32(
        [[0, 0, 2, 3], [1, 1, 1, 5], [4, 4, 2, 6], [0, 0, jnp.nan, 1], [0, 0, 1, 1]]
    )
    assert ops.areas(boxes[:3]).tolist() == [6, 0, -4]
    assert ops.degenerate(boxes).tolist() == [False, True, True, True, False]
    assert ops.reaches(boxes, 1).tolist() == [True, False, False, False, True]
    assert ops.reaches(boxes, 1.5).tolist() == [True, False, False, False, False]


def test_clip_moves_corners_to_the_border():
    boxes = jnp.float32([[-3, 5, 12, 9], [11, -2, 15, -1], [1, 2, 3, 4]])
    assert ops.clip(boxes, 8, 10).tolist() == [[0, 5, 10, 8], [10, 0, 10, 0], [1, 2, 3, 4]]
    sizes = jnp.float32([8, 9, 3]), jnp.float32([10, 20, 2])
    assert ops.clip(boxes, *sizes).tolist() == [[0, 5, 10, 8], [11, 0, 15, 0], [1, 2, 2, 3]]


@pytest.mark.parametrize("weights", [ops.RPN_WEIGHTS, ops.BOX_WEIGHTS])
def test_encode_equals_the_formula(weights):
    boxes, anchors = draw(20), draw(20, seed=1)
    found = ops.encode(jnp.array(boxes), jnp.array(anchors), weights)
    expected = [
        coded(*pair, weights) for pair in zip(boxes.tolist(), anchors.tolist(), strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("weights", [ops.RPN_WEIGHTS, ops.BOX_WEIGHTS])
def test_decode_inverts_encode(weights):
    boxes, anchors = jnp.array(draw(50)), jnp.array(draw(50, seed=1))
    found = ops.decode(ops.encode(boxes, anchors, weights), anchors, weights)
    np.testing.assert_allclose(found, boxes, atol=2e-4)


def test_decode_takes_the_boxes_of_several_classes():
    deltas = jnp.float32(np.random.default_rng(0).normal(size=(5, 3, 4)))
    anchors = jnp.array(draw(5))
    found = ops.decode(deltas, anchors[:, None])
    for each in range(3):
        np.testing.assert_array_equal(found[:, each], ops.decode(deltas[:, each], anchors))


def test_decode_limits_growth_and_not_shrinkage():
    anchor = jnp.float32([[0, 0, 16, 16]])

    def side(log):
        box = ops.decode(jnp.float32([[0, 0, 5 * log, 0]]), anchor, ops.BOX_WEIGHTS)
        return box[0, 2] - box[0, 0]

    assert side(50.0) == pytest.approx(1000, rel=1e-5)
    assert side(-9.0) == pytest.approx(16 * math.exp(-9), rel=1e-2)
    assert jax.grad(side)(50.0) == 0
    assert jax.grad(side)(1.0) == pytest.approx(16 * math.e, rel=1e-5)


def test_padding_has_targets_and_gradients_of_zero():
    boxes, anchors = jnp.array(draw(3)).at[1].set(0), jnp.array(draw(3, seed=1)).at[2].set(7)
    found = ops.encode(boxes, anchors)
    assert found[1:].tolist() == [[0] * 4] * 2
    gradients = jax.grad(lambda b, a: ops.encode(b, a).sum(), (0, 1))(boxes, anchors)
    for gradient in gradients:
        assert jnp.isfinite(gradient).all()
        assert (gradient[1:] == 0).all()
        assert (gradient[0] != 0).any()


@pytest.mark.parametrize("function", [ops.encode, ops.decode])
def test_gradients_are_finite_differences(function):
    first = draw(4, seed=2)
    if function is ops.decode:
        first = np.random.default_rng(0).normal(0, 0.3, (4, 4))
    with jax.enable_x64(True):
        arguments = jnp.float64(first), jnp.float64(draw(4, seed=3))
        check_grads(lambda *a: function(*a, ops.BOX_WEIGHTS), arguments, order=1)


@pytest.mark.parametrize("function", [ops.encode, ops.decode, ops.iou])
def test_boxes_of_low_precision_are_computed_in_float32(function):
    assert function(jnp.ones((2, 4), jnp.bfloat16), jnp.ones((2, 4))).dtype == jnp.float32


PROGRAM = """
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import boxes as ops
def function(boxes, anchors, deltas, weights):
    coder = BoxCoder(tuple(weights))
    deltas.requires_grad_()
    decoded = coder.decode_single(deltas, anchors)
    decoded.square().sum().backward()
    wide = boxes * 2 - 60
    return (coder.encode_single(boxes, anchors), decoded, deltas.grad, ops.box_iou(boxes, anchors),
            ops.clip_boxes_to_image(wide, (80, 90)), ops.remove_small_boxes(boxes, 12.0))
"""


@pytest.mark.slow
@needs_torchvision
@pytest.mark.parametrize("weights", [ops.RPN_WEIGHTS, ops.BOX_WEIGHTS])
def test_boxes_equal_those_of_torchvision(weights):
    boxes, anchors = draw(200), draw(200, seed=1)
    deltas = np.random.default_rng(2).normal(0, 3, (200, 4)).astype("f4") * weights
    deltas = deltas.astype("f4")
    coded, decoded, slope, overlaps, clipped, large = torchvision(
        PROGRAM, boxes, anchors, deltas, list(weights)
    )
    boxes, anchors, deltas = map(jnp.array, (boxes, anchors, deltas))
    np.testing.assert_allclose(ops.encode(boxes, anchors, weights), coded, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ops.decode(deltas, anchors, weights), decoded, rtol=1e-5, atol=1e-3)
    found = jax.grad(lambda d: jnp.square(ops.decode(d, anchors, weights)).sum())(deltas)
    np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(ops.iou(boxes, anchors), overlaps, atol=1e-6)
    np.testing.assert_array_equal(ops.clip(boxes * 2 - 60, 80, 90), clipped)
    np.testing.assert_array_equal(np.flatnonzero(ops.reaches(boxes, 12)), large)


def test_a_box_is_covered_as_far_as_it_lies_inside():
    boxes = np.array([(0, 0, 10, 10), (5, 5, 15, 25), (30, 30, 40, 40), (2, 2, 2, 9)], "f4")
    found = ops.covered(np.array([(0, 0, 10, 10), (-9, -9, 99, 99)], "f4"), boxes)
    np.testing.assert_allclose(found, [[1, 0.125, 0, 0], [1, 1, 1, 0]])
