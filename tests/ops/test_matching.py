"""Matching and sampling against loops and torchvision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.ops.boxes import iou
from senet_jax.ops.matching import IGNORED, NEGATIVE, POSITIVE, match, sample
from senet_jax.ops.per_image import per_image
from senet_jax.planning.collectives import by_kind, read_collectives
from senet_jax.training.distributed import mesh as meshes
from tests.ops.torchvision_oracle import needs_torchvision, torchvision


def loop(overlaps, valid, high, low, low_quality):
    """The rule, an anchor at a time."""
    objects = [row for row, there in enumerate(valid) if there]
    kinds = []
    for anchor in range(overlaps.shape[1]):
        greatest = max((overlaps[g, anchor] for g in objects), default=-1.0)
        kind = POSITIVE if greatest >= high else NEGATIVE if greatest < low else IGNORED
        best = [g for g in objects if overlaps[g].max() == overlaps[g, anchor] > 0]
        kinds.append(POSITIVE if low_quality and best else kind)
    return kinds


def draw(objects, anchors, seed=0):
    """Overlaps in tenths, so that there are ties and values at the thresholds."""
    return np.random.default_rng(seed).integers(0, 10, (objects, anchors)).astype("f4") / 10


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_matches_are_those_of_the_loop(low_quality, seed):
    overlaps = draw(4, 30, seed) * np.float32([[1], [1], [0.2], [1]])
    valid = np.array([True, True, True, False])
    high, low = (float(np.float32(x)) for x in (0.7, 0.3))
    box, kind = match(jnp.array(overlaps), valid, high=high, low=low, low_quality=low_quality)
    assert kind.tolist() == loop(overlaps, valid, np.float32(0.7), np.float32(0.3), low_quality)
    assert box.tolist() == overlaps[:3].argmax(0).tolist()


def test_padding_is_never_matched():
    boxes = jnp.float32([[0, 0, 10, 10], [0, 0, 0, 0], [20, 20, 30, 30]])
    valid = jnp.array([True, False, False])
    anchors = jnp.float32([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60], [0, 0, 0, 0]])
    fields = {"high": 0.7, "low": 0.3, "low_quality": True}
    box, kind = match(iou(boxes, anchors), valid, **fields)
    assert kind.tolist() == [POSITIVE, NEGATIVE, NEGATIVE, NEGATIVE]
    assert box.tolist() == [0] * 4
    assert (match(iou(boxes, anchors), jnp.zeros(3, bool), **fields).kind == NEGATIVE).all()


def test_ties_are_found_where_xla_fuses_the_overlaps():
    # Anchors that lie alike around an object have the same overlap, to the last bit.
    rng = np.random.default_rng(0)
    boxes = jnp.float32(np.concatenate([c := rng.uniform(0, 50, (8, 2)), c + 7.3], 1))
    anchors = jnp.concatenate(
        [boxes + jnp.float32([3, 0, 3, 0]), boxes + jnp.float32([0, 3, 0, 3])]
    )

    def kinds(boxes, anchors):
        return match(iou(boxes, anchors), jnp.ones(8, bool), high=0.9, low=0.1, low_quality=True)

    overlaps = np.asarray(iou(boxes, anchors))
    expected = loop(overlaps, np.ones(8, bool), 0.9, 0.1, True)
    assert jax.jit(kinds)(boxes, anchors).kind.tolist() == expected


def drawn(kind, order, count, share):
    """Both kinds in the order of the permutation."""
    positive = [i for i in order if kind[i] == POSITIVE][: int(count * share)]
    return positive, [i for i in order if kind[i] == NEGATIVE][: count - len(positive)]


@pytest.mark.parametrize(("positives", "negatives"), [(20, 60), (3, 60), (20, 5), (0, 9), (0, 0)])
def test_samples_are_the_first_of_a_permutation(positives, negatives):
    kind = np.full(100, IGNORED)
    rng = np.random.default_rng(0)
    where = rng.permutation(100)
    kind[where[:positives]] = POSITIVE
    kind[where[positives : positives + negatives]] = NEGATIVE
    order = rng.permutation(100)
    found = sample(jnp.array(order), jnp.array(kind), 32, 0.25)
    first, then = drawn(kind, order, 32, 0.25)
    assert found.anchor[found.valid].tolist() == first + then
    assert found.positive.tolist() == [True] * len(first) + [False] * (32 - len(first))
    assert found.valid.sum() == len(first) + len(then)


def test_more_samples_than_anchors_are_not_valid():
    found = sample(jax.random.key(0), jnp.array([1, 0, 0, -1]), 8, 0.5)
    assert sorted(found.anchor[found.valid].tolist()) == [0, 1, 2]
    assert found.valid.tolist() == [True] * 3 + [False] * 5


@pytest.mark.parametrize(("count", "share"), [(1000, 0.5), (1000, 1.0), (6, 0.5)])
def test_fewer_slots_hold_the_same_samples(count, share):
    kind = jnp.array([1, 0, 0, -1, 1, 0, 1])
    order = jnp.array([3, 6, 2, 0, 5, 1, 4])
    found = sample(order, kind, count, share, slots=7)
    whole = sample(order, kind, count, share)
    assert len(found.anchor) == 7
    for own, all_ in zip(found, whole, strict=True):
        assert own[found.valid].tolist() == all_[whole.valid].tolist()


def test_a_key_draws_every_anchor_equally_often():
    kind = jnp.array([POSITIVE] * 10 + [NEGATIVE] * 30)

    def hits(key):
        found = sample(key, kind, 8, 0.25)
        return jnp.zeros(40).at[found.anchor].add(found.valid)

    share = jax.vmap(hits)(jax.random.split(jax.random.key(0), 4000)).mean(0)
    # Two of 10 and six of 30: the standard deviation of each share is 0.0063.
    np.testing.assert_allclose(share, 0.2, atol=0.03)


def test_on_a_mesh_there_is_no_collective():
    mesh = meshes.make_mesh(8)
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 50, (16, 40, 2)).astype("f4")
    boxes = np.concatenate([corner, corner + 9], -1)
    keys = jax.random.split(jax.random.key(0), 16)

    def targets(key, boxes):
        found = match(iou(boxes[:5], boxes), jnp.ones(5, bool), high=0.5, low=0.3, low_quality=True)
        return found, sample(key, found.kind, 16, 0.5)

    def step(keys, boxes):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return per_image(targets)(keys, boxes)

    sharded = meshes.over_batch(mesh)
    lowered = jax.jit(step, in_shardings=sharded, out_shardings=sharded).lower(keys, boxes)
    compiled = lowered.compile()
    assert by_kind(read_collectives(compiled.as_text())) == {}
    found = compiled(*jax.device_put((keys, boxes), sharded))
    jax.tree.map(np.testing.assert_array_equal, found, jax.vmap(targets)(keys, boxes))


PROGRAM = """
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
def function(overlaps, high, low, low_quality, count, share):
    matches = Matcher(high, low, low_quality)(overlaps)
    kinds = torch.where(matches < 0, matches + 1, 1)
    return matches, [masks[0] for masks in BalancedPositiveNegativeSampler(count, share)([kinds])]
"""


@pytest.mark.slow
@needs_torchvision
@pytest.mark.parametrize(("high", "low", "low_quality"), [(0.7, 0.3, True), (0.5, 0.5, False)])
def test_matches_equal_those_of_torchvision(high, low, low_quality):
    overlaps = np.random.default_rng(0).random((6, 500)).astype("f4")
    overlaps[2] *= 0.6
    overlaps[2, [7, 300]] = 0.65
    matches, (positive, negative) = torchvision(
        PROGRAM, overlaps, high, low, low_quality, 128, 0.25
    )
    box, kind = match(
        jnp.array(overlaps), jnp.ones(6, bool), high=high, low=low, low_quality=low_quality
    )
    assert kind.tolist() == np.where(matches >= 0, POSITIVE, matches + 1).tolist()
    np.testing.assert_array_equal(np.asarray(box)[matches >= 0], matches[matches >= 0])
    found = sample(jax.random.key(0), kind, 128, 0.25)
    assert found.positive.sum() == positive.sum()
    assert (found.valid & ~found.positive).sum() == negative.sum()


def test_a_key_draws_the_same_in_float64():
    # The anchors of the goldens in float64 are those of float32.
    kind = jnp.array([POSITIVE, NEGATIVE, IGNORED, NEGATIVE] * 16)
    first = sample(jax.random.key(3), kind, 24, 0.5)
    with jax.enable_x64(True):
        then = sample(jax.random.key(3), jnp.asarray(kind), 24, 0.5)
    for a, b in zip(first, then, strict=True):
        np.testing.assert_array_equal(a, b)
