"""Weights and images drawn by rule, and what PyTorch's models make of them.

``torch_models.json`` was made with torch 2.13.0 and timm 1.0.31 on CPU: for each network the names
and shapes of its state dict, and its logits on ``images(size)`` with weights that ``draw`` gives.
The networks of ``ADDED`` were added to those that the project was given, by the same rule and the
same versions, with timm's model in evaluation mode and float32; BN-Inception is Cadene's
(pretrained-models.pytorch at 8aae3d8).
"""

import dataclasses
import functools
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Golden:
    """PyTorch's outputs of a network."""

    entries: dict[str, tuple[int, ...]]
    params: int
    outputs: tuple[dict[str, Any], ...]

    def state_dict(self) -> dict[str, np.ndarray]:
        return {key: draw(key, shape) for key, shape in self.entries.items()}


FAST = {"resnet18", "legacy_seresnet18", "resnest14d", "skresnet18", "bninception"}
"""The networks whose logits every run of the tests computes."""

FILE = Path(__file__).with_name("torch_models.json")

ADDED = {
    "legacy_seresnet18",
    "ecaresnet50t",
    "resnest14d",
    "skresnet50",
    "skresnext50_32x4d",
    "wide_resnet50_2",
    "seresnext26d_32x4d",
    "legacy_seresnext26_32x4d",
    "vgg11",
    "inception_v3",
    "bninception",
}
"""The networks of the file that were made here."""


@functools.cache
def goldens() -> dict[str, Golden]:
    return {
        name: Golden(
            entries={key: tuple(shape) for key, shape in golden["entries"]},
            params=golden["params"],
            outputs=tuple(golden["outputs"]),
        )
        for name, golden in json.loads(FILE.read_text()).items()
    }


def draw(key: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if key.endswith("running_mean") or (len(shape) == 1 and key.endswith("bias")):
        array = 0.1 * rng.standard_normal(shape)
    elif key.endswith("running_var"):
        array = rng.uniform(0.7, 1.4, shape)
    elif len(shape) == 1:
        array = rng.uniform(0.6, 1.1, shape)
    else:
        array = rng.standard_normal(shape) * math.sqrt(1.6 / math.prod(shape[1:]))
    return array.astype(np.float32)


def images(size: int) -> np.ndarray:
    return np.random.default_rng(size).standard_normal((2, size, size, 3)).astype(np.float32)
