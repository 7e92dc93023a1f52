"""Residual blocks by themselves."""

from senet_jax.fields.models import ResNetFields
from senet_jax.models.blocks import ResidualBlock, Sampling, Shortcut
from senet_jax.ops.compute import EVALUATION, Compute

PLAIN = Sampling()


def block(
    kind: type[ResidualBlock],
    width: int,
    sampling: Sampling = PLAIN,
    *,
    compute: Compute = EVALUATION,
    attention=None,
    **fields,
) -> ResidualBlock:
    """A block of a network of these fields."""
    return kind(ResNetFields(blocks=(1,), **fields), attention, compute, width, sampling)


def shortcut(option: str, features: int, sampling: Sampling = PLAIN) -> Shortcut:
    """A shortcut in evaluation."""
    return Shortcut(ResNetFields(blocks=(1,), shortcut=option), EVALUATION, features, sampling)
