"""ResNeSt: split attention in a ResNet-D whose strides are average pools (arXiv 2004.08955)."""

import functools
from collections.abc import Callable
from typing import Any

from senet_jax.attention import SplitAttentionConfig
from senet_jax.models.resnet import ResNet, named


def resnest(
    spec: str,
    *,
    radix: int = 2,
    cardinality: int = 1,
    width: int = 64,
    fast: bool = False,
    **fields: Any,
) -> Callable[..., ResNet]:
    """Constructor of a ResNeSt.

    Args:
        spec: Depth, and "d" or "e" for a stem of 32 or 64 channels: "50d", "101e".
        radix: Splits of a cardinal group, s in the paper's Table 3; 0 is a ResNet-D.
        cardinality: Cardinal groups, x in the table.
        width: Width of a group in stage 2, d in the table.
        fast: Pool before the 3x3 convolution and not after it.
        **fields: Further fields of the network.
    """
    return named(
        spec,
        attention=SplitAttentionConfig(radix=radix),
        cardinality=cardinality,
        base_width=width,
        stride_by="pool_before" if fast else "pool_after",
        **fields,
    )


_fast = functools.partial(resnest, "50d", fast=True)

RESNESTS: dict[str, Callable[..., ResNet]] = {
    "resnest14d": resnest("14d"),
    "resnest26d": resnest("26d"),
    "resnest50d": resnest("50d"),
    "resnest101e": resnest("101e"),
    "resnest200e": resnest("200e"),
    "resnest269e": resnest("269e"),
    "resnest50d_1s4x24d": _fast(radix=1, cardinality=4, width=24),
    "resnest50d_4s2x40d": _fast(radix=4, cardinality=2, width=40),
    **{
        f"resnest50_fast_{radix}s{cardinality}x{width}d": _fast(
            radix=radix, cardinality=cardinality, width=width
        )
        for radix, cardinality, width in (
            (1, 1, 64),
            (2, 1, 64),
            (4, 1, 64),
            (1, 2, 40),
            (2, 2, 40),
            (4, 2, 40),
            (1, 4, 24),
        )
    },
}
"""Names as in timm, and those of the authors' repository for the fast ones of its ablation."""

RESNEST_SIZES = {"resnest101e": 256, "resnest200e": 320, "resnest269e": 416}
"""Sides of the images where the authors did not use 224 pixels."""
