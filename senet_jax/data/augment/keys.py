"""The random keys of a training step."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Int, Key


class StepKeys(NamedTuple):
    """The random keys of a training step, one for each purpose."""

    augment: Key[Array, ""]
    """Crops, flips and Cutout on the device."""
    mix: Key[Array, ""]
    """The weights of mixup and CutMix."""
    dropout: Key[Array, ""]
    """Dropout, DropBlock, stochastic depth and Shake-Shake."""

    @classmethod
    def of(cls, key: Key[Array, ""], step: Int[Array, ""] | int) -> "StepKeys":
        """The keys of a step.

        Args:
            key: The key of the seed.
            step: The number of the step, from 0.
        """
        return cls.split(jax.random.fold_in(key, step))

    @classmethod
    def split(cls, key: Key[Array, ""]) -> "StepKeys":
        """The keys of a step from its own."""
        augment, dropout = jax.random.split(key)
        # The splits of a key are its folds 0 and 1: another number gives another key.
        return cls(augment, jax.random.fold_in(key, 2), dropout)
