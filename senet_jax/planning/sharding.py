"""The sharding of a state over the devices, as text."""

import math
from collections.abc import Iterable

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from senet_jax.axes import BATCH_AXES
from senet_jax.text import columns
from senet_jax.training.distributed.mesh import RULES, path_name

_Leaf = tuple[str, jax.ShapeDtypeStruct]


def draw_sharding(state: PyTree[jax.ShapeDtypeStruct], mesh: Mesh) -> str:
    """Draws the shardings of the leaves of a state.

    Args:
        state: Shapes, types and shardings of a state.
        mesh: The mesh of the shardings.

    Returns:
        The mesh with its devices, the rules, a line for each leaf of ``params`` (their shape, and
        the shape of what one device holds) and the bytes of each part of the state, in total and
        on one device.
    """
    leaves = [
        (path_name(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]
    ]
    parts: dict[str, list[_Leaf]] = {}
    for name, leaf in leaves:
        parts.setdefault(name.partition("/")[0], []).append((name, leaf))
    parameters = [_row(*leaf) for leaf in parts["params"]]
    totals = [_total(name, (leaf for _, leaf in part)) for name, part in parts.items()]
    totals.append(_total("all", (leaf for _, leaf in leaves)))
    rules = [f"  {pattern}  {'sharded' if sharded else 'replicated'}" for pattern, sharded in RULES]
    return "\n".join(
        [
            _draw_mesh(mesh),
            "\nrules: the first that matches a leaf's path holds; small leaves are replicated:",
            *rules,
            "",
            *columns([("parameter", "shape", "on a device", "sharded over"), *parameters]),
            "",
            *columns([("bytes", "total", "on a device", "share"), *totals]),
        ]
    )


def _draw_mesh(mesh: Mesh) -> str:
    data, fsdp = (mesh.shape[axis] for axis in BATCH_AXES)
    lines = [f"mesh: data {data} x fsdp {fsdp}; the images of a batch are split over all of it"]
    for row, devices in enumerate(mesh.devices):
        cells = "".join(f"[{device.id:^5}]" for device in devices)
        hosts = sorted({device.process_index for device in devices})
        lines.append(f"  data {row:<3} {cells}  host {', '.join(map(str, hosts))}")
    return "\n".join(lines)


def _row(name: str, leaf: jax.ShapeDtypeStruct) -> tuple[str, ...]:
    held = leaf.sharding.shard_shape(leaf.shape)
    axes = [axis for axis, (a, b) in enumerate(zip(leaf.shape, held, strict=True)) if a != b]
    sides = ("x".join(map(str, shape)) for shape in (leaf.shape, held))
    return (name, *sides, f"axis {axes[0]}" if axes else "-")


def bytes_of(leaves: Iterable[jax.ShapeDtypeStruct]) -> tuple[int, int]:
    """Bytes of leaves with shardings: of all of them, and of what one device holds."""
    whole = held = 0
    for leaf in leaves:
        whole += leaf.size * leaf.dtype.itemsize
        held += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return whole, held


def _total(name: str, leaves: Iterable[jax.ShapeDtypeStruct]) -> tuple[str, ...]:
    whole, held = bytes_of(leaves)
    return (name, f"{whole:,}", f"{held:,}", f"{held / whole:.4f}" if whole else "-")
