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
    """Which boxes greedy non-maximum suppression keeps, in the order of the input.

    For the images of a batch, use ``per_image``. Memory: n * n booleans.

    Args:
        boxes: Boxes (x1, y1, x2, y2).
        scores: Of two boxes with the same score, the first counts as the better one. A box whose
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
    ranked, alive = boxes[order], there[order]
    drops = iou(ranked, ranked) > threshold
    drops &= jnp.tri(len(order), k=-1, dtype=bool).T
    if groups is not None:
        drops &= groups[order][:, None] == groups[order][None]
    # Without the barrier XLA computes the overlaps anew in each round.
    drops = lax.optimization_barrier(drops)

    def round_of(state: tuple[Array, Array]) -> tuple[Array, Array]:
        kept, _ = state
        now = alive & ~(drops & kept[:, None]).any(0)
        return now, (now != kept).any()

    kept, _ = lax.while_loop(lambda state: state[1], round_of, (alive, alive.any()))
    return jnp.zeros_like(kept).at[order].set(kept, unique_indices=True)


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
