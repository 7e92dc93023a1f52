"""The fields of the attention mechanisms.

A description in ``senet_jax.attention`` inherits those of its mechanism:
``class SqueezeExciteConfig(SqueezeExciteFields, Attention)``. A gate, a squeeze operator and an
activation are keys of tables in that package, to which a script can add its own; a description
checks that it has them.
"""

import dataclasses
from typing import Annotated, Literal

from senet_jax.ranges import KERNEL, MOST_WIDTH, WIDTH, Range, whole

# Below 1 the hidden layer is wider than the map: by at most 100 times.
Reduction = Annotated[float, Range(0.01, MOST_WIDTH)]


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class SqueezeExciteFields:
    """Fields of Squeeze-and-Excitation."""

    squeeze: str = "avg"
    """Squeeze operator: "avg", "max", "avgmax", "std", or "none", which takes none: the excitation
    as 1x1 convolutions at full resolution (NoSqueeze, section 6.5)."""
    gate: str = "sigmoid"
    """The last non-linearity of the excitation: "sigmoid", "relu", "tanh" or "hard_sigmoid"."""
    activation: str = "relu"
    """Function between the two layers: "relu", "relu6", "silu", "gelu" or "hard_swish"."""
    reduction: Reduction = 16
    """The ratio r: the hidden width is c // r."""
    width: Annotated[int | None, whole(1, MOST_WIDTH, none="by the reduction")] = None
    """The hidden width itself, whatever the number of channels; ``reduction`` and ``divisor``
    then have no effect."""
    divisor: Annotated[int, WIDTH] = 1
    """The hidden width is rounded to the nearest multiple of this, and is at least this (timm's
    ``seresnet*`` use 8). 1 keeps c // r."""
    bias: bool = True
    """Biases in the two layers."""


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class ECAFields:
    """Fields of Efficient Channel Attention."""

    squeeze: str = "avg"
    """Squeeze operator: "avg", "max", "avgmax" or "std"."""
    gate: str = "sigmoid"
    """The gate of each channel."""
    kernel_size: Annotated[int | None, dataclasses.replace(KERNEL, none="by the channels")] = None
    """Channels that a gate sees, odd; None grows it with the channels (eq. 12)."""


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class CBAMFields:
    """Fields of the convolutional block attention module."""

    gate: str = "sigmoid"
    """The gate of both attentions."""
    reduction: Reduction = 16
    """The ratio r: the hidden width of the channel attention is c // r."""
    bias: bool = True
    """Biases in the two layers of the channel attention."""
    # A window of pixels; the authors tried 3 and 7.
    kernel_size: Annotated[int, dataclasses.replace(KERNEL, greatest=63)] = 7
    """Side of the window that the gate of a pixel sees, odd."""
    norm: bool = True
    """A batch norm after the convolution of the spatial attention, which is in the authors' code
    and not in the paper's eq. 3. Its scale starts at zero, where every pixel has the same gate."""


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class GatherExciteFields:
    """Fields of gather-excite."""

    extent: Literal[0, 2, 4, 8] = 0
    """The extent ratio e: what is gathered is 2, 4 or 8 times smaller on each side than the map, or
    of 0, the paper's best, a single pixel."""
    gather: Literal["avg", "conv"] = "avg"
    """"avg": the mean over windows of 2e - 1 pixels, e apart, or over the map, without parameters.
    "conv": depthwise 3x3 convolutions of stride 2, one for each halving, or a single one that is as
    large as the map, which must then always have the size that the network was made for. A batch
    norm follows each of them and a ReLU each but the last."""
    mlp: bool = False
    """Put two layers that mix the channels, as those of Squeeze-and-Excitation, before the gate. A
    gather by convolutions then ends in a ReLU, as in the authors' network."""
    gate: str = "sigmoid"
    """The gate of each pixel of what was gathered."""
    reduction: Reduction = 16
    """The ratio r of ``mlp``: its hidden width is c // r."""
    bias: bool = True
    """Biases in the layers of ``mlp``."""


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class SelectiveKernelFields:
    """Fields of selective kernels."""

    dilations: Annotated[tuple[int, ...], whole(1, 64, count=(2, 16))] = (1, 2)
    """Dilation of each path's 3x3 kernel: 2 stands for a 5x5 kernel, 3 for a 7x7."""
    reduction: Reduction = 16
    """The ratio r: the hidden width is features // r."""
    min_width: Annotated[int, WIDTH] = 32
    """The hidden width is at least this (L in eq. 4)."""
    split_input: bool = False
    """Give each path its share of the input channels and not all of them, which keeps the
    parameters of ungrouped convolutions few (timm's ``skresnet*``)."""
    squeeze: str = "avg"
    """Squeeze operator, applied to the sum of the paths (eqs. 1 and 2)."""


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class SplitAttentionFields:
    """Fields of split attention."""

    # Copies of the channels; the papers have at most 4.
    radix: Annotated[int, whole(0, 64)] = 2
    """Splits of each cardinal group, among which a softmax chooses. 1 is Squeeze-and-Excitation
    in each group, with a sigmoid; 0 leaves the plain convolution (ResNet-D)."""
    reduction: Annotated[int, WIDTH] = 4
    """The hidden width is channels * radix // reduction, of the channels that come in."""
    min_width: Annotated[int, WIDTH] = 32
    """The hidden width is at least this."""
    squeeze: str = "avg"
    """Squeeze operator, applied to the sum of the splits (eq. 1)."""


Kind = Literal["se", "eca", "cbam", "ge", "sk", "split"]

MECHANISMS: dict[str, type] = {
    "se": SqueezeExciteFields,
    "eca": ECAFields,
    "cbam": CBAMFields,
    "ge": GatherExciteFields,
    "sk": SelectiveKernelFields,
    "split": SplitAttentionFields,
}
"""The mechanisms whose fields are flags, by name."""
