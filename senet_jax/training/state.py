"""What training changes from step to step."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import NamedSharding
from jaxtyping import Array, Int, Key, PyTree


@flax.struct.dataclass
class TrainState:
    """All that a step reads and writes; with the config and the data it determines the rest."""

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
    drawn_at: NamedSharding | None = None,
) -> TrainState:
    """Draws the initial state; pure, so that ``jax.jit`` can lay it out over a mesh.

    Args:
        model: A module with the calling convention of the zoo.
        optimizer: The optimizer whose state is kept.
        key: Key of the initialisation.
        image_shape: Height, width and channels.
        ema: Whether averages of the variables are kept.
        drawn_at: Where the variables lie while they are drawn; on a mesh whole on every device,
            because what the generator ``rbg`` draws depends on how its output is divided.
    """
    variables = model.init(key, jnp.zeros((1, *image_shape), jnp.float32), train=False)
    if drawn_at is not None:
        variables = jax.lax.with_sharding_constraint(variables, drawn_at)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    average = {"params": params, "batch_stats": batch_stats}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        # A copy: the step donates the state, and a buffer can be donated once.
        ema=jax.tree.map(jnp.copy, average) if ema else None,
    )
