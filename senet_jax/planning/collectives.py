"""The collectives of a compiled program, read out of its HLO.

A collective is one instruction (CPU), or the two halves of an asynchronous one,
``all-gather-start`` and ``all-gather-done`` (GPU), or several copies of one in the fusions that it
runs beside, which have one ``channel_id`` (TPU).
"""

import dataclasses
import math
import re

import numpy as np

from senet_jax.planning.hlo import Program, size

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")

Groups = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of the program of one device."""

    kind: str
    """One of ``KINDS``."""
    bytes: int
    """Bytes of its results, on one device."""
    groups: Groups = ()
    """The devices, by their position in the mesh, that take part together; none means all."""
    times: int = 1
    """Its runs in a run of the program, where that is known; else 1."""


def read_collectives(hlo: str) -> list[Collective]:
    """Reads the collectives out of a compiled program.

    Args:
        hlo: Text of the optimised HLO, which is the program of one device.
    """
    program = Program(hlo)
    found: dict[str, Collective] = {}
    for each in program.instructions:
        kind = each.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        channel = _CHANNEL.search(each.rest)
        results = program.finished.get(each.name, each.results)
        if each.computation.startswith("all-reduce-scatter"):
            # TPUs have no other reduce-scatter than this: what is left of the sum is its root.
            kind, results = "reduce-scatter", program.roots[each.computation]
        found.setdefault(
            channel[1] if channel else each.name,
            Collective(kind, size(results), _groups(each.rest), program.times(each.computation)),
        )
    return list(found.values())


def by_kind(collectives: list[Collective]) -> dict[str, tuple[int, int]]:
    """The number of collectives that run, and the bytes of their results on a device, by kind."""
    sums: dict[str, tuple[int, int]] = {}
    for each in collectives:
        count, total = sums.get(each.kind, (0, 0))
        sums[each.kind] = (count + each.times, total + each.times * each.bytes)
    return sums


_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{} ]*\})\}")
# "[2,8]<=[8,2]T(1,0)": a grid of devices in order, transposed, and cut into two groups of eight.
_IOTA = r"\[([\d,]+)\](?:<=\[([\d,]+)\])?(?:T\(([\d,]+)\))?"
_CUT = re.compile(rf"replica_groups={_IOTA}")
# "mesh['a'=8,'b'=2], device_ids=([2,8]T(1,0)) {'a'}": the devices along the axis a of a mesh.
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}")


def _groups(attributes: str) -> Groups:
    """The devices of a collective, from any of the ways to write them."""
    if listed := _LISTED.search(attributes):
        return tuple(
            tuple(int(device) for device in re.findall(r"\d+", group))
            for group in re.findall(r"\{([\d, ]*)\}", listed[1])
        )
    if cut := _CUT.search(attributes):
        shape = _numbers(cut[1])
        return _rows(_grid(cut[2] or cut[1], cut[3]).reshape(shape))
    if mesh := _MESH.search(attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", mesh[1])}
        return _along(sizes, mesh[2], re.findall(r"'([^']*)'", mesh[3]))
    return ()


def _along(sizes: dict[str, int], devices: str | None, axes: list[str]) -> Groups:
    order = np.arange(math.prod(sizes.values()))
    if devices and (iota := re.fullmatch(_IOTA, devices)):
        order = _grid(iota[2] or iota[1], iota[3]).reshape(-1)
    elif devices:
        order = np.array(_numbers(devices))
    names = list(sizes)
    grid = order.reshape(list(sizes.values()))
    inner = [names.index(axis) for axis in axes]
    outer = [axis for axis in range(len(names)) if axis not in inner]
    size = math.prod(grid.shape[axis] for axis in inner)
    return _rows(grid.transpose(outer + inner).reshape(-1, size))


def _grid(shape: str, transposed: str | None) -> np.ndarray:
    sides = _numbers(shape)
    grid = np.arange(math.prod(sides)).reshape(sides)
    return grid.transpose(_numbers(transposed)) if transposed else grid


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _rows(grid: np.ndarray) -> Groups:
    return tuple(tuple(int(device) for device in row) for row in grid)
