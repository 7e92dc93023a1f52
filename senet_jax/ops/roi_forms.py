"""Two forms of RoIAlign, each with its gradient, which are equal up to rounding.

``gather`` adds up the four neighbours of each sample. Its gradient scatters: sums that GPUs repeat
to the bit only with deterministic operations (``--xla_gpu_deterministic_ops``). ``dense``
multiplies the maps by matrices of weights, one for each axis, and repeats to the bit everywhere.
Both work on blocks of RoIs where that saves memory. CPUs and GPUs take ``gather``; TPUs, where
neither was measured, ``dense``. ``experiments/benchmarks/roi_align.py`` compares the two.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from senet_jax.ops.boxes import in_full_precision
from senet_jax.ops.roi_samples import Axis, Sampling, axes_of, matrix
from senet_jax.ops.target import Target

Levels = Sequence[Float[Array, "_ _ c"]]


@dataclasses.dataclass(frozen=True)
class Pooling:
    """Numbers that make RoIs the bins of a result."""

    bins: tuple[int, int]
    scales: tuple[float, ...]
    sampling: Sampling

    def axes(
        self, sizes: Sequence[tuple[int, int]], boxes: Array, of_level: Array
    ) -> tuple[Axis, Axis]:
        """The bins of all RoIs, each in pixels of its own level."""
        boxes = in_full_precision(boxes)
        scale = jnp.array(self.scales, boxes.dtype)[of_level]
        return axes_of(boxes, scale, jnp.array(sizes)[of_level], self.bins, self.sampling)


def _sizes(levels: Levels) -> list[tuple[int, int]]:
    return [(level.shape[0], level.shape[1]) for level in levels]


def block(levels: Levels, rois: int, bins: tuple[int, int]) -> int:
    """RoIs that ``dense`` takes at a time, for its products to take less than the result.

    0 if a product of a single RoI takes more, or if the maps in float32 take twice as much.
    """
    widest = max(level.shape[1] for level in levels)
    share = levels[0].dtype.itemsize / 4
    if share < 1 and 4 * sum(level.size for level in levels) > 2 * share * 4 * (
        rois * bins[0] * bins[1] * levels[0].shape[-1]
    ):
        return 0
    return min(rois, int(rois * share * bins[1] / (widest + 4 * bins[1])))


def _by_blocks(rois: int, size: int, *arrays: tuple[Array, float]) -> tuple[Array, ...]:
    """Arrays of RoIs in blocks of about ``size``; the last one is filled with the given numbers."""
    blocks = -(-rois // max(size, 1))
    missing = -rois % blocks
    found = []
    for array, filling in arrays:
        padding = ((0, missing), *((0, 0),) * (array.ndim - 1))
        array = jnp.pad(array, padding, constant_values=filling)
        found.append(array.reshape(blocks, -1, *array.shape[1:]))
    return tuple(found)


def _summed(
    add: Callable[[list[Array], Array, Array, Array], list[Array]],
    size: int,
    levels: Levels,
    boxes: Array,
    of_level: Array,
    cotangent: Array,
) -> list[Array]:
    """Gradient of the levels, of which ``add`` adds that of a block of about ``size`` RoIs."""
    blocks = _by_blocks(len(boxes), size, (boxes, 0), (of_level, -1), (cotangent, 0))
    zeros = [jnp.zeros(level.shape, in_full_precision(level[:0]).dtype) for level in levels]
    totals, _ = lax.scan(lambda totals, rois: (add(totals, *rois), None), zeros, blocks)
    return [total.astype(level.dtype) for total, level in zip(totals, levels, strict=True)]


def _matrices(
    levels: Levels, pooling: Pooling, boxes: Array, of_level: Array
) -> list[tuple[Array, Array]]:
    """For each level the weights (k, p, h) of its rows and (k, p, q, w) of its columns."""
    rows, columns = pooling.axes(_sizes(levels), boxes, of_level)
    limit = pooling.sampling.limit
    found = []
    for number, (height, width) in enumerate(_sizes(levels)):
        mine = of_level == number
        across = matrix(columns, mine, width, limit)[:, None]
        across = jnp.broadcast_to(across, (len(boxes), rows.bins, *across.shape[2:]))
        found.append((matrix(rows, mine, height, limit), across))
    return found


def _product(subscripts: str, a: Array, b: Array) -> Array:
    return jnp.einsum(subscripts, a, b, precision=lax.Precision.HIGHEST)


def dense(
    levels: Levels, boxes: Float[Array, "k 4"], of_level: Int[Array, " k"], pooling: Pooling
) -> Float[Array, "k p q c"]:
    """RoIAlign by products of matrices."""

    def of_block(rois: tuple[Array, Array]) -> Array:
        total = jnp.zeros((), jnp.float32)
        matrices = _matrices(levels, pooling, *rois)
        for level, (down, across) in zip(levels, matrices, strict=True):
            product = _product("kph,hwc->kpwc", down, in_full_precision(level))
            total += _product("kpqw,kpwc->kpqc", across, product)
        return total.astype(levels[0].dtype)

    rois = len(boxes)
    size = block(levels, rois, pooling.bins)
    result = lax.map(of_block, _by_blocks(rois, size, (boxes, 0), (of_level, -1)))
    return result.reshape(-1, *result.shape[2:])[: len(boxes)]


def dense_gradient(
    levels: Levels,
    boxes: Float[Array, "k 4"],
    of_level: Int[Array, " k"],
    pooling: Pooling,
    cotangent: Float[Array, "k p q c"],
) -> list[Array]:
    """Gradient of the levels, of which the shapes and types alone are read."""

    def add(totals: list[Array], boxes: Array, of_level: Array, cotangent: Array) -> list[Array]:
        matrices = _matrices(levels, pooling, boxes, of_level)
        found = []
        for total, (down, across) in zip(totals, matrices, strict=True):
            product = _product("kpqw,kpqc->kpwc", across, in_full_precision(cotangent))
            found.append(total + _product("kph,kpwc->hwc", down, product))
        return found

    size = block(levels, len(boxes), pooling.bins)
    return _summed(add, size, levels, boxes, of_level, cotangent)


def _over_neighbours(
    rows: Axis,
    columns: Axis,
    sampling: Sampling,
    add: Callable[[list[Array], Array, Array, Array], list[Array]],
    state: list[Array],
) -> list[Array]:
    """Calls ``add`` for each neighbour of each sample, one after the other, to save memory.

    Args:
        rows: Bins along rows.
        columns: Bins along columns.
        sampling: The samples of each bin.
        add: Maps a state and, each (k, p, q), indices of rows, of columns, and weights to the next
            state.
        state: The first state.
    """
    down, across = (sampling.per_bin or axis.count.max() for axis in (rows, columns))

    def neighbours(axis: Axis, number: Array) -> tuple[Array, Array]:
        """Indices and weights, each (2, k, bins), of a sample of every bin."""
        position, weight = axis.sample(number)
        position = jnp.where(weight > 0, position, 0)
        low = jnp.floor(position).astype(jnp.int32)
        part = position - low
        high = jnp.minimum(low + 1, axis.size[:, None] - 1)
        return jnp.stack([low, high]), jnp.stack([weight * (1 - part), weight * part])

    def next_sample(number: Array, state: list[Array]) -> list[Array]:
        y, of_y = neighbours(rows, number // across)
        x, of_x = neighbours(columns, number % across)

        def next_neighbour(each: Array, state: list[Array]) -> list[Array]:
            i, j = each // 2, each % 2
            weight = of_y[i][..., None] * of_x[j][:, None]
            return add(state, y[i][..., None], x[j][:, None], weight)

        return lax.fori_loop(0, 4, next_neighbour, state)

    return lax.fori_loop(0, down * across, next_sample, state)


def gather(
    levels: Levels, boxes: Float[Array, "k 4"], of_level: Int[Array, " k"], pooling: Pooling
) -> Float[Array, "k p q c"]:
    """RoIAlign as a sum over samples and their neighbours."""

    def add(state: list[Array], y: Array, x: Array, weight: Array) -> list[Array]:
        (total,) = state
        for number, level in enumerate(levels):
            mine = (of_level == number)[:, None, None]
            found = level[jnp.where(mine, y, 0), jnp.where(mine, x, 0)]
            total += jnp.where(mine, weight, 0)[..., None] * in_full_precision(found)
        return [total]

    rows, columns = pooling.axes(_sizes(levels), boxes, of_level)
    shape = (len(boxes), *pooling.bins, levels[0].shape[-1])
    zeros = jnp.zeros(shape, in_full_precision(levels[0][:0]).dtype)
    (total,) = _over_neighbours(rows, columns, pooling.sampling, add, [zeros])
    return total.astype(levels[0].dtype)


def gather_gradient(
    levels: Levels,
    boxes: Float[Array, "k 4"],
    of_level: Int[Array, " k"],
    pooling: Pooling,
    cotangent: Float[Array, "k p q c"],
) -> list[Array]:
    """Gradient of the levels, of which the shapes and types alone are read."""

    def add_block(totals: list[Array], boxes: Array, of_level: Array, part: Array) -> list[Array]:
        def add(totals: list[Array], y: Array, x: Array, weight: Array) -> list[Array]:
            # The row after the last one: what is beyond the map is dropped.
            rows = [
                jnp.where((of_level == number)[:, None, None], y, total.shape[0])
                for number, total in enumerate(totals)
            ]
            weighted = weight[..., None] * in_full_precision(part)
            return [
                total.at[row, x].add(weighted, mode="drop")
                for total, row in zip(totals, rows, strict=True)
            ]

        rows, columns = pooling.axes(_sizes(levels), boxes, of_level)
        return _over_neighbours(rows, columns, pooling.sampling, add, totals)

    return _summed(add_block, -(-len(boxes) // 4), levels, boxes, of_level, cotangent)


FORMS: dict[str, tuple[Callable, Callable]] = {
    "dense": (dense, dense_gradient),
    "gather": (gather, gather_gradient),
}


def best(levels: Levels, rois: int, bins: tuple[int, int], device: Target) -> str:
    """The name of the form that suits the device and keeps little memory."""
    return "dense" if device == "tpu" and block(levels, rois, bins) else "gather"
