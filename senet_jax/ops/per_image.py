"""Operations of one image over a batch, by each device for its own images."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

from senet_jax.axes import BATCH_AXES


def per_image(function: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.vmap`` over the images of a batch, without collectives on a mesh.

    A loop until nothing changes, as in NMS, would ask all devices after each round whether an image
    goes on, where XLA divides the batch. Under a mesh with the ``BATCH_AXES``, or one of them
    (``jax.set_mesh``, ``jax.sharding.use_abstract_mesh``), each device loops for its own images.
    Where the devices do not divide the batch it is ``jax.vmap`` alone.

    Args:
        function: Maps arrays, or trees of them, of one image to arrays of one image.
    """
    mapped = jax.vmap(function)

    def over_batch(*images: Any) -> Any:
        mesh = jax.sharding.get_abstract_mesh()
        axes = tuple(
            axis
            for axis in BATCH_AXES
            if mesh.shape.get(axis, 1) > 1 and axis not in mesh.manual_axes
        )
        count = jax.tree.leaves(images)[0].shape[0]
        if not axes or count % math.prod(mesh.shape[axis] for axis in axes):
            return mapped(*images)
        batch = PartitionSpec(axes)
        # All operands are sharded, so no gradient is summed over devices, which is what the check
        # would see to; it asks loops to start from sharded zeros.
        return jax.shard_map(
            mapped,
            mesh=mesh,
            in_specs=batch,
            out_specs=batch,
            axis_names=set(axes),
            check_vma=False,
        )(*images)

    return over_batch
