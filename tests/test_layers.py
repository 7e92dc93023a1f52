"""The floors of the code: imports only point down, and no modules import each other in a circle."""

import ast
import functools
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    ("errors",),
    ("axes", "ranges", "text"),
    ("fields", "files", "terminal"),
    ("ops",),
    ("data",),
    ("config",),
    ("attention",),
    ("models",),
    ("interchange",),
    ("network",),
    ("tasks",),
    ("training",),
    ("inference",),
    ("planning",),
    ("analysis",),
    ("studies",),
    ("command_line",),
    ("commands",),
    ("cli",),
    ("experiments",),
)
"""The packages and modules of senet_jax, and the experiments above them, ground floor first."""

ROOMS = {
    "data": (("build",), ("augment",)),
    "training": (("machine", "distributed"), ("checkpoints",), ("records",)),
    "analysis": (("study", "gates"),),
}
"""Rooms of a floor, lowest first; rooms in one tuple import nothing of each other."""

FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}


def modules():
    """The files of all modules by their dotted names."""
    files = [*(ROOT / "senet_jax").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    named = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return named


MODULES = modules()


@functools.cache
def imports(name):
    """The modules of this project that a module imports, also within functions and for types."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return found


def floor(name):
    package, _, rest = name.partition(".")
    return FLOOR[package if package == "experiments" else rest.partition(".")[0]]


def test_every_module_has_a_floor():
    inner = {name.split(".")[1] for name in MODULES if name.startswith("senet_jax.")}
    assert inner | {"experiments"} == set(FLOOR)


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"senet_jax"}))
def test_imports_point_down(name):
    # The package itself gives the names that users need; it imports them when they are asked for.
    climbs = [other for other in imports(name) - {"senet_jax"} if floor(other) > floor(name)]
    assert not climbs


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: imports(name) - {"senet_jax"} for name in MODULES if name != "senet_jax"}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_of_a_floor_import_in_one_direction(package):
    level = {room: index for index, rooms in enumerate(ROOMS[package]) for room in rooms}
    for name in MODULES:
        if name.startswith(f"senet_jax.{package}."):
            room = name.split(".")[2]
            for other in imports(name):
                their = other.split(".")[2] if other.startswith(f"senet_jax.{package}.") else room
                if {room, their} <= level.keys() and room != their:
                    assert level[their] < level[room], f"{name} imports {other}"
