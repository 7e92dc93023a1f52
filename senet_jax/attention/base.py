"""What a backbone knows of an attention mechanism."""

import abc
import dataclasses
from typing import Any, ClassVar

from flax import linen as nn


@dataclasses.dataclass(frozen=True)
class Attention(abc.ABC):
    """Description of a mechanism that maps (n, h, w, c) to (n, h, w, c).

    Backbones hold a description, never a module: a Linen module handed around would share its
    weights between all the blocks that call it.
    """

    name: ClassVar[str]
    """Name of the submodule in the parameters of a block ("se", ...)."""

    @abc.abstractmethod
    def build(self, *, dtype: Any = None) -> nn.Module:
        """Returns a fresh module, called as ``module(x)`` inside a compact method.

        Args:
            dtype: Precision of the tensor that is rescaled; what the mechanism computes to get
                the scale is float32.
        """
