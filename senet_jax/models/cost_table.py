"""The costs of the networks of the zoo, which ``cost`` counted once, and a file keeps.

``python -m tests.models.test_cost_table`` counts them anew.
"""

import csv
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

from senet_jax.models.cost import Cost, cost
from senet_jax.models.zoo import ComposedEntry, ZooEntry, create_model, find

TABLE = Path(__file__).with_name("cost_table.csv")
"""Name, side of the images in pixels, fingerprint, parameters and multiply-accumulates."""


def zoo_cost(name: str) -> Cost:
    """The cost of a network at the size of images that it was published for.

    It is read from the table if that has the network with the same fields and size, and counted
    otherwise.

    Args:
        name: A name as ``create_model`` takes it.

    Raises:
        UsageError: An unknown name.
    """
    entry = find(name)
    size, digest, found = _rows().get(name, (0, "", None))
    if found is not None and (size, digest) == (entry.input_size, fingerprint(entry)):
        return found
    return count(name)


def count(name: str) -> Cost:
    """Counts what ``zoo_cost`` returns.

    Raises:
        UsageError: An unknown name.
    """
    return cost(create_model(name), find(name).input_size)


def fingerprint(entry: ZooEntry) -> str:
    """A digest of the classes and of all fields of a network."""
    head = entry.head.__qualname__ if isinstance(entry, ComposedEntry) else ""
    text = repr((entry.family.__qualname__, head, sorted(entry.fields.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_table(costs: Iterable[tuple[str, Cost]]) -> None:
    """Writes the table.

    Args:
        costs: The names of networks of the zoo, and their costs.
    """
    with TABLE.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("name", "input_size", "fingerprint", "params", "macs"))
        for name, found in costs:
            entry = find(name)
            rows.writerow((name, entry.input_size, fingerprint(entry), found.params, found.macs))


@functools.cache
def _rows() -> dict[str, tuple[int, str, Cost]]:
    """The rows of the table by name: side, fingerprint and cost."""
    with TABLE.open(newline="") as file:
        return {
            row["name"]: (
                int(row["input_size"]),
                row["fingerprint"],
                Cost(int(row["params"]), int(row["macs"])),
            )
            for row in csv.DictReader(file)
        }
