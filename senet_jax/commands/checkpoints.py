"""`senet-jax checkpoints`."""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING

from senet_jax.command_line.arguments import address
from senet_jax.errors import UsageError

if TYPE_CHECKING:
    from senet_jax.training.records.inventory import Entry

EXAMPLES = """examples:
  senet-jax checkpoints runs/demo
  senet-jax checkpoints runs/demo --verify      read every one and compare its numbers
  senet-jax checkpoints gs://bucket/run --json

Kept are the newest, the best by a metric and, if asked, some for good ("every"): see
--checkpoint.* of `senet-jax train`. A damaged one is set aside when its run resumes; a partial one
is being saved, or was when its run was killed, and the next start of the run deletes it.
Exit code 2 if one is damaged."""

COLUMNS = ("step", "epoch", "{metric}", "MB", "saved (UTC)", "kept", "state", "code")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the command takes."""
    parser.add_argument(
        "dir", type=address, help="folder of a run or of its checkpoints, or a bucket's"
    )
    parser.add_argument("--verify", action="store_true", help="read them all; of a large run, long")
    parser.add_argument("--json", action="store_true", help="print a list of JSON objects")


def run(options: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from senet_jax.tasks import best_metric
    from senet_jax.training.records.inventory import find_folder, take_inventory

    folder, config = find_folder(options.dir)
    entries = take_inventory(folder, config, verify=options.verify)
    if not entries:
        raise UsageError(f"there are no checkpoints in {folder}.")
    damaged = [entry for entry in entries if entry.state == "damaged"]
    if options.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2))
    else:
        print(_table(entries, best_metric(config).validation))
        for entry in damaged:
            print(f"{entry.name}: {entry.problem}")
        if options.verify:
            whole = sum(entry.state == "whole" for entry in entries)
            print(f"{whole} of {whole + len(damaged)} have the numbers that were saved")
    return 2 if damaged else 0


def _table(entries: "list[Entry]", metric: str) -> str:
    from senet_jax.text import columns

    lines = [tuple(column.format(metric=metric) for column in COLUMNS)]
    for entry in entries:
        measured = entry.metrics.get(metric)
        epoch = entry.metrics.get("epoch")
        lines.append(
            (
                entry.name,
                "" if epoch is None else f"{epoch:g}",
                "" if measured is None else f"{measured:.4f}",
                f"{entry.size / 1e6:,.1f}",
                "" if entry.saved is None else entry.saved[:16].replace("T", " "),
                ", ".join(entry.kept),
                entry.state,
                entry.code or "",
            )
        )
    return "\n".join(line.rstrip() for line in columns(lines, numbers=False))
