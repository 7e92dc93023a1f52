"""The losses of detectors: sums over the anchors, proposals and pixels that count."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Part(NamedTuple):
    """A loss of a batch: a sum, and the number that it is divided by."""

    total: Float[Array, ""]
    number: Float[Array, ""]

    @property
    def mean(self) -> Float[Array, ""]:
        """The loss; 0 of a batch without anything that counts."""
        return self.total / jnp.maximum(self.number, 1)


def smooth_l1(difference: Float[Array, "*dims"], beta: float) -> Float[Array, "*dims"]:
    """Half the square over ``beta`` up to ``beta``, and the distance less half of it above.

    Args:
        difference: Predictions less targets.
        beta: The distance at which the two meet. If 0, all are distances.
    """
    distance = jnp.abs(difference)
    if beta == 0:
        return distance
    return jnp.where(distance < beta, 0.5 * distance**2 / beta, distance - 0.5 * beta)


def binary_cross_entropy(
    logits: Float[Array, "*dims"], targets: Float[Array, "*dims"]
) -> Float[Array, "*dims"]:
    """Cross-entropies of probabilities with the sigmoids of logits."""
    return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


def cross_entropy(
    logits: Float[Array, "*dims c"], classes: Int[Array, "*dims"]
) -> Float[Array, "*dims"]:
    """Cross-entropies of classes with the softmax of logits."""
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), classes[..., None], -1)
    return -picked[..., 0]


def total(losses: Float[Array, "*dims"], counts: Bool[Array, "*dims"]) -> Float[Array, ""]:
    """The sum of the losses that count; others may be anything."""
    return jnp.sum(jnp.where(counts, losses, 0))


def number(counts: Bool[Array, "*dims"]) -> Float[Array, ""]:
    """The number of those that count."""
    return jnp.sum(counts, dtype=jnp.float32)
