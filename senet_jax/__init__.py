"""senet_jax: channel attention in JAX and Flax Linen.

Squeeze-and-Excitation (SENet, arXiv 1709.01507) and its relatives in the backbones of the papers,
with the training, the ablations and the analysis around them. The names below are loaded when they
are first asked for, so that ``import senet_jax`` stays light.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from senet_jax.attention import CBAMConfig as CBAMConfig
    from senet_jax.attention import ECAConfig as ECAConfig
    from senet_jax.attention import GatherExciteConfig as GatherExciteConfig
    from senet_jax.attention import SelectiveKernelConfig as SelectiveKernelConfig
    from senet_jax.attention import SplitAttentionConfig as SplitAttentionConfig
    from senet_jax.attention import SqueezeExciteConfig as SqueezeExciteConfig
    from senet_jax.errors import UsageError as UsageError
    from senet_jax.models.zoo import create_model as create_model
    from senet_jax.models.zoo import list_models as list_models

_HOME = {
    "CBAMConfig": "senet_jax.attention",
    "ECAConfig": "senet_jax.attention",
    "GatherExciteConfig": "senet_jax.attention",
    "SelectiveKernelConfig": "senet_jax.attention",
    "SplitAttentionConfig": "senet_jax.attention",
    "SqueezeExciteConfig": "senet_jax.attention",
    "UsageError": "senet_jax.errors",
    "create_model": "senet_jax.models.zoo",
    "list_models": "senet_jax.models.zoo",
}

__version__ = "0.1.0"
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
