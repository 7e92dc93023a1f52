"""RoIAlign (arXiv 1703.06870): features of regions of an image, from the levels of a pyramid."""

import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from senet_jax.errors import UsageError, choose
from senet_jax.ops import roi_forms
from senet_jax.ops.boxes import areas
from senet_jax.ops.roi_forms import Pooling
from senet_jax.ops.roi_samples import Sampling
from senet_jax.ops.target import target

LevelStyle = Literal["torchvision", "detectron2"]


def assign_levels(
    boxes: Float[Array, "k 4"],
    lowest: int = 2,
    highest: int = 5,
    *,
    style: LevelStyle = "torchvision",
    side: float = 224,
    level: int = 4,
) -> Int[Array, " k"]:
    """The level of a pyramid for each RoI, counted from ``lowest`` as 0.

    Level floor(level + log2(sqrt(area) / side)), equation 1 of FPN (arXiv 1612.03144), limited to
    the levels that there are. A RoI without area has the lowest one.

    Args:
        boxes: RoIs in pixels of the image.
        lowest: Number of the level with the finest map.
        highest: Number of the level with the coarsest map.
        style: torchvision adds 1e-6 to the logarithm, detectron2 1e-8 to its argument.
        side: Side in pixels of a square RoI of ``level``.
        level: Its number.
    """
    ratio = jnp.sqrt(jnp.maximum(areas(boxes), 0)) / side
    if style == "torchvision":
        found = level + jnp.log2(ratio) + 1e-6
    else:
        found = level + jnp.log2(ratio + 1e-8)
    return jnp.clip(jnp.floor(found), lowest, highest).astype(jnp.int32) - lowest


def roi_align(
    levels: Sequence[Float[Array, "_ _ c"]],
    boxes: Float[Array, "k 4"],
    of_level: Int[Array, " k"],
    scales: Sequence[float],
    bins: int | tuple[int, int],
    *,
    sampling: int | None = 2,
    most: int = 8,
    aligned: bool = False,
    form: str | None = None,
) -> Float[Array, "k p q c"]:
    """Means of bilinear samples of the bins of each RoI, for one image.

    For the images of a batch, use ``per_image``. The sums are in float32, or in float64 for maps
    of float64; the result is of the type of the maps. The boxes have no gradient, as in
    torchvision's compiled form. Temporaries take at most four times the memory of the result; the
    gradient of bfloat16 maps needs up to two copies of them in float32 besides.

    A RoI whose coordinates are NaN gives zeros. NaN or infinity anywhere in the maps can spoil all
    results.

    Args:
        levels: Feature maps (rows, columns, channels), from the finest.
        boxes: RoIs (x1, y1, x2, y2) in pixels of the image.
        of_level: Index of the map that a RoI is pooled from; another number gives zeros.
        scales: The side of each map over that of the image.
        bins: Rows and columns of the result, or a number for both.
        sampling: Samples along each axis of a bin. If None, as many as the bin has pixels, rounded
            up: torchvision's ``sampling_ratio`` of -1 and detectron2's of 0.
        most: Upper limit of the samples along an axis where ``sampling`` is None; a greater bin has
            so many, which is a difference to other projects.
        aligned: Move RoIs by half a pixel, as in detectron2. If not, they have at
            least one pixel along each axis, as in torchvision.
        form: "dense" or "gather", see ``roi_forms``. If None, the one that suits the device.

    Raises:
        UsageError: As many scales as maps are not given, an unknown form, or numbers of bins or
            samples below 1.
    """
    size = (bins, bins) if isinstance(bins, int) else (bins[0], bins[1])
    if len(levels) != len(scales):
        raise UsageError(f"{len(levels)} feature maps need as many scales, not {len(scales)}.")
    if min(*size, most, 1 if sampling is None else sampling) < 1:
        raise UsageError(
            f"bins {size}, sampling {sampling} and most {most} must each be at least 1."
        )
    if form is None:
        form = roi_forms.best(levels, len(boxes), size, target())
    choose("form of RoIAlign", form, roi_forms.FORMS)
    pooling = Pooling(size, tuple(scales), Sampling(sampling, most, aligned))
    arrays = [jnp.asarray(level) for level in levels]
    return _with_gradient(pooling, form, arrays, jnp.asarray(boxes), jnp.asarray(of_level))


def nearest_scale(feature: int, image: int) -> float:
    """The power of two nearest to the ratio of two sides, as torchvision infers scales."""
    return 2.0 ** round(math.log2(feature / image))


def _align(
    pooling: Pooling, form: str, levels: list[Array], boxes: Array, of_level: Array
) -> Array:
    return roi_forms.FORMS[form][0](levels, boxes, of_level, pooling)


def _forward(
    pooling: Pooling, form: str, levels: list[Array], boxes: Array, of_level: Array
) -> tuple[Array, tuple]:
    return _align(pooling, form, levels, boxes, of_level), (levels, boxes, of_level)


def _backward(pooling: Pooling, form: str, rest: tuple, cotangent: Array) -> tuple:
    levels, boxes, of_level = rest
    gradient = roi_forms.FORMS[form][1](levels, boxes, of_level, pooling, cotangent)
    return gradient, jnp.zeros_like(boxes), None


_with_gradient = jax.custom_vjp(_align, nondiff_argnums=(0, 1))
_with_gradient.defvjp(_forward, _backward)
