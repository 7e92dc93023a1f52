"""The device mesh and what lies where: the batch is split, the state is replicated."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from senet_jax.errors import UsageError


def make_mesh(devices: int | None = None) -> Mesh:
    """Builds a mesh of one axis, ``data``.

    Args:
        devices: How many devices; None means all there are.

    Raises:
        UsageError: More devices than there are.
    """
    there = jax.device_count()
    count = devices or there
    if count > there:
        raise UsageError(f"{count} devices asked for, but there are {there}: lower --devices.")
    return jax.make_mesh(
        (count,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that the devices do not divide.

    Raises:
        UsageError: ``batch_size`` is not a multiple of the number of devices.
    """
    if batch_size % mesh.size:
        below = batch_size - batch_size % mesh.size
        near = f"{below or mesh.size} or {below + mesh.size}" if below else f"{mesh.size}"
        raise UsageError(
            f"a batch of {batch_size} cannot be divided over {mesh.size} devices: "
            f"use {near}, or fewer --devices."
        )


def to_devices(batch: PyTree[np.ndarray], mesh: Mesh) -> PyTree[jax.Array]:
    """Splits the arrays of a host's batch over the mesh, as global arrays."""
    sharding = over_batch(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
