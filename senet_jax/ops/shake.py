"""Random mixing of two residual branches: Shake-Shake regularisation (arXiv 1705.07485)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from senet_jax.fields.models import Backward, Forward


@jax.custom_vjp
def _mix(a: Array, b: Array, alpha: Array, beta: Array) -> Array:
    return alpha * a + (1 - alpha) * b


def _mix_forward(a: Array, b: Array, alpha: Array, beta: Array) -> tuple[Array, Array]:
    return _mix(a, b, alpha, beta), beta


def _mix_backward(beta: Array, cotangent: Array) -> tuple[Array, Array, None, None]:
    return beta * cotangent, (1 - beta) * cotangent, None, None


_mix.defvjp(_mix_forward, _mix_backward)


def shake(
    key: PRNGKeyArray,
    a: Float[Array, "n h w c"],
    b: Float[Array, "n h w c"],
    *,
    forward: Forward = "shake",
    backward: Backward = "shake",
) -> Float[Array, "n h w c"]:
    """Mixes two branches by one weight for each image, and their gradients by another.

    The value is ``alpha * a + (1 - alpha) * b``; the gradients of ``a`` and ``b`` are ``beta`` and
    ``1 - beta`` times that of the value (sections 1.2 and 1.3; by image, section 2.1).

    Args:
        key: Random key.
        a: First branch.
        b: Second branch.
        forward: The rule of alpha: "shake" draws it uniformly from 0 to 1, "even" is 1/2.
        backward: The rule of beta: as ``forward``, drawn independently; "keep" is alpha.
    """
    keys = jax.random.split(key)

    def weight(key: PRNGKeyArray, how: str) -> Array:
        shape = (a.shape[0], 1, 1, 1)
        return jax.random.uniform(key, shape) if how == "shake" else jnp.full(shape, 0.5)

    alpha = weight(keys[0], forward)
    beta = alpha if backward == "keep" else weight(keys[1], backward)
    return _mix(a, b, alpha.astype(a.dtype), beta.astype(a.dtype))


class Shake(nn.Module):
    """:func:`shake` in training, the mean in evaluation.

    Draws from the random key collection "dropout" unless both weights are 1/2.
    """

    forward: Forward
    backward: Backward

    @nn.compact
    def __call__(
        self, a: Float[Array, "n h w c"], b: Float[Array, "n h w c"], train: bool
    ) -> Float[Array, "n h w c"]:
        if not train or "shake" not in (self.forward, self.backward):
            return (a + b) / 2
        key = self.make_rng("dropout")
        return shake(key, a, b, forward=self.forward, backward=self.backward)
