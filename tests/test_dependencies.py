"""All that is imported is declared in pyproject.toml, and CI tries the commands of all kinds."""

import ast
import importlib.metadata
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from senet_jax.commands.table import SUMMARIES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"senet_jax", "experiments", "tests"}
NOT_INSTALLED_HERE = {"tensorflow": "tensorflow-cpu"}
"""Distributions whose name differs from what is imported, of the extras that the tests lack."""
LAZY = {"senet_jax.interchange.onnx"}
"""Modules that only functions import, so that they may import what an extra brings."""


def names(requirements):
    return {canonicalize_name(Requirement(text).name) for text in requirements}


RUN_TIME = names(PROJECT["dependencies"])
EXTRAS = {name: names(needs) for name, needs in PROJECT["optional-dependencies"].items()}


def imports(node, lazy=False):
    """The modules that a file imports, each with the line and whether a call imports it."""
    for child in ast.iter_child_nodes(node):
        inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inside = True
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno, lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and not child.level:
            yield child.module, child.lineno, lazy
        else:
            yield from imports(child, inside)


HOMES = importlib.metadata.packages_distributions()


def undeclared(text, run_time, extras, optional=False):
    """The imports of a text that no dependency declares, or one that comes too late."""
    wrong = []
    for module, line, lazy in imports(ast.parse(text)):
        top = module.partition(".")[0]
        if module in LAZY and not lazy:
            wrong.append(f"{module} in line {line}")
        if top in sys.stdlib_module_names or top in OWN:
            continue
        found = HOMES.get(top) or [NOT_INSTALLED_HERE.get(top, top)]
        allowed = set(run_time)
        if lazy or optional:
            allowed = allowed.union(*extras.values())
        if not {canonicalize_name(name) for name in found} & allowed:
            wrong.append(f"{module} in line {line}")
    return wrong


def test_every_import_is_declared():
    wrong = {}
    for top in ("senet_jax", "experiments"):
        for file in sorted((ROOT / top).rglob("*.py")):
            place = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            optional = place in LAZY or place.startswith("experiments.benchmarks.")
            found = undeclared(file.read_text(), RUN_TIME, EXTRAS, optional)
            wrong |= {place: found} if found else {}
    assert not wrong


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import rich.live", ["rich.live in line 1"]),
        ("from absl import flags", ["absl in line 1"]),
        ("import torch", ["torch in line 1"]),
        ("def read():\n    import torch", []),
        ("def read():\n    import timm", ["timm in line 2"]),
        ("try:\n    import onnx\nexcept ImportError:\n    pass", ["onnx in line 2"]),
        ("from senet_jax.interchange.onnx import INPUT", ["senet_jax.interchange.onnx in line 1"]),
        ("import json, numpy.random\nfrom PIL import Image\nfrom senet_jax import errors", []),
    ],
)
def test_an_import_that_is_not_declared_is_found(text, expected):
    run_time, extras = {"numpy", "pillow"}, {"torch": {"torch"}, "onnx": {"onnx"}}
    assert undeclared(text, run_time, extras) == expected


def closure(requirements):
    """All distributions that these bring along, by their canonical names."""
    found, waiting = set(), [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key in found:
            continue
        found.add(key)
        for text in importlib.metadata.requires(wanted.name) or []:
            need = Requirement(text)
            extras = wanted.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(need)
    return {name for name, _ in found}


ALONE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
{code}
"""


LAZY_IN_LIBRARIES = """
# flatbuffers, when jax.export serialises.
import jax, jax.export
program = jax.export.export(jax.jit(lambda x: x))(jax.ShapeDtypeStruct((2,), "int32"))
jax.export.deserialize(program.serialize())
# importlib_resources, when TensorFlow Datasets is asked for a data set.
import tensorflow_datasets as tfds
tfds.builder_cls("cifar10")
"""


def test_lazy_imports_of_libraries_are_declared():
    installed = closure(PROJECT["dependencies"])
    absent = {
        module
        for module, homes in HOMES.items()
        if not {canonicalize_name(name) for name in homes} & installed
    }
    assert "pytest" in absent
    assert "numpy" not in absent
    program = ALONE.format(absent=absent, code=LAZY_IN_LIBRARIES)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_ci_runs_every_command_and_a_study():
    listed = runpy.run_path(str(ROOT / ".ci" / "readme_commands"))["COMMANDS"]
    first = {" ".join(text.split()[:2]) for _, text in listed}
    assert {f"senet-jax {name}" for name in SUMMARIES} <= first
    assert any(text.startswith("python -m experiments.") for _, text in listed)


def test_the_pinned_versions_cover_what_is_declared():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(re.split("==", line)[0]) for line in lines if "==" in line}
    assert pinned >= RUN_TIME
