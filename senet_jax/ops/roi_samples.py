"""The places at which RoIAlign samples the feature maps along one axis, and their weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The number of samples of a bin along an axis, and the place of a pixel."""

    per_bin: int | None
    """Samples along each axis of a bin. If None, as many as the bin has pixels, rounded up."""
    most: int
    """Upper limit of the samples along an axis where ``per_bin`` is None."""
    aligned: bool
    """The index of a pixel is that of its centre, half a pixel from its border
    (detectron2), and RoIs may be smaller than a pixel. If not, a RoI has at least one pixel along
    each axis, as in torchvision's detectors."""

    @property
    def limit(self) -> int:
        """The most samples along an axis of a bin."""
        return self.per_bin or self.most


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("start", "bin", "count", "size"),
    meta_fields=("bins",),
)
@dataclasses.dataclass(frozen=True)
class Axis:
    """The bins of RoIs along one axis, in pixels of the map that a RoI is pooled from."""

    start: Float[Array, " k"]
    bin: Float[Array, " k"]
    """Length of a bin."""
    count: Int[Array, " k"]
    """Samples of a bin."""
    size: Int[Array, " k"]
    """Pixels of the map."""
    bins: int

    def sample(self, number: Int[Array, ""] | int) -> tuple[Array, Array]:
        """Positions and weights, each (k, bins), of a sample of every bin, counted from 0.

        A sample more than a pixel outside the map counts as 0. Others are moved into the map.
        """
        count = jnp.maximum(self.count, 1).astype(self.bin.dtype)[:, None]
        first = self.start[:, None] + jnp.arange(self.bins) * self.bin[:, None]
        position = first + (number + 0.5) * (self.bin[:, None] / count)
        size = self.size[:, None]
        counts = (position >= -1) & (position <= size) & (number < self.count[:, None])
        return jnp.clip(position, 0, size - 1), jnp.where(counts, 1 / count, 0)


def axes_of(
    boxes: Float[Array, "k 4"],
    scale: Float[Array, " k"],
    maps: Int[Array, "k 2"],
    bins: tuple[int, int],
    sampling: Sampling,
) -> tuple[Axis, Axis]:
    """The bins of RoIs along rows and columns.

    Args:
        boxes: RoIs in pixels of the image.
        scale: Side of the map, from which a RoI is pooled, over that of the image.
        maps: Rows and columns of that map.
        bins: Rows and columns of the result.
        sampling: The samples of each bin.
    """
    corners = boxes * scale[:, None] - (0.5 if sampling.aligned else 0.0)
    found = []
    for axis, count in enumerate(bins):
        start, length = corners[:, 1 - axis], corners[:, 3 - axis] - corners[:, 1 - axis]
        if not sampling.aligned:
            length = jnp.maximum(length, 1)
        if sampling.per_bin is None:
            samples = jnp.clip(jnp.ceil(length / count), 0, sampling.most).astype(jnp.int32)
        else:
            samples = jnp.full(len(boxes), sampling.per_bin, jnp.int32)
        found.append(Axis(start, length / count, samples, maps[:, axis], count))
    return found[0], found[1]


def matrix(
    axis: Axis, mine: Bool[Array, " k"], pixels: int, limit: int
) -> Float[Array, "k bins pixels"]:
    """The weight of each pixel in the mean of the samples of each bin.

    Args:
        axis: The bins.
        mine: False for RoIs of other maps, whose weights are 0.
        pixels: Rows or columns of the map.
        limit: The most samples of a bin.
    """
    position, weight = jax.vmap(axis.sample, out_axes=-1)(jnp.arange(limit))
    weight = jnp.where(mine[:, None, None], weight, 0)
    distance = jnp.abs(position[..., None] - jnp.arange(pixels, dtype=position.dtype))
    # A NaN of a box has the weight 0 and must not come back through the distance.
    tent = jnp.where(weight[..., None] > 0, jnp.maximum(1 - distance, 0), 0)
    return (weight[..., None] * tent).sum(-2)
