"""Squeeze operators: one number for each channel, (n, h, w, c) -> (n, c), in float32.

A new operator is a function and a row in :data:`SQUEEZES`.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from senet_jax.ops.precision import accurate


def squeeze_avg(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Mean over the pixels (SENet, arXiv 1709.01507, eq. 2)."""
    return jnp.mean(x, axis=(1, 2), dtype=accurate(x.dtype))


def squeeze_max(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Maximum over the pixels (SENet, Table 11)."""
    return jnp.max(x, axis=(1, 2)).astype(accurate(x.dtype))


def squeeze_avgmax(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Half the sum of mean and maximum, so that its range is that of its parts.

    Example:
        >>> x = jnp.array([0.0, 1.0, 2.0, 5.0]).reshape(1, 2, 2, 1)  # mean 2, maximum 5
        >>> squeeze_avgmax(x)
        Array([[3.5]], dtype=float32)
    """
    return 0.5 * (squeeze_avg(x) + squeeze_max(x))


def squeeze_std(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Standard deviation over the pixels (the style pooling of SRM, arXiv 1903.10829, eq. 2).

    1e-5 is added to the variance, which keeps the gradient finite where a channel is constant.
    """
    return jnp.sqrt(jnp.var(x.astype(accurate(x.dtype)), axis=(1, 2)) + 1e-5)


SQUEEZES: dict[str, Callable[[Float[Array, "n h w c"]], Float[Array, "n c"]]] = {
    "avg": squeeze_avg,
    "max": squeeze_max,
    "avgmax": squeeze_avgmax,
    "std": squeeze_std,
}
