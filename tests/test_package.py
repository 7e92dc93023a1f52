import fnmatch
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import senet_jax
from senet_jax.models import zoo

PACKAGE = Path(senet_jax.__file__).parent


def imported_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_import_is_light():
    modules = imported_by("import senet_jax")
    assert "senet_jax" in modules
    assert modules.isdisjoint({"jax", "flax", "tensorflow", "numpy", "grain", "orbax"})


def test_models_need_no_tensorflow():
    modules = imported_by("import senet_jax; senet_jax.create_model('seresnet50')")
    assert "flax" in modules
    assert modules.isdisjoint({"tensorflow", "tensorflow_datasets", "grain", "orbax"})


def test_public_names_are_those_of_their_homes():
    assert senet_jax.create_model is zoo.create_model
    assert senet_jax.list_models is zoo.list_models
    assert set(senet_jax.__all__) <= set(dir(senet_jax))
    assert all(hasattr(senet_jax, name) for name in senet_jax.__all__)


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'resnest'"):
        _ = senet_jax.resnest


def test_the_report_of_a_run_needs_no_statistics():
    modules = imported_by("import senet_jax.analysis.run_report, senet_jax.training.loop")
    assert "matplotlib" in modules
    assert modules.isdisjoint({"scipy.stats", "sklearn", "senet_jax.analysis.study.report"})


def test_the_wheel_has_every_file_of_the_package():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["senet_jax"]
    files = [path for path in PACKAGE.rglob("*") if path.is_file()]
    data = {
        path.relative_to(PACKAGE).as_posix()
        for path in files
        if path.suffix not in {".py", ".pyc", ".md"}
    }
    assert data >= {"py.typed", "models/cost_table.csv"}
    assert [name for name in data if not any(fnmatch.fnmatch(name, x) for x in patterns)] == []
    # setuptools takes folders with this file alone for packages.
    folders = {path.parent for path in files if path.suffix == ".py"}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
