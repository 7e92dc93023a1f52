"""`senet-jax models`."""

import argparse
import json
from typing import Any

from senet_jax.errors import UsageError

SUMMARY = "List the networks with their parameters and multiply-accumulates."

EXAMPLES = """examples:
  senet-jax models                        all networks
  senet-jax models 'cifar_se*'            those whose name matches
  senet-jax models seresnet50 --json      as a list of objects"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern of names")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of JSON objects")
    form.add_argument("--markdown", action="store_true", help="print a table in Markdown")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from senet_jax.models.cost import cost
    from senet_jax.models.zoo import create_model, find, list_models

    names = list_models(options.pattern)
    if not names:
        raise UsageError(f"no network matches {options.pattern!r}: `senet-jax models` lists all.")

    def count(name: str) -> dict[str, Any]:
        size = find(name).input_size
        counted = cost(create_model(name), size)
        return {"name": name, "params": counted.params, "macs": counted.macs, "input_size": size}

    if options.json:
        print(json.dumps([count(name) for name in names], indent=2))
        return 0
    if options.markdown:
        head = "| name | parameters | GMACs | input |\n|---|--:|--:|--:|"
        line = "| {name} | {params:,} | {gmacs:.3f} | {input_size} |"
    else:
        head = f"{'name':<28}{'parameters':>14}{'GMACs':>10}{'input':>8}"
        line = "{name:<28}{params:>14,}{gmacs:>10.3f}{input_size:>8}"
    print(head)
    for name in names:
        row = count(name)
        print(line.format(**row, gmacs=row["macs"] / 1e9), flush=True)
    return 0
