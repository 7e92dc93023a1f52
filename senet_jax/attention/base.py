"""Descriptions of attention mechanisms, of two kinds, as backbones take them.

Backbones hold a description, never a module: a Linen module handed around would share its weights
between all the blocks that call it.
"""

import abc
import dataclasses
from typing import Any, ClassVar

from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.errors import UsageError
from senet_jax.ops.compute import Compute
from senet_jax.ranges import check_fields


@dataclasses.dataclass(frozen=True)
class Attention(abc.ABC):
    """Description of a mechanism that rescales: it maps (n, h, w, c) to (n, h, w, c)."""

    name: ClassVar[str]
    """Name of the submodule in the parameters of a block ("se", ...)."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def needs_only_mean(self) -> bool:
        """The gate depends on a tensor only by its mean over the pixels.

        The module then has a method ``excite`` from these means (n, c) to the gate (n, c), float32,
        and a batch norm before it can apply the gate (``norm_with_attention``).
        """
        return False

    @abc.abstractmethod
    def build(self, compute: Compute) -> nn.Module:
        """Returns a fresh module, called as ``module(x)`` inside a compact method.

        Args:
            compute: Mode and precision. The precision is that of the tensor that is rescaled; the
                scale itself is computed in float32.
        """


class Gated(nn.Module):
    """A module that weights channels by a gate, which can be looked at and replaced.

    Subclasses pass their gate, or the weights of their paths, through ``expose_gate`` on the way to
    the product.
    """

    def expose_gate(
        self, gate: Float[Array, "n h w *paths c"], sown: str = "gate"
    ) -> Float[Array, "n h w *paths c"]:
        """Sows a gate and returns what the channels are weighted by.

        That is the gate itself, unless ``nn.intercept_methods`` puts another one in its place, as
        ``analysis.gates`` does.

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
    def is_active(self) -> bool:
        """Tells whether there is anything to put in the convolution's place."""
        return True

    @abc.abstractmethod
    def build_conv(
        self,
        features: int,
        compute: Compute,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        name: str | None = None,
    ) -> nn.Module:
        """Returns a fresh module, called as ``module(x, drop_rate)``.

        ``drop_rate`` is the rate of DropBlock after the batch norm; if None, nothing is dropped.

        Args:
            features: Output channels.
            compute: Mode and precision; the latter is that of the convolutions, the attention's is
                float32.
            stride: Stride in both directions.
            dilation: Dilation of the convolution that is replaced.
            groups: Groups of the convolution that is replaced.
            name: Name of the submodule: that of the convolution that is replaced.
        """


Mechanism = Attention | ConvAttention
"""The types of the ``attention`` field of a backbone."""


def check_mechanism(attention: Any) -> None:
    """Checks that a value describes an attention, or is None.

    Raises:
        UsageError: It is neither a description nor None.
    """
    if not isinstance(attention, Mechanism | None):
        raise UsageError(
            "attention must be a description such as SqueezeExciteConfig(), "
            f"not a {type(attention).__name__}."
        )


def apply_attention(
    attention: Mechanism | None, x: Float[Array, "n h w c"], compute: Compute
) -> Float[Array, "n h w c"]:
    """Applies an attention that rescales; called inside a compact method.

    Args:
        attention: The attention; with None, or one that replaces convolutions, ``x`` stays.
        x: Feature maps.
        compute: As in ``Attention.build``.
    """
    return attention.build(compute)(x) if isinstance(attention, Attention) else x
