"""Inception-ResNet-v2, with attention on the residual branch of each block.

Sources: Inception-ResNet-v2 (arXiv 1602.07261, section 3.2 and Figures 15 to 19), the place of the
attention (SENet, arXiv 1709.01507, section 3.3 and Figure 3). The widths are those of the released
weights (TF-slim's, timm's).
"""

import dataclasses
import functools
from collections.abc import Callable

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.attention import Mechanism
from senet_jax.attention.base import apply_attention
from senet_jax.fields.models import InceptionResNetFields
from senet_jax.models.branches import Conv, Path, Pool, Step, UnitConfig, chain, follow
from senet_jax.models.inception import (
    REDUCE,
    SE,
    STEM,
    VALID,
    Inception,
    InceptionModule,
    ModuleSpec,
)
from senet_jax.ops.relu import relu_of_sum


@dataclasses.dataclass(frozen=True)
class ResidualSpec(ModuleSpec):
    """A block whose concatenated paths are projected, scaled and added to its input."""

    scale: float
    relu: bool = True
    """A ReLU follows the addition."""


class ResidualModule(nn.Module):
    """An Inception module as the residual branch of a block (Inception-ResNet, section 3.2)."""

    spec: ResidualSpec
    config: UnitConfig
    attention: Mechanism | None
    after_scale: bool
    """The attention stands after the scale; see ``InceptionResNet.placement``."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        spec, compute = self.spec, self.config.compute
        branch = follow((spec,), x, self.config)
        branch = compute.conv(x.shape[-1], 1, use_bias=True, name="expansion")(branch)
        branch = branch * spec.scale if self.after_scale else branch
        branch = apply_attention(self.attention, branch, compute)
        branch = branch if self.after_scale else branch * spec.scale
        return relu_of_sum(x + branch) if spec.relu else x + branch


class InceptionResNet(InceptionResNetFields, Inception):
    """A sequence of convolutions, pools, Inception modules and residual blocks.

    The attention is that of the residual blocks; the modules in between have none.
    """

    def module(self, spec: ModuleSpec, config: UnitConfig) -> nn.Module:
        if not isinstance(spec, ResidualSpec):
            return self.rematerialized(InceptionModule)(spec, config, None, name=spec.name)
        attention = self.attention_of(spec.stage)
        return self.rematerialized(ResidualModule)(
            spec, config, attention, self.placement == "after_scale", name=spec.name
        )


def _paths(*branches: tuple[Pool | tuple, ...]) -> tuple[Path, ...]:
    return tuple(chain(f"branch{index}", *steps) for index, steps in enumerate(branches, 1))


def _blocks(
    name: str, stage: int, scales: tuple[float, ...], *branches: tuple[tuple, ...]
) -> tuple[ModuleSpec, ...]:
    """Blocks of one kind; one of scale 1 is the last of the network, without a ReLU."""
    return tuple(
        ResidualSpec(_paths(*branches), f"{name}_{index}", stage, scale, relu=scale != 1)
        for index, scale in enumerate(scales, 1)
    )


INCEPTION_RESNET_V2: tuple[Step, ...] = (
    *STEM,
    ModuleSpec(
        _paths(
            ((96,),),
            ((48,), (64, 5)),
            ((64,), (96, 3), (96, 3)),
            (Pool("avg", count_pad=False), (64,)),
        ),
        "mixed_5b",
        3,
    ),
    *_blocks(
        "block35",
        3,
        (0.17,) * 10,
        ((32,),),
        ((32,), (32, 3)),
        ((32,), (48, 3), (64, 3)),
    ),
    ModuleSpec(
        _paths(((384, *VALID),), ((256,), (256, 3), (384, *VALID)), (REDUCE,)), "mixed_6a", 4
    ),
    *_blocks(
        "block17",
        4,
        (0.1,) * 20,
        ((192,),),
        ((128,), (160, (1, 7)), (192, (7, 1))),
    ),
    ModuleSpec(
        _paths(
            ((256,), (384, *VALID)),
            ((256,), (288, *VALID)),
            ((256,), (288, 3), (320, *VALID)),
            (REDUCE,),
        ),
        "mixed_7a",
        5,
    ),
    *_blocks(
        "block8",
        5,
        (0.2,) * 9 + (1.0,),
        ((192,),),
        ((192,), (224, (1, 3)), (256, (3, 1))),
    ),
    Conv("conv2d_7b", 1536),
)
"""Modules and blocks have TensorFlow's names, blocks and their branches counted from 1. The stages
go by the resolution, as in Inception-v3."""

INCEPTION_RESNETS: dict[str, Callable[..., InceptionResNet]] = {
    "inception_resnet_v2": functools.partial(
        InceptionResNet, layers=INCEPTION_RESNET_V2, epsilon=1e-3
    ),
    "se_inception_resnet_v2": functools.partial(
        InceptionResNet, layers=INCEPTION_RESNET_V2, epsilon=1e-3, attention=SE
    ),
}
"""As in timm. SE stands in the 40 residual blocks."""
