"""Channel attention: the mechanisms, each a frozen description that builds a fresh Linen module."""

from senet_jax.attention.base import Attention as Attention
from senet_jax.attention.gates import GATES as GATES
from senet_jax.attention.squeeze import SQUEEZES as SQUEEZES
from senet_jax.attention.squeeze_excite import SqueezeExcite as SqueezeExcite
from senet_jax.attention.squeeze_excite import SqueezeExciteConfig as SqueezeExciteConfig

ATTENTIONS: dict[str, type[Attention]] = {config.name: config for config in (SqueezeExciteConfig,)}
"""The mechanisms by name."""
