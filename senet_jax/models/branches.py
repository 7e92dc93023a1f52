"""Branches of convolutions as data, and what applies them: the modules of the Inception networks.

A path is a tuple of steps, one after the other: a convolution, a pool, or a fork into several paths
whose outputs are concatenated.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.ops.compute import Compute
from senet_jax.ops.pooling import avg_pool, max_pool, pooled_side


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with its batch norm and ReLU."""

    name: str
    features: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padded: bool = True
    """Pad by half the kernel on every side, or not at all."""

    def side(self, side: int) -> int | None:
        window = self.kernel if isinstance(self.kernel, int) else max(self.kernel)
        after = (side - (1 if self.padded else window)) // self.stride + 1
        return after if after > 0 else None


@dataclasses.dataclass(frozen=True)
class Pool:
    """A pool over 3x3 windows, padded by a pixel on every side where its stride is 1."""

    kind: Literal["max", "avg"]
    stride: int = 1
    ceil_mode: bool = False
    count_pad: bool = True
    """The padding counts in the mean."""

    @property
    def pad(self) -> int:
        return 1 if self.stride == 1 else 0

    def side(self, side: int) -> int | None:
        after = pooled_side(side, 3, self.stride, self.pad, self.ceil_mode)
        return after if after > 0 else None

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
        if self.kind == "max":
            return max_pool(x, 3, self.stride, pad=self.pad, ceil_mode=self.ceil_mode)
        return avg_pool(
            x, 3, self.stride, pad=self.pad, ceil_mode=self.ceil_mode, count_pad=self.count_pad
        )


@dataclasses.dataclass(frozen=True)
class Fork:
    """Paths from one map, whose outputs are concatenated."""

    paths: "tuple[Path, ...]"

    @property
    def stride(self) -> int:
        return math.prod(step.stride for step in self.paths[0])

    def side(self, side: int) -> int | None:
        sides = {side_after(path, side) for path in self.paths}
        return sides.pop() if len(sides) == 1 else None


Step = Conv | Pool | Fork
Path = tuple[Step, ...]


def chain(name: str, *steps: Pool | Sequence[Any]) -> Path:
    """A path whose steps are named by their number, from 1, if there is more than one.

    Args:
        name: Name of the path.
        *steps: Pools, and of convolutions the fields after the name.
    """
    return tuple(
        step
        if isinstance(step, Pool)
        else Conv(f"{name}_{index}" if len(steps) > 1 else name, *step)
        for index, step in enumerate(steps, 1)
    )


def side_after(path: Path, side: int) -> int | None:
    """The side of the map that a path makes of one of ``side`` pixels.

    None if the map is too small for it, or if the paths of a fork would differ in size.
    """
    after: int | None = side
    for step in path:
        after = after and step.side(after)
    return after


@dataclasses.dataclass(frozen=True)
class UnitConfig:
    """The common fields of all convolutions of a network."""

    compute: Compute
    use_bias: bool = False
    """The convolutions have biases before their batch norm."""
    epsilon: float = 1e-5
    """Added to the variance by the batch norms after the convolutions."""


class ConvUnit(nn.Module):
    """A convolution, batch norm and ReLU."""

    conv: Conv
    config: UnitConfig

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        spec, compute = self.conv, self.config.compute
        x = compute.conv(
            spec.features,
            spec.kernel,
            stride=spec.stride,
            pad=None if spec.padded else 0,
            use_bias=self.config.use_bias,
            name="conv",
        )(x)
        return compute.norm("bn", epsilon=self.config.epsilon)(x, relu=True)


def follow(
    path: Path, x: Float[Array, "n h w c"], config: UnitConfig
) -> Float[Array, "n h2 w2 c2"]:
    """Applies a path; called inside a module, of which its convolutions become submodules."""
    for step in path:
        if isinstance(step, Conv):
            x = ConvUnit(step, config, name=step.name)(x)
        elif isinstance(step, Pool):
            x = step(x)
        else:
            x = jnp.concatenate([follow(branch, x, config) for branch in step.paths], -1)
    return x
