"""Non-maximum suppression with static shapes, equal to the greedy one.

The greedy algorithm takes the boxes from the best score to the worst, and drops a box that overlaps
one that it has kept. Here all boxes decide at once, again and again: a box stays unless a better
box that stayed in the last round overlaps it. After t rounds the best t decisions are final, so
what no round changes any more is the greedy result. Boxes of photographs take a few rounds; a chain
in which each box overlaps the next takes as many rounds as it has boxes.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from senet_jax.ops.boxes import iou


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    threshold: float,
    *,
    valid: Bool[Array, " n"] | None = None,
    groups: Int[Array, " n"] | None = None,
) -> Bool[Array, " n"]:
    """Marks the boxes that greedy non-maximum suppression keeps, in the order of the input.

    For the images of a batch, use ``per_image``. Memory: n * n booleans.

    Args:
        boxes: Boxes (x1, y1, x2, y2).
        scores: The scores; of two equal ones, the first counts as the better one. A box whose
            score is NaN or minus infinity is not kept and drops no other; in torchvision NaN is
            the best score.
        threshold: A box is dropped if its IoU with a better, kept box is greater.
        valid: False for padding, which is not kept and drops no other. If None, all are valid.
        groups: Numbers of classes or levels: boxes of different groups do not drop each other. If
            None, all boxes are one group.
    """
    there = scores > -jnp.inf
    if valid is not None:
        there &= valid
    order = jnp.argsort(jnp.where(there, scores, -jnp.inf), descending=True, stable=True)
    own = None if groups is None else groups[order]
    kept = _kept(boxes[order], there[order], threshold, own)
    return jnp.zeros_like(kept).at[order].set(kept, unique_indices=True)


def _kept(
    ranked: Float[Array, "n 4"],
    alive: Bool[Array, " n"],
    threshold: float,
    groups: Int[Array, " n"] | None,
) -> Bool[Array, " n"]:
    """Marks the boxes that are kept, of boxes in the order of their scores."""
    drops = iou(ranked, ranked) > threshold
    drops &= jnp.tri(len(ranked), k=-1, dtype=bool).T
    if groups is not None:
        drops &= groups[:, None] == groups[None]
    # Without the barrier XLA computes the overlaps anew in each round.
    drops = lax.optimization_barrier(drops)

    def round_of(state: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, _ = state
        now = alive & ~(drops & kept[:, None]).any(0)
        return now, (now != kept).any()

    kept, _ = lax.while_loop(lambda state: state[1], round_of, (alive, alive.any()))
    return kept


def nms_best(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    threshold: float,
    count: int,
    *,
    valid: Bool[Array, " n"] | None = None,
    groups: Int[Array, " n"] | None = None,
    shift: Float[Array, " n"] | None = None,
    block: int = 1024,
) -> tuple[Int[Array, " k"], Bool[Array, " k"]]:
    """``best`` of the boxes that ``nms`` keeps, for many boxes of which few are wanted.

    The boxes are looked at in blocks, from the best score, until ``count`` are kept. Memory: block
    times the greater of block and ``count`` booleans.

    Args:
        boxes: As of ``nms``.
        scores: Likewise.
        threshold: Likewise.
        count: As of ``best``.
        valid: As of ``nms``.
        groups: Likewise.
        shift: Added to the coordinates of each box before overlaps are computed, see
            ``group_step``. If None, nothing is.
        block: Boxes that are looked at together.

    Returns:
        As ``best``.
    """
    boxes, n = jnp.asarray(boxes), len(scores)
    count, block = min(count, n), min(block, n)
    there = scores > -jnp.inf
    if valid is not None:
        there &= valid
    order = jnp.argsort(jnp.where(there, scores, -jnp.inf), descending=True, stable=True)
    missing = -n % block
    order = jnp.pad(order, (0, missing))
    alive = jnp.pad(there[order[:n]], (0, missing))
    groups = jnp.zeros(n, jnp.int32) if groups is None else jnp.asarray(groups)
    shift = jnp.zeros(n, boxes.dtype) if shift is None else shift

    def next_block(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        start, found, kept = state
        index = lax.dynamic_slice(order, (start,), (block,))
        old = kept[:count]
        # Here, as a fused multiplication would round the sum only once.
        own_boxes = boxes[index] + shift[index, None]
        dropped = iou(boxes[old] + shift[old, None], own_boxes) > threshold
        dropped &= groups[old][:, None] == groups[index][None]
        dropped &= (jnp.arange(count) < found)[:, None]
        own = lax.dynamic_slice(alive, (start,), (block,)) & ~dropped.any(0)
        own = _kept(own_boxes, own, threshold, groups[index])
        so_far = found + jnp.cumsum(own, dtype=jnp.int32)
        place = jnp.where(own, jnp.minimum(so_far - 1, count), count)
        return start + block, jnp.minimum(so_far[-1], count), kept.at[place].set(index)

    def goes_on(state: tuple[Array, Array, Array]) -> Array:
        start, found, _ = state
        # The boxes that count stand before all others.
        return (found < count) & (start < len(order)) & alive[jnp.minimum(start, n - 1)]

    # The last place takes what is not wanted.
    nothing = jnp.zeros(count + 1, order.dtype)
    start = jnp.zeros((), jnp.int32)
    _, found, kept = lax.while_loop(goes_on, next_block, (start, start, nothing))
    return kept[:count], jnp.arange(count) < found


FEW = 1000
"""Boxes up to which torchvision moves groups apart, on CPUs."""


def group_step(boxes: Float[Array, "n 4"], valid: Bool[Array, " n"]) -> Float[Array, ""]:
    """The distance by which torchvision moves each group of boxes further than the one before.

    The sums are rounded, which matters for boxes thinner than a hundredth of a pixel. It is 0 for
    more than ``FEW`` boxes, which torchvision takes group by group as they are.

    Args:
        boxes: Boxes of all groups.
        valid: False for padding.
    """
    count = valid.sum()
    greatest = jnp.where(valid[:, None], boxes, -jnp.inf).max()
    return jnp.where((count > 0) & (count <= FEW), greatest + 1, 0)


def best(
    scores: Float[Array, " n"], keep: Bool[Array, " n"], count: int
) -> tuple[Int[Array, " k"], Bool[Array, " k"]]:
    """The indices of the kept boxes with the highest scores, best first, and which are valid.

    Ties are in the order of the input. Where fewer than ``count`` boxes are kept, the rest of the
    indices are those of other boxes and not valid.

    Args:
        scores: Scores.
        keep: From :func:`nms`.
        count: Length of the result, k; n where that is less.
    """
    keep = keep & (scores > -jnp.inf)
    _, index = lax.top_k(jnp.where(keep, scores, -jnp.inf), min(count, len(scores)))
    return index, keep[index]
