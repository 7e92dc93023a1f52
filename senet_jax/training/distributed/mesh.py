"""The device mesh and what lies where: the batch is split over all of it, the state by rules."""

import math
import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from senet_jax.axes import BATCH_AXES, FSDP
from senet_jax.errors import UsageError

SMALLEST_SHARDED = 2**10
"""Elements; to gather a smaller leaf costs more than sharding saves."""

RULES: tuple[tuple[str, bool], ...] = (
    (r"(.*/)?batch_stats/.*", False),
    (r".*", True),
)
"""Rules for sharding the leaves of the state over the axis ``fsdp``: the first pattern that matches
the complete path decides. Running statistics are replicated: all devices write them, and they are
less than 1 % of the bytes. A leaf is sharded along its longest axis that ``fsdp`` divides (ties:
the last axis). A leaf without such an axis, or of fewer than ``SMALLEST_SHARDED`` elements, is
replicated."""


def make_mesh(
    data: int | None = None, fsdp: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Builds a mesh of the axes ``data`` and ``fsdp``.

    The batch is split over both; the state over ``fsdp`` alone (fully sharded data parallelism, as
    in ZeRO, arXiv 1910.02054): each device keeps its part, and gathers the rest for a step.

    Args:
        data: Size of the first axis; None means as many as the devices allow.
        fsdp: Size of the second.
        devices: The devices; None means all there are, or the first ones that suffice.

    Raises:
        UsageError: More devices than there are, or, on several hosts, fewer.
    """
    there = jax.devices() if devices is None else list(devices)
    data = max(len(there) // fsdp, 1) if data is None else data
    count = data * fsdp
    # Commands have other flags for the devices than training, or none: fields are named.
    asked = f"a mesh of data {data} x fsdp {fsdp}"
    if count > len(there):
        raise UsageError(
            f"{asked} needs {count} devices, but there are {len(there)}: lower one of them."
        )
    if count < len(there) and jax.process_count() > 1:
        raise UsageError(
            f"{asked} uses {count} devices of {len(there)}: on several hosts all of them must work."
        )
    return jax.make_mesh(
        (data, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2, devices=there[:count]
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def state_shardings(state: PyTree[jax.Array], mesh: Mesh) -> PyTree[NamedSharding]:
    """The shardings of the leaves of a state, by ``RULES``.

    Args:
        state: A state, or any part of one with the names that it has there; shapes are enough.
        mesh: From ``make_mesh``.
    """

    def place(path: tuple[jax.tree_util.KeyEntry, ...], leaf: jax.Array) -> NamedSharding:
        name = path_name(path)
        divided = next(divided for pattern, divided in RULES if re.fullmatch(pattern, name))
        spec = _spec(leaf.shape, mesh.shape[FSDP]) if divided else PartitionSpec()
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(place, state)


def path_name(path: tuple[jax.tree_util.KeyEntry, ...]) -> str:
    """The path of a leaf, as "params/stem/conv/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _spec(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    """Divides the longest axis that can be divided."""
    if parts == 1 or math.prod(shape) < SMALLEST_SHARDED:
        return PartitionSpec()
    divisible = [(size, axis) for axis, size in enumerate(shape) if size % parts == 0]
    if not divisible:
        return PartitionSpec()
    _, axis = max(divisible)
    return PartitionSpec(*[None] * axis, FSDP)


def check_batch_size(batch_size: int, mesh: Mesh, parts: int = 1) -> None:
    """Refuses a batch that the devices do not divide.

    Args:
        batch_size: Images, over all devices.
        mesh: The devices.
        parts: Parts in which each device computes its images.

    Raises:
        UsageError: ``batch_size`` is not a multiple of the number of devices times ``parts``.
    """
    divisor = mesh.size * parts
    if batch_size % divisor:
        below = batch_size - batch_size % divisor
        near = f"{below} or {below + divisor}" if below else f"{divisor}"
        over = f"{mesh.size} devices" + (f" in {parts} parts each" if parts > 1 else "")
        raise UsageError(
            f"a batch of {batch_size} cannot be divided over {over}: use {near}, or a smaller "
            f"{'accumulate' if parts > 1 else 'mesh.data'}."
        )


def to_devices(batch: PyTree[np.ndarray], mesh: Mesh) -> PyTree[jax.Array]:
    """Splits the arrays of a host's batch over the mesh, as global arrays."""
    sharding = over_batch(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
