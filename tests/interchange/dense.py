"""Outputs of networks of semantic segmentation in PyTorch, with weights drawn by rule.

``torch_dense.json`` was made with torch 2.13.0 on CPU: torchvision 0.28.0's networks, and those of
ResNeSt's authors (PyTorch-Encoding at ac74841: ``encoding/models/sseg`` on the dilated ResNeSt-50
there, whole and with fewer blocks), all in evaluation mode and float32, with an auxiliary head and
21 classes. Their weights are what ``goldens.draw`` gives; names and shapes are kept as a checksum.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("torch_dense.json")


@dataclasses.dataclass(frozen=True)
class DenseGolden:
    """PyTorch's outputs of a network."""

    name: str
    fields: dict[str, Any]
    """Those in which the network differs from the named one."""
    params: int
    entries: int
    """Arrays of the state dict but for the counters of the batch norms."""
    sha256: str
    """Checksum of their names and shapes."""
    outputs: tuple[dict[str, Any], ...]

    @property
    def whole(self) -> bool:
        """Tells whether it has all its blocks."""
        return "blocks" not in self.fields

    def __str__(self) -> str:
        return self.name if self.whole else f"{self.name} of few blocks"


@functools.cache
def dense_goldens() -> tuple[DenseGolden, ...]:
    golden = []
    for entry in json.loads(FILE.read_text()):
        fields = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in entry["fields"].items()
        }
        entry |= {"fields": fields, "outputs": tuple(entry["outputs"])}
        golden.append(DenseGolden(**entry))
    return tuple(golden)


def checksum(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The checksum of the names and shapes of a state dict."""
    lines = sorted(f"{key} {list(shape)}" for key, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def photograph(height: int, width: int) -> np.ndarray:
    """A normalized image (1, height, width, 3)."""
    rng = np.random.default_rng(height * 1000 + width)
    return rng.standard_normal((1, height, width, 3)).astype(np.float32)
