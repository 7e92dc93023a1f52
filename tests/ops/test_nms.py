"""NMS against the greedy loop, and on a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.ops.nms import best, nms, nms_best
from senet_jax.ops.per_image import per_image
from senet_jax.planning.collectives import by_kind, read_collectives
from senet_jax.training.distributed import mesh as meshes


def greedy(boxes, scores, threshold, valid=None, groups=None):
    """The algorithm as it is told: from the best box to the worst."""
    boxes = boxes.astype("f8")
    kept = np.zeros(len(boxes), bool)
    for i in np.argsort(-scores, kind="stable"):
        if np.isnan(scores[i]) or (valid is not None and not valid[i]):
            continue
        rivals = [j for j in np.flatnonzero(kept) if groups is None or groups[i] == groups[j]]
        kept[i] = all(overlap(boxes[i], boxes[j]) <= threshold for j in rivals)
    return kept


def overlap(a, b):
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    inner = sides.prod()
    union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner
    return inner / union if union else 0.0


def draw(count, seed=0):
    """Crowded boxes of whole pixels, with scores of which many are ties."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 60, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(8, 30, (count, 2))], 1).astype("f4")
    return boxes, rng.integers(0, count // 3, count).astype("f4")


@functools.partial(jax.jit, static_argnames="threshold")
def jitted(boxes, scores, threshold, valid=None, groups=None):
    return nms(boxes, scores, threshold, valid=valid, groups=groups)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_nms_is_the_greedy_one(threshold, seed):
    boxes, scores = draw(120, seed)
    found = np.asarray(jitted(boxes, scores, threshold))
    np.testing.assert_array_equal(found, greedy(boxes, scores, threshold))
    assert threshold == 1 or 0 < found.sum() < 120


@pytest.mark.parametrize("seed", range(3))
def test_groups_and_padding_are_those_of_the_greedy_one(seed):
    boxes, scores = draw(120, seed)
    rng = np.random.default_rng(seed)
    groups, valid = rng.integers(0, 3, 120), rng.random(120) < 0.7
    scores[rng.random(120) < 0.1] = np.nan
    found = np.asarray(jitted(boxes, scores, 0.3, valid, groups))
    np.testing.assert_array_equal(found, greedy(boxes, scores, 0.3, valid, groups))
    assert (found != np.asarray(jitted(boxes, scores, 0.3, valid))).any()
    assert not found[~valid | np.isnan(scores)].any()


@pytest.mark.parametrize("count", [1, 2, 101, 256])
def test_a_chain_of_boxes_is_followed_to_its_end(count):
    # Each box overlaps the next by IoU 0.6, and the one after that by a third: every second stays.
    x = np.arange(count, dtype="f4")
    boxes = np.stack([x, 0 * x, x + 4, 0 * x + 1], 1)
    scores = -x
    shuffled = np.random.default_rng(0).permutation(count)
    found = np.asarray(jitted(boxes[shuffled], scores[shuffled], 0.5))
    np.testing.assert_array_equal(found, shuffled % 2 == 0)


def test_an_overlap_equal_to_the_threshold_is_kept():
    boxes = np.float32([[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 3]])
    scores = np.float32([3, 2, 1])
    assert jitted(boxes, scores, 0.5).tolist() == [True, True, False]
    assert jitted(boxes, scores, 0.49).tolist() == [True, False, False]


def test_of_equal_boxes_with_equal_scores_the_first_stays():
    boxes = np.tile(np.float32([[1, 2, 30, 40]]), (5, 1))
    assert jitted(boxes, np.ones(5, "f4"), 0.5).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_box_without_a_score_neither_stays_nor_drops_others(bad):
    boxes = np.tile(np.float32([[1, 2, 30, 40]]), (3, 1))
    assert jitted(boxes, np.float32([bad, 1, 2]), 0.5).tolist() == [False, False, True]
    assert not jitted(boxes, np.full(3, bad, "f4"), 0.5).any()


def test_boxes_without_area_stay():
    boxes = np.float32([[5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]])
    assert jitted(boxes, np.float32([1, 2, 3]), 0.0).all()


def test_images_of_a_batch_are_independent():
    images = [draw(60, seed) for seed in range(4)]
    boxes, scores = (np.stack(each) for each in zip(*images, strict=True))
    found = jax.jit(per_image(lambda b, s: nms(b, s, 0.4)))(boxes, scores)
    for row, image in zip(np.asarray(found), images, strict=True):
        np.testing.assert_array_equal(row, greedy(*image, 0.4))


def test_memory_is_a_few_booleans_for_each_pair():
    count = 1000
    shapes = jax.ShapeDtypeStruct((count, 4), "f4"), jax.ShapeDtypeStruct((count,), "f4")
    compiled = jitted.lower(*shapes, 0.5).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 3 * count**2


def test_best_sorts_what_is_kept():
    scores = jnp.float32([0.5, 0.9, 0.5, 0.7, 0.8])
    keep = jnp.array([True, False, True, True, False])
    index, valid = best(scores, keep, 4)
    assert index[:3].tolist() == [3, 0, 2]
    assert valid.tolist() == [True, True, True, False]
    index, valid = best(scores, keep, 2)
    assert (index.tolist(), valid.tolist()) == ([3, 0], [True, True])
    assert len(best(scores, keep, 9)[0]) == 5


def test_on_a_mesh_there_is_no_collective():
    images = [draw(40, seed) for seed in range(16)]
    boxes, scores = (np.stack(each) for each in zip(*images, strict=True))
    mesh = meshes.make_mesh(8)

    def detect(boxes, scores):
        keep = nms(boxes, scores, 0.4)
        return keep, *best(scores, keep, 10)

    def step(boxes, scores):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return per_image(detect)(boxes, scores)

    sharded = meshes.over_batch(mesh)
    compiled = jax.jit(step, in_shardings=sharded, out_shardings=sharded).lower(boxes, scores)
    compiled = compiled.compile()
    assert by_kind(read_collectives(compiled.as_text())) == {}
    found = compiled(boxes, scores)
    jax.tree.map(np.testing.assert_array_equal, found, jax.vmap(detect)(boxes, scores))


@pytest.mark.parametrize("count", [7, 40, 300])
@pytest.mark.parametrize("block", [16, 50, 512])
def test_blocks_give_the_best_of_all(count, block):
    boxes, scores = draw(200)
    rng = np.random.default_rng(1)
    groups, valid = rng.integers(0, 3, 200), rng.random(200) < 0.8
    scores[::9] = np.nan

    def run(boxes, scores, valid, groups):
        kept = nms(boxes, scores, 0.4, valid=valid, groups=groups)
        return best(scores, kept, count), nms_best(
            boxes, scores, 0.4, count, valid=valid, groups=groups, block=block
        )

    (index, there), (found, own) = jax.jit(run)(boxes, scores, valid, groups)
    np.testing.assert_array_equal(own, there)
    np.testing.assert_array_equal(found[own], index[there])


def test_blocks_of_nothing_give_nothing():
    boxes, scores = draw(20)
    _, there = nms_best(boxes, scores, 0.5, 5, valid=jnp.zeros(20, bool))
    assert there.tolist() == [False] * 5
