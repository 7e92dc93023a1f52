"""The examples in docstrings give the results that they show."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted((ROOT / "senet_jax").rglob("*.py"))
    if "    >>> " in file.read_text()
]


def test_the_public_functions_have_examples():
    assert {"senet_jax.models.zoo", "senet_jax.attention.squeeze_excite"} <= {*MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_hold(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
