"""The precision of what must be accurate: statistics, squeezes, gates and logits."""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def accurate(dtype: DTypeLike) -> np.dtype:
    """float32 for inputs of at most that; float64 for float64, which checks are made in."""
    return jnp.promote_types(dtype, jnp.float32)
