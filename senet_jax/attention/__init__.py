"""Channel attention: the mechanisms, each a frozen description that builds a fresh Linen module."""

from senet_jax.attention.base import Attention as Attention
from senet_jax.attention.base import ConvAttention as ConvAttention
from senet_jax.attention.base import Gated as Gated
from senet_jax.attention.base import Mechanism as Mechanism
from senet_jax.attention.eca import ECA as ECA
from senet_jax.attention.eca import ECAConfig as ECAConfig
from senet_jax.attention.gates import GATES as GATES
from senet_jax.attention.selective_kernel import SelectiveKernel as SelectiveKernel
from senet_jax.attention.selective_kernel import SelectiveKernelConfig as SelectiveKernelConfig
from senet_jax.attention.split_attention import SplitAttention as SplitAttention
from senet_jax.attention.split_attention import SplitAttentionConfig as SplitAttentionConfig
from senet_jax.attention.squeeze import SQUEEZES as SQUEEZES
from senet_jax.attention.squeeze_excite import SqueezeExcite as SqueezeExcite
from senet_jax.attention.squeeze_excite import SqueezeExciteConfig as SqueezeExciteConfig

ATTENTIONS: dict[str, type[Attention] | type[ConvAttention]] = {
    "se": SqueezeExciteConfig,
    "eca": ECAConfig,
    "sk": SelectiveKernelConfig,
    "split": SplitAttentionConfig,
}
"""The mechanisms by name."""
