"""SKNet: selective kernels in ResNets and ResNeXts (arXiv 1903.06586)."""

from collections.abc import Callable

from senet_jax.attention import SelectiveKernelConfig
from senet_jax.models.resnet import ResNet, named

_BASIC = SelectiveKernelConfig(reduction=8, min_width=16, split_input=True)
_BOTTLENECK = SelectiveKernelConfig(reduction=16, min_width=8, split_input=True)

SKNETS: dict[str, Callable[..., ResNet]] = {
    "skresnet18": named("18", attention=_BASIC),
    "skresnet34": named("34", attention=_BASIC),
    "skresnet50": named("50", attention=_BOTTLENECK),
    "skresnet50d": named("50d", attention=_BOTTLENECK),
    "skresnext50_32x4d": named("50_32x4d", attention=SelectiveKernelConfig()),
}
"""Names and networks as in timm: ``skresnext50_32x4d`` is the released SKNet-50, the ungrouped
``skresnet*`` split the input between the paths."""
