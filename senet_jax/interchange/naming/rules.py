"""What a naming is, and how a table of rules makes one."""

import re
from collections.abc import Callable

Naming = Callable[[str], str]
"""From the path of a module in Flax, "stage2/block1/se/reduce", to its name in PyTorch."""

Rules = tuple[tuple[str, str], ...]
"""Regular expressions and what they expand to; the first that matches the whole holds."""

BACKBONE = "backbone/"
"""The start of the paths of the modules of a composed network's backbone."""


def apply(rules: Rules, path: str) -> str:
    """The expansion of the first rule that matches a path, or the path itself, with dots."""
    for pattern, name in rules:
        if found := re.fullmatch(pattern, path):
            path = found.expand(name)
            break
    return path.replace("/", ".")
