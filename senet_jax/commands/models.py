"""`senet-jax models`."""

import argparse
import json
from typing import Any

from senet_jax.errors import UsageError

EXAMPLES = """examples:
  senet-jax models                        all networks
  senet-jax models 'cifar_se*'            those whose name matches
  senet-jax models seresnet50 --json      as a list of objects
  senet-jax models fcn_resnest50d         a head on a backbone, which is counted now"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern of names")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of JSON objects")
    form.add_argument("--markdown", action="store_true", help="print a table in Markdown")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from senet_jax.models.cost_table import zoo_cost
    from senet_jax.models.zoo import find

    names = _names(options.pattern)

    def row_of(name: str) -> dict[str, Any]:
        size, found = find(name).input_size, zoo_cost(name)
        return {"name": name, "params": found.params, "macs": found.macs, "input_size": size}

    if options.json:
        print(json.dumps([row_of(name) for name in names], indent=2))
        return 0
    if options.markdown:
        head = "| name | parameters | GMACs | input |\n|---|--:|--:|--:|"
        line = "| {name} | {params:,} | {gmacs:.3f} | {input_size} |"
    else:
        head = f"{'name':<28}{'parameters':>14}{'GMACs':>10}{'input':>8}"
        line = "{name:<28}{params:>14,}{gmacs:>10.3f}{input_size:>8}"
    print(head)
    for name in names:
        row = row_of(name)
        print(line.format(**row, gmacs=row["macs"] / 1e9), flush=True)
    return 0


def _names(pattern: str) -> list[str]:
    """The networks that match a pattern, or the composed one of this very name.

    Raises:
        UsageError: There is none.
    """
    from senet_jax.models.zoo import find, list_models

    if names := list_models(pattern):
        return names
    try:
        find(pattern)
    except UsageError:
        raise UsageError(f"no network matches {pattern!r}: `senet-jax models` lists all.") from None
    return [pattern]
