"""The check of the language of the code, which `make lint` runs."""

import runpy
from pathlib import Path

import pytest

CHECK = runpy.run_path(str(Path(__file__).parents[1] / ".ci" / "check_prose"))


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("# What is left.\nx = 1", [1]),
        ("x = 1  # Where it is.", []),
        ("# Whatever is left, ours.", []),
        ("# Of two, the first.\n# Whether it is.", [1, 2]),
        ('"""Where it is."""\n\ndef f():\n    """Whether it holds."""', [1, 4]),
        ('class A:\n    x: int = 1\n    """Of the two the first."""', [3]),
        ('add("--dir", help="where it lies")', [1]),
        ('add("--dir", help="folder, where it is")', []),
        (f"def test_{'a' * 55}():\n    pass", []),
        (f"def test_{'a' * 56}():\n    pass", [1]),
    ],
)
def test_a_breach_is_found_in_its_line(source, lines):
    assert [line for line, _ in sorted(CHECK["breaches_of"](source))] == lines
