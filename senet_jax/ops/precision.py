"""The precision of what must be accurate: statistics, squeezes, gates and logits."""

from typing import Any

import jax.numpy as jnp


def accurate(dtype: Any) -> Any:
    """float32 for inputs of at most that; float64 for float64, which checks are made in."""
    return jnp.promote_types(dtype, jnp.float32)
