"""The notebooks: what can be seen of them without a kernel and, slow, that they run clean."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NAMES = [
    "01_squeeze_and_excitation",
    "02_ablations",
    "03_inside_the_gates",
    "04_split_attention",
    "05_train_on_imagenet",
    "06_pretrained_weights",
    "07_segmentation",
    "08_detection",
]

MOST_BYTES = 400_000
"""A notebook with its figures."""

ABSOLUTE = re.compile(r"(?<![\w.:/~])/(?:home|root|Users|mnt|opt|private|tmp|usr|var|work)\b")
"""A path of some machine."""

OF_THE_TESTS = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT")
"""Beginnings of the variables that the tests set and that are not a user's."""


def read(name):
    import nbformat  # Here, because it takes seconds.

    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


def imported(source):
    """Module and name of all that a cell imports from the project."""
    tree = ast.parse(re.sub(r"^%.*$", "", source, flags=re.MULTILINE))
    return [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in PACKAGES
        for alias in node.names
    ]


PACKAGES = ("senet_jax", "experiments")


def test_there_are_these_and_no_others():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_is_committed_as_it_was_executed_from_top_to_bottom(name):
    import nbformat

    notebook, code = read(name)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs
    assert {output.output_type for output in outputs} <= {
        "stream",
        "execute_result",
        "display_data",
    }
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}


@pytest.mark.parametrize("name", NAMES)
def test_has_nothing_of_the_machine_that_executed_it(name):
    notebook, _ = read(name)
    assert set(notebook.metadata) == {"kernelspec"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.metadata for cell in notebook.cells] == [{}] * len(notebook.cells)
    file = FOLDER / f"{name}.ipynb"
    assert ABSOLUTE.findall(file.read_text()) == []
    assert file.stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_what_it_imports_exists(name):
    _, code = read(name)
    names = [each for cell in code for each in imported(cell.source)]
    assert names
    for module, attribute in names:
        found = importlib.import_module(module)
        assert hasattr(found, attribute) or importlib.import_module(f"{module}.{attribute}")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs_clean(name, tmp_path):
    copy = shutil.copy(FOLDER / f"{name}.ipynb", tmp_path)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(OF_THE_TESTS)}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "nbconvert", "--config", FOLDER / "nbconvert.json"),
            *("--to", "notebook", "--execute", "--inplace", copy),
        ],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
