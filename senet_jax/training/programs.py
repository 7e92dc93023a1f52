"""The compiled programs of a run, which runs that differ by the seed alone share."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, UInt32

from senet_jax.config import TrainConfig
from senet_jax.data.examples import Examples
from senet_jax.network import Network
from senet_jax.tasks.base import Task, other_inputs
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.state import TrainState, draw_variables, state_of
from senet_jax.training.step import EvalStep, TrainStep, key_data, make_eval_step, make_train_step

_INIT_GENERATOR = "rbg"
"""XLA:CPU compiles this generator two to three times faster than the default one."""


class Programs:
    """Initialisation, training and evaluation, each traced and compiled when it is first called.

    Args:
        config: The experiment; its seed plays no part.
        task: Its task.
        network: The network.
        optimizer: The optimizer.
        steps: Steps of the run.
        val: The validation split, or a group of it.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        network: Network,
        optimizer: optax.GradientTransformation,
        steps: int,
        val: Examples,
    ) -> None:
        self._config, self._task, self._network = config, task, network
        self._optimizer, self._steps = optimizer, steps
        self._image_shape = val.arrays["image"].shape
        self.other_inputs = other_inputs(task, val)
        self.abstract = self._abstract_state()

    def _draw(self, data: UInt32[Array, " words"]) -> dict[str, Any]:
        key = jax.random.wrap_key_data(data, impl=_INIT_GENERATOR)
        others = [jnp.zeros(each.shape, each.dtype) for each in self.other_inputs]
        return draw_variables(self._network.model, key, self._image_shape, *others)

    def _state_of(self, variables: dict[str, Any]) -> TrainState:
        return state_of(variables, self._optimizer, self._config.ema_decay is not None)

    def _abstract_state(self) -> TrainState:
        key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=_INIT_GENERATOR)))
        state = jax.eval_shape(lambda data: self._state_of(self._draw(data)), key)
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            state,
            meshes.state_shardings(state, self._network.mesh),
        )

    @property
    def state_shardings(self) -> TrainState:
        """The sharding of each leaf of the state."""
        return jax.tree.map(lambda x: x.sharding, self.abstract)

    def draw(self, seed: int) -> dict[str, Any]:
        """Draws ``params`` and ``batch_stats``."""
        variables: dict[str, Any] = self._draw_program(key_data(seed, _INIT_GENERATOR))
        return variables

    @functools.cached_property
    def _draw_program(self) -> jax.stages.Wrapped:
        # Whole on every device at first: what is drawn depends on how the program is divided.
        return jax.jit(self._draw, out_shardings=meshes.replicated(self._network.mesh))

    @functools.cached_property
    def start(self) -> jax.stages.Wrapped:
        """The state in which training starts with some variables, laid out over the mesh."""
        return jax.jit(self._state_of, out_shardings=self.state_shardings)

    @functools.cached_property
    def train(self) -> TrainStep:
        """The training step."""
        return make_train_step(
            self._task,
            self._network,
            self._optimizer,
            state_shardings=self.state_shardings,
            ema_decay=self._config.ema_decay,
            drop_block_steps=self._steps,
            parts=self._config.accumulate,
        )

    @functools.cached_property
    def evaluate(self) -> EvalStep:
        """The evaluation of a batch."""
        return make_eval_step(self._task, self._network)
