"""Sums of feature maps and the affine that uses them, in the form for GPUs.

XLA's compiler for GPUs makes one kernel of a chain of elementwise operations and the reduction at
its end. Three things here keep such kernels from reading or writing maps without need:

* Each pass over the maps computes all its sums by one reduction of several operands.
* A reduction has two stages: sums of blocks of at most ``MOST_PIXELS``, and their sum. XLA would
  choose larger blocks; with these its cost model lets a kernel of its own compute the chain before
  the reduction, and that kernel writes a map to memory.
* ``affine`` computes the mask of its ReLU in each pass of its gradient anew. Barriers around its
  few numbers, never around maps, hide from XLA that the masks are equal: it would write one.

``experiments/benchmarks/gpu_account.py`` counts kernels and bytes.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from senet_jax.ops.precision import accurate

MOST_PIXELS = 512
"""Pixels of a block, at most, of which the first stage of a reduction makes one sum."""
FEWEST_PIXELS = 32
"""Pixels of a block, at least; a map whose pixels have no such divisor is one block."""

Sums = tuple[Array, Array, Array | None]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def shifted_sums(
    x: Float[Array, "n *space c"], shift: Float[Array, " c"], groups: int, of_samples: bool
) -> tuple[Float[Array, "groups c"], Float[Array, "groups c"], Float[Array, "n c"] | None]:
    """Sums of ``x - shift`` and of its square over the samples and pixels of each group, accurate.

    A shift near the mean keeps the variance accurate that is computed from the sums where the mean
    is far above the deviation. It has no gradient.

    Args:
        x: Feature maps, or vectors.
        shift: Number that is subtracted from each channel.
        groups: Groups of as many samples, next to each other in the batch; divides the batch.
        of_samples: Return the sums of ``x - shift`` over the pixels of each sample,
            too, as the third; if not, that is None.
    """
    shifted = x.astype(accurate(x.dtype)) - shift
    operands = shifted, shifted * shifted
    if not of_samples:
        total, square = _sums(groups, *operands)
        return total, square, None
    totals, squares = _sums(len(x), *operands)
    total, square = _sums(groups, totals, squares)
    return total, square, totals


def _shifted_sums_forward(
    x: Array, shift: Array, groups: int, of_samples: bool
) -> tuple[Sums, tuple[Array, Array]]:
    return shifted_sums(x, shift, groups, of_samples), (x, shift)


def _shifted_sums_backward(
    groups: int, of_samples: bool, kept: tuple[Array, Array], gradients: Sums
) -> tuple[Array, None]:
    x, shift = kept
    of_total, of_squares, of_totals = gradients
    shifted = x.astype(accurate(x.dtype)) - shift
    of_x = _over_pixels(of_total, x) + 2 * _over_pixels(of_squares, x) * shifted
    if of_totals is not None:
        of_x += _over_pixels(of_totals, x)
    return of_x.astype(x.dtype), None


shifted_sums.defvjp(_shifted_sums_forward, _shifted_sums_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def affine(
    x: Float[Array, "n *space c"],
    centre: Float[Array, "groups c"],
    factor: Float[Array, "groups c"],
    offset: Float[Array, "groups c"],
    gate: Float[Array, "n c"] | None,
    relu: bool,
    dtype: DTypeLike,
) -> Float[Array, "n *space c"]:
    """``((x - centre) * factor + offset) * gate``, and its ReLU if ``relu``, rounded to ``dtype``.

    What is computed is accurate. The backward pass reads ``x`` and the gradient once for all the
    sums and once for the gradient of ``x``.

    Args:
        x: Feature maps, or vectors.
        centre: Number of each channel and group of samples.
        factor: Likewise.
        offset: Likewise.
        gate: Number of each sample and channel; if None, 1.
        relu: Negative results become 0.
        dtype: Precision of the result.
    """
    y = _affine(x, centre, factor, offset, gate)
    return (jnp.maximum(y, 0) if relu else y).astype(dtype)


def _affine(x: Array, centre: Array, factor: Array, offset: Array, gate: Array | None) -> Array:
    centre, factor, offset = (_over_pixels(each, x) for each in (centre, factor, offset))
    y = (x.astype(accurate(x.dtype)) - centre) * factor + offset
    return y if gate is None else y * _over_pixels(gate, x)


Numbers = tuple[Array, Array, Array, Array | None]


def _affine_forward(
    x: Array, centre: Array, factor: Array, offset: Array, gate: Array | None, *how: Any
) -> tuple[Array, tuple[Array, Numbers]]:
    numbers = centre, factor, offset, gate
    return affine(x, *numbers, *how), (x, numbers)


def _affine_backward(
    relu: bool, dtype: DTypeLike, kept: tuple[Array, Numbers], gradient: Array
) -> tuple[Array, Array, Array, Array, Array | None]:
    x, (centre, factor, offset, gate) = kept
    gradient = gradient.astype(accurate(x.dtype))
    groups = len(factor)

    def passed(numbers: Numbers) -> Array:
        """The gradient of the pixels that the ReLU lets pass."""
        return jnp.where(_affine(x, *numbers) > 0, gradient, 0) if relu else gradient

    numbers: Numbers = lax.optimization_barrier((centre, factor, offset, gate))
    passing = passed(numbers)
    centred = x.astype(passing.dtype) - _over_pixels(numbers[0], x)
    total, moment = _sums(groups if gate is None else len(gate), passing, passing * centred)
    # The second pass begins when the sums are there.
    total, moment, numbers = lax.optimization_barrier((total, moment, numbers))
    _, slope, _, weight = numbers
    of_x = passed(numbers) * _over_pixels(slope, x)
    of_gate = None
    if weight is not None:
        of_x *= _over_pixels(weight, x)
        each_sample = (groups, -1, x.shape[-1])
        total, moment, gates = (each.reshape(each_sample) for each in (total, moment, weight))
        of_gate = (moment * factor[:, None] + total * offset[:, None]).reshape(weight.shape)
        total, moment = ((each * gates).sum(axis=1) for each in (total, moment))
    return of_x.astype(x.dtype), -total * factor, moment, total, of_gate


affine.defvjp(_affine_forward, _affine_backward)


@jax.custom_vjp
def scale(x: Float[Array, "n *space c"], factor: Float[Array, "n c"]) -> Float[Array, "n *space c"]:
    """``x * factor`` in the precision of ``x``, with the factors' gradient accurate."""
    return x * _over_pixels(factor.astype(x.dtype), x)


def _scale_forward(x: Array, factor: Array) -> tuple[Array, tuple[Array, Array]]:
    return scale(x, factor), (x, factor)


def _scale_backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, factor = kept
    precision = accurate(x.dtype)
    (of_factor,) = _sums(len(x), gradient.astype(precision) * x.astype(precision))
    return scale(gradient, factor), of_factor.astype(factor.dtype)


scale.defvjp(_scale_forward, _scale_backward)


def _over_pixels(each: Float[Array, "groups c"], x: Float[Array, "n *space c"]) -> Array:
    """Numbers of groups of samples and of channels, in a shape that broadcasts against ``x``."""
    groups, channels = each.shape
    if groups == 1:
        return each[0]
    if groups < len(x):
        each = jnp.repeat(each[:, None], len(x) // groups, axis=1).reshape(len(x), channels)
    return lax.expand_dims(each, range(1, x.ndim - 1))


def _sums(groups: int, *operands: Float[Array, "n *space c"]) -> tuple[Array, ...]:
    """Sums over the samples and pixels of each group, (groups, c), all operands in one pass."""
    n, *space, channels = operands[0].shape
    pixels = math.prod(space)
    length = _block(pixels)
    blocks = [each.reshape(n, pixels // length, length, channels) for each in operands]
    sums = _reduce(blocks, 2) if length > 1 else tuple(each[:, :, 0] for each in blocks)
    if groups == 1:
        # Without an axis of groups, and each operand by itself, so that on a mesh each device sums
        # what it has and an all-reduce the rest. XLA would gather the sums of several operands.
        return tuple(each.sum(axis=(0, 1))[None] for each in sums)
    if groups == n and pixels == length:
        return tuple(each[:, 0] for each in sums)
    return _reduce([each.reshape(groups, -1, channels) for each in sums], 1)


def _block(pixels: int) -> int:
    """Pixels of a block: the largest divisor that is not above ``MOST_PIXELS``, if it suits."""
    divisors = [length for length in range(1, MOST_PIXELS + 1) if pixels % length == 0]
    return divisors[-1] if divisors[-1] >= FEWEST_PIXELS else pixels


def _reduce(operands: Any, *axes: int) -> tuple[Array, ...]:
    zeros = [jnp.zeros((), each.dtype) for each in operands]

    def add(left: Any, right: Any) -> Any:
        return tuple(a + b for a, b in zip(left, right, strict=True))

    sums: tuple[Array, ...] = lax.reduce(tuple(operands), tuple(zeros), add, axes)
    return sums
