"""Groups of images of different sizes, each with one shape that its images are padded to."""

import numpy as np
from jaxtyping import Float, Int

MANY = 64
"""From more different sizes on, sides are rounded up to a multiple of ``MULTIPLE`` at first."""
MULTIPLE = 32
"""Pixels."""


def size_groups(
    sizes: Int[np.ndarray, "n 2"], most: int
) -> list[tuple[tuple[int, int], Int[np.ndarray, " m"]]]:
    """Divides images into groups, so that little is padded.

    At first each size is a group; as long as there are too many, the two are joined that add the
    fewest pixels of padding. The result depends on the sizes alone: all hosts find the same.

    Args:
        sizes: Height and width of each image, pixels.
        most: The most groups.

    Returns:
        Height and width of each group, which no image of it exceeds, and the indices of its
        images, ascending; the groups by their size. Each image is in one group.
    """
    sizes = np.asarray(sizes, np.int64)
    distinct, own = np.unique(sizes, axis=0, return_inverse=True)
    if len(distinct) > max(most, MANY):
        sizes = -(-sizes // MULTIPLE) * MULTIPLE
        distinct, own = np.unique(sizes, axis=0, return_inverse=True)
    own = own.reshape(-1)
    shapes, counts = distinct.copy(), np.bincount(own).astype(np.int64)
    group = np.arange(len(distinct))
    alive = np.ones(len(distinct), bool)
    costs = _costs(shapes, counts)
    for _ in range(len(distinct) - most):
        first, second = map(int, np.unravel_index(np.argmin(costs), costs.shape))
        shapes[first] = np.maximum(shapes[first], shapes[second])
        counts[first] += counts[second]
        group[group == second] = first
        alive[second] = False
        costs[second], costs[:, second] = np.inf, np.inf
        row = np.where(alive, _added(shapes[first], counts[first], shapes, counts), np.inf)
        row[first] = np.inf
        costs[first], costs[:, first] = row, row
    images = group[own]
    found = [
        ((int(shapes[index, 0]), int(shapes[index, 1])), np.flatnonzero(images == index))
        for index in np.flatnonzero(alive)
    ]
    return sorted(found, key=lambda each: each[0])


def _costs(
    shapes: Int[np.ndarray, "g 2"], counts: Int[np.ndarray, " g"]
) -> Float[np.ndarray, "g g"]:
    """The pixels of padding that joining two groups adds; infinite on the diagonal."""
    rows = [
        _added(shape, count, shapes, counts) for shape, count in zip(shapes, counts, strict=True)
    ]
    costs = np.array(rows).reshape(len(shapes), len(shapes))
    np.fill_diagonal(costs, np.inf)
    return costs


def _added(
    shape: Int[np.ndarray, " 2"],
    count: np.int64,
    shapes: Int[np.ndarray, "g 2"],
    counts: Int[np.ndarray, " g"],
) -> Float[np.ndarray, " g"]:
    """The pixels of padding that joining a group with each of the others adds."""
    joined = np.maximum(shape, shapes).prod(1)
    added = (count + counts) * joined - count * shape.prod() - counts * shapes.prod(1)
    return added.astype(np.float64)
