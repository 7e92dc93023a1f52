"""The state of training, which each step changes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Int, Key, PyTree

from senet_jax.errors import UsageError

MOST_PARAMETERS = 2**36
"""With a momentum they have 550 GB, more than any network of the zoo by a thousand times."""


@flax.struct.dataclass
class TrainState:
    """The arrays that a step reads and writes; with config and data they determine the rest."""

    step: Int[Array, ""]
    """Steps done, which is the position in the data."""
    params: PyTree[Array]
    batch_stats: PyTree[Array]
    opt_state: PyTree[Array]
    ema: PyTree[Array] | None
    """Averages of ``params`` and ``batch_stats``, if they are kept."""

    @property
    def eval_variables(self) -> dict[str, Any]:
        """The variables to evaluate: the averages if they are kept, else the newest."""
        return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def init_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    image_shape: tuple[int, int, int],
    ema: bool,
) -> TrainState:
    """Draws the initial state; pure, so that ``jax.eval_shape`` knows its shapes.

    Args:
        model: A module with the calling convention of the zoo.
        optimizer: The optimizer whose state is kept.
        key: Key of the initialisation.
        image_shape: Height, width and channels.
        ema: Keep averages of the variables.
    """
    return state_of(draw_variables(model, key, image_shape), optimizer, ema)


def draw_variables(
    model: nn.Module, key: Key[Array, ""], image_shape: tuple[int, ...], *others: Any
) -> dict[str, Any]:
    """Draws ``params`` and ``batch_stats``.

    Args:
        model: As in ``init_state``.
        key: Likewise.
        image_shape: Likewise.
        *others: Further inputs of the model, of one image.
    """
    images = jnp.zeros((1, *image_shape), jnp.float32)
    variables = model.init(key, images, *others, train=False)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    if count > MOST_PARAMETERS:
        raise UsageError(
            f"the network has {count:,} parameters, and at most {MOST_PARAMETERS:,} are trained "
            "here: choose smaller widths or fewer blocks."
        )
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def state_of(
    variables: dict[str, Any], optimizer: optax.GradientTransformation, ema: bool
) -> TrainState:
    """The state in which training starts with some variables; arguments as ``init_state``."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        **variables,
        opt_state=optimizer.init(variables["params"]),
        # A copy: the step donates the state, and a buffer can be donated once.
        ema=jax.tree.map(jnp.copy, variables) if ema else None,
    )
