"""Matches of anchors or proposals and objects, and a fixed number of them, drawn by key."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


class Matches(NamedTuple):
    """Objects of anchors."""

    box: Int[Array, " n"]
    """Index of the object that overlaps most; of the first of them in a tie. It is set for
    negative and ignored anchors, too."""
    kind: Int[Array, " n"]
    """``POSITIVE``, ``NEGATIVE`` or ``IGNORED``."""


def match(
    overlaps: Float[Array, "g n"],
    valid: Bool[Array, " g"],
    *,
    high: float,
    low: float,
    low_quality: bool,
) -> Matches:
    """Matches anchors with objects by their overlaps.

    An anchor is positive if its greatest overlap is at least ``high``, negative if that is less
    than ``low``, and otherwise ignored. All anchors of an image without objects are negative.

    Args:
        overlaps: IoU of all objects and anchors.
        valid: False for padded objects, which no anchor matches.
        high: Least overlap of a positive anchor.
        low: Overlap from which an anchor is not negative.
        low_quality: Anchors with the greatest overlap that an object has with any anchor,
            ties included, are positive, too. Such an anchor matches the object that overlaps it
            most, as in torchvision, which need not be the object that made it positive. An object
            that overlaps no anchor makes none positive; in torchvision it makes all positive.
    """
    # If XLA computed the overlaps anew for the maximum, rounding could break the ties.
    overlaps = lax.optimization_barrier(jnp.where(valid[:, None], overlaps, -1))
    greatest = overlaps.max(0)
    kind = jnp.where(greatest >= high, POSITIVE, jnp.where(greatest < low, NEGATIVE, IGNORED))
    if low_quality:
        of_object = overlaps.max(1, keepdims=True)
        kind = jnp.where(((overlaps == of_object) & (of_object > 0)).any(0), POSITIVE, kind)
    return Matches(overlaps.argmax(0).astype(jnp.int32), kind.astype(jnp.int32))


class Sample(NamedTuple):
    """Anchors that train, a fixed number: first the positive ones, then the negative, then none."""

    anchor: Int[Array, " k"]
    """Index of the anchor; arbitrary where not valid."""
    positive: Bool[Array, " k"]
    valid: Bool[Array, " k"]
    """False where there were too few anchors."""


def sample(
    order: PRNGKeyArray | Int[Array, " n"],
    kind: Int[Array, " n"],
    count: int,
    positive_share: float,
    *,
    slots: int | None = None,
) -> Sample:
    """Draws positive and negative anchors without replacement.

    As many are positive as there are, up to the share; negative ones fill the rest, as far as there
    are enough.

    Args:
        order: A random key, or a permutation of the anchors: the first of each kind are taken.
        kind: From :func:`match`; ignored anchors are never drawn.
        count: The number to draw.
        positive_share: The share of ``count``, rounded down, that may be positive.
        slots: Length of the result, k, at least the least of ``count`` and the number of anchors;
            if None, ``count``.
    """
    n = len(kind)
    if jnp.issubdtype(order.dtype, jax.dtypes.prng_key):
        priority = (jax.random.bits(order, (n,), jnp.uint32) >> 1).astype(jnp.int32)
    else:
        priority = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, 0, -1, jnp.int32))

    def first(which: Array, most: int) -> tuple[Array, Array]:
        """The indices with the highest priority, and how many are of this kind."""
        found = lax.top_k(jnp.where(which, priority, -1), min(most, n))[1]
        return jnp.pad(found, (0, min(most, len(slot)) - len(found))), which.sum()

    slot = jnp.arange(slots or count)
    most = int(count * positive_share)
    positives, there = first(kind == POSITIVE, most)
    positive_count = jnp.minimum(there, most)
    negatives, there = first(kind == NEGATIVE, count)
    negative_count = jnp.minimum(there, count - positive_count)
    positive = slot < positive_count
    positives = jnp.pad(positives, (0, len(slot) - len(positives)))
    index = jnp.where(positive, positives, negatives[jnp.maximum(slot - positive_count, 0)])
    return Sample(index, positive, slot < positive_count + negative_count)
