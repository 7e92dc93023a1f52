"""What devices send each other in a compiled program, read out of its HLO.

It is a text with a computation a paragraph and an instruction a line. A collective is one
instruction (CPU), or the two halves of an asynchronous one, ``all-gather-start`` and
``all-gather-done`` (GPU), or several copies of one in the fusions that it runs beside, which have
one ``channel_id`` (TPU).
"""

import dataclasses
import math
import re

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")

Groups = tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of the program of one device."""

    kind: str
    """One of ``KINDS``."""
    bytes: int
    """Of its results, on one device."""
    groups: Groups = ()
    """The devices, by their position in the mesh, that take part together; none means all."""
    times: int = 1
    """How often it runs in a run of the program, where that is known; else once."""


def read_collectives(hlo: str) -> list[Collective]:
    """Reads the collectives out of a compiled program.

    Args:
        hlo: Text of the optimised HLO, which is the program of one device.
    """
    program = _Program(hlo)
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
            Collective(kind, _bytes(results), _groups(each.rest), program.times(each.computation)),
        )
    return list(found.values())


def by_kind(collectives: list[Collective]) -> dict[str, tuple[int, int]]:
    """How many collectives run, and the bytes of their results on a device, by kind."""
    sums: dict[str, tuple[int, int]] = {}
    for each in collectives:
        count, total = sums.get(each.kind, (0, 0))
        sums[each.kind] = (count + each.times, total + each.times * each.bytes)
    return sums


@dataclasses.dataclass(frozen=True)
class _Instruction:
    computation: str
    name: str
    results: str
    opcode: str
    rest: str
    """Operands and attributes."""


_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
# "%x = (f32[2]{0}, f32[]) all-reduce(": the results stand before the operation.
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|called_computations)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_NAME = re.compile(r"%([\w.\-]+)")


class _Program:
    """The instructions, and how often the computation of each runs."""

    def __init__(self, hlo: str) -> None:
        self.instructions: list[_Instruction] = []
        self.roots: dict[str, str] = {}
        """The results of computations."""
        self.finished: dict[str, str] = {}
        """By the first half of an asynchronous operation, the results of the second."""
        self._callers: dict[str, list[tuple[str, int]]] = {}
        self._times: dict[str, int] = {}
        computation = ""
        for line in hlo.splitlines():
            if header := _COMPUTATION.match(line):
                computation = header[2]
            elif found := _INSTRUCTION.match(line):
                self._read(_Instruction(computation, *found.groups()[1:]), bool(found[1]))

    def _read(self, each: _Instruction, root: bool) -> None:
        self.instructions.append(each)
        if root:
            self.roots[each.computation] = each.results
        if each.opcode.endswith("-done") and (half := _NAME.search(each.rest)):
            self.finished[half[1]] = each.results
        trips = _TRIPS.search(each.rest) if each.opcode == "while" else None
        for _, called in _CALLED.findall(each.rest):
            for name in re.findall(r"[\w.\-]+", called):
                callers = self._callers.setdefault(name, [])
                callers.append((each.computation, int(trips[1]) if trips else 1))

    def times(self, computation: str) -> int:
        """How often a computation runs in a run of the program."""
        if computation not in self._times:
            callers = self._callers.get(computation, [])
            times = sum(self.times(caller) * trips for caller, trips in callers)
            self._times[computation] = times if callers else 1
        return self._times[computation]


_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")


def _bytes(results: str) -> int:
    """Bytes of an array or a tuple of arrays, as "(f32[64]{0}, bf16[])"."""
    return sum(
        math.prod(int(side) for side in shape.split(",") if side) * _bits(dtype) // 8
        for dtype, shape in _ARRAY.findall(results)
    )


def _bits(dtype: str) -> int:
    """Bits of an element of a type such as f32, bf16, u8 or pred."""
    if dtype == "pred":
        return 8
    digits = re.search(r"\d+", dtype)
    assert digits, dtype
    return int(digits[0])


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
