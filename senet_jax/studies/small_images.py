"""Parts of recipes for small images, in the place of those for photographs."""

from typing import Any

CUTOUT = {"digits": 3, "cifar10": 16, "cifar100": 8}
"""Sides of the squares, pixels: those of Cutout (arXiv 1708.04552), and one that leaves a digit."""

_RESNEXT29: dict[str, Any] = {"name": "cifar_resnext29_8x64d", "shortcut": "D"}
RESNEST_BODIES: dict[str, dict[str, Any]] = {
    "digits": _RESNEXT29 | {"blocks": (1, 1), "widths": (32, 64)},
    "cifar10": _RESNEXT29 | {"widths": (32, 64, 128)},
    "cifar100": _RESNEXT29 | {"widths": (32, 64, 128)},
}
"""Networks for the ablations of ResNeSt, narrower than the ResNeXt-29 whose stages they have."""
