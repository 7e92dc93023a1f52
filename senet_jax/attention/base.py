"""What a backbone knows of an attention mechanism: one of two kinds of description.

Backbones hold a description, never a module: a Linen module handed around would share its weights
between all the blocks that call it.
"""

import abc
import dataclasses
from typing import Any, ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.errors import UsageError
from senet_jax.ranges import check_fields


@dataclasses.dataclass(frozen=True)
class Attention(abc.ABC):
    """Description of a mechanism that rescales: it maps (n, h, w, c) to (n, h, w, c)."""

    name: ClassVar[str]
    """Name of the submodule in the parameters of a block ("se", ...)."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def averages(self) -> bool:
        """Whether all that the mechanism takes of a tensor is its mean over the pixels.

        Its module then has a method ``excite`` from these means (n, c) to the gate (n, c), float32,
        and a batch norm before it can apply the gate in its own pass.
        """
        return False

    @abc.abstractmethod
    def build(self, *, train: bool, norm_group: int | None = None, dtype: Any = None) -> Any:
        """Returns a fresh module, called as ``module(x)`` inside a compact method.

        Args:
            train: Whether the batch norms, if the mechanism has any, take the batch's statistics.
            norm_group: Samples whose statistics they take together, None for all.
            dtype: Precision of the tensor that is rescaled; what the mechanism computes to get
                the scale is float32.
        """


class Gated(nn.Module):
    """A module that weights channels by a gate, which can be looked at and replaced.

    Subclasses pass their gate, or the weights of their paths, through ``gated`` on the way to the
    product.
    """

    def gated(
        self, gate: Float[Array, "n h w *paths c"], sown: str = "gate"
    ) -> Float[Array, "n h w *paths c"]:
        """Sows a gate and returns what the channels are weighted by.

        That is the gate itself, unless ``nn.intercept_methods`` puts another one in its place, as
        ``analysis.probe`` does.

        Args:
            gate: The gate; an axis of one pixel where all pixels have the same.
            sown: Name of the intermediate; a module with several gates calls the second otherwise.
        """
        self.sow("intermediates", sown, gate)
        return gate


@dataclasses.dataclass(frozen=True)
class ConvAttention(abc.ABC):
    """Description of a mechanism that stands in place of a 3x3 convolution.

    It replaces the convolution together with its batch norm and its activation.
    """

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def replaces(self) -> bool:
        """Whether there is anything to put in the convolution's place."""
        return True

    @abc.abstractmethod
    def build_conv(
        self,
        features: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm_group: int | None = None,
        dtype: Any = None,
        name: str | None = None,
    ) -> nn.Module:
        """Returns a fresh module, called as ``module(x, train, drop_rate)``.

        ``drop_rate`` is the rate of DropBlock after the batch norm, None where there is none.

        Args:
            features: Output channels.
            stride: Stride in both directions.
            dilation: Dilation of the convolution that is replaced.
            groups: Groups of the convolution that is replaced.
            norm_group: Samples whose statistics the batch norms take together, None for all.
            dtype: Precision of the convolutions; the attention's is float32.
            name: Name of the submodule: that of the convolution that is replaced.
        """


Mechanism = Attention | ConvAttention
"""What the ``attention`` field of a backbone takes."""


def check_mechanism(attention: Any) -> None:
    """Refuses what is no description of an attention.

    Raises:
        UsageError: It is neither a description nor None.
    """
    if not isinstance(attention, Mechanism | None):
        raise UsageError(
            "attention must be a description such as SqueezeExciteConfig(), "
            f"not a {type(attention).__name__}."
        )


def rescale(
    attention: Mechanism | None,
    x: Float[Array, "n h w c"],
    train: bool,
    norm_group: int | None,
    dtype: Any,
) -> Float[Array, "n h w c"]:
    """Applies an attention that rescales, if there is one; called inside a compact method.

    The arguments are those of ``Attention.build``.
    """
    if not isinstance(attention, Attention):
        return x
    return attention.build(train=train, norm_group=norm_group, dtype=dtype)(x)
