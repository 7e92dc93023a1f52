"""The instructions of a compiled program, read out of the text of its HLO.

The text has a paragraph for each computation and a line for each instruction.
"""

import dataclasses
import math
import re


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    computation: str
    name: str
    results: str
    """Types, as "(f32[64]{0}, bf16[])"."""
    opcode: str
    rest: str
    """Operands and attributes."""

    @property
    def operands(self) -> list[str]:
        """Names of the instructions whose results this one takes."""
        return _NAME.findall(self.rest.partition(")")[0])


_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
# "%x = (f32[2]{0}, f32[]) all-reduce(": the results stand before the operation.
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(
    r"\b(calls|to_apply|body|condition|branch_computations|called_computations)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_NAME = re.compile(r"%([\w.\-]+)")


class Program:
    """The instructions, with the number of times that the computation of each runs.

    Args:
        hlo: Text of the optimised HLO, which is the program of one device.
    """

    entry = ""
    """Name of the computation that runs first."""

    def __init__(self, hlo: str) -> None:
        self.instructions: list[Instruction] = []
        self.roots: dict[str, str] = {}
        """The results of computations."""
        self.finished: dict[str, str] = {}
        """By the first half of an asynchronous operation, the results of the second."""
        self.looped: set[str] = set()
        """The computations that loops and conditionals run."""
        self._callers: dict[str, list[tuple[str, int]]] = {}
        self._times: dict[str, int] = {}
        computation = ""
        for line in hlo.splitlines():
            if header := _COMPUTATION.match(line):
                computation = header[2]
                self.entry = computation if header[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                self._read(Instruction(computation, *found.groups()[1:]), bool(found[1]))

    def _read(self, each: Instruction, root: bool) -> None:
        self.instructions.append(each)
        if root:
            self.roots[each.computation] = each.results
        if each.opcode.endswith("-done") and (half := _NAME.search(each.rest)):
            self.finished[half[1]] = each.results
        trips = _TRIPS.search(each.rest) if each.opcode == "while" else None
        for way, called in _CALLED.findall(each.rest):
            for name in re.findall(r"[\w.\-]+", called):
                if way in ("body", "condition", "branch_computations"):
                    self.looped.add(name)
                callers = self._callers.setdefault(name, [])
                callers.append((each.computation, int(trips[1]) if trips else 1))

    def times(self, computation: str) -> int:
        """Returns the number of times that a computation runs in one run of the program."""
        if computation not in self._times:
            callers = self._callers.get(computation, [])
            times = sum(self.times(caller) * trips for caller, trips in callers)
            self._times[computation] = times if callers else 1
        return self._times[computation]


_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")


def size(results: str) -> int:
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
