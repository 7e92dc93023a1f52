"""One step of training and one of evaluation: pure functions, jitted over the mesh."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, UInt32

from senet_jax.data.augment.keys import StepKeys
from senet_jax.models.resnet import ResNet
from senet_jax.models.zoo import Composed
from senet_jax.network import Network
from senet_jax.tasks.base import Arrays, Measured, Task
from senet_jax.training.distributed.mesh import over_batch, replicated
from senet_jax.training.micro_batches import accumulate
from senet_jax.training.state import TrainState

Metrics = dict[str, Float[Array, ""]]


class EvalStep(Protocol):
    """The jitted evaluation of a batch, from ``make_eval_step``."""

    def __call__(self, variables: dict[str, Any], batch: Arrays) -> Measured: ...

    def trace(self, variables: Any, batch: Any) -> jax.stages.Traced:
        """Traces without compiling; shapes are enough."""


class TrainStep(Protocol):
    """The jitted training step, from ``make_train_step``."""

    def __call__(
        self, state: TrainState, batch: Arrays, key: UInt32[np.ndarray, " words"]
    ) -> tuple[TrainState, Metrics]: ...

    def trace(self, state: Any, batch: Any, key: UInt32[np.ndarray, " words"]) -> jax.stages.Traced:
        """Traces without compiling; shapes are enough."""

    def lower(
        self, state: Any, batch: Any, key: UInt32[np.ndarray, " words"]
    ) -> jax.stages.Lowered:
        """As the method of what ``jax.jit`` returns."""


def network_keys(task: Task, key: Key[Array, ""]) -> dict[str, Key[Array, ""]]:
    """The keys that a network draws from, by name: the first is ``key``, the others its folds."""
    return {
        name: jax.random.fold_in(key, place) if place else key
        for place, name in enumerate(task.rngs)
    }


def key_data(seed: int, impl: str | None = None) -> UInt32[np.ndarray, " words"]:
    """The key of a seed as NumPy data, which a program on any mesh and hosts takes."""
    return np.asarray(jax.random.key_data(jax.random.key(seed, impl=impl)))


def make_train_step(
    task: Task,
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    state_shardings: TrainState | None = None,
    ema_decay: float | None = None,
    drop_block_steps: int | None = None,
    parts: int = 1,
) -> TrainStep:
    """Builds the jitted step; it donates the state that it is given.

    The loss is taken over the whole batch, so that its gradient is the same on any number of
    devices, up to rounding; batch norm takes its statistics over the whole batch.

    Args:
        task: Augments the batch and says the loss.
        network: The network; the batch is sharded over its mesh.
        optimizer: The optimizer.
        state_shardings: Shardings of the leaves of the state (``mesh.state_shardings``); None means
            whole on every device. The step gathers the parameters and divides their gradients.
        ema_decay: Decay of the averages. It is (1 + step) / (10 + step) as long as that is less,
            so that the start is forgotten.
        drop_block_steps: Steps over which a network with DropBlock raises its rate from 0, as
            ResNeSt does over the run (arXiv 2004.08955, section 4.2); None means the full rate.
        parts: Parts of a batch whose gradients are accumulated; batch norm takes its statistics
            over a part (see ``micro_batches.accumulate``).

    Returns:
        ``(state, batch, key_data(seed)) -> (state, metrics)``. The seed and the step alone
        determine what augmentation and dropout draw. The metrics are ``loss``, those of
        ``task.loss`` and ``grad_norm``, of this batch before the update. If the batch has ``stop``,
        a number for each image, its largest is among them: so all hosts learn what one of them
        wants.
    """

    def scales(state: TrainState) -> dict[str, Any]:
        model = network.model
        model = model.backbone if isinstance(model, Composed) else model
        if drop_block_steps is not None and isinstance(model, ResNet) and model.drop_block:
            return {"drop_block_scale": jnp.asarray(state.step, float) / drop_block_steps}
        return {}

    mesh = network.mesh
    everywhere = replicated(mesh)
    where = everywhere if state_shardings is None else state_shardings
    param_shardings = everywhere if state_shardings is None else state_shardings.params

    def step(
        state: TrainState, batch: Arrays, data: UInt32[Array, " words"]
    ) -> tuple[TrainState, Metrics]:
        keys = StepKeys.of(jax.random.wrap_key_data(data), state.step)
        stop = batch.get("stop")
        rest = {name: values for name, values in batch.items() if name != "stop"}
        examples, shared = task.prepare(rest, keys, network.normalization)
        normalizer = task.normalizer(examples) / parts
        # Without this XLA would divide the convolutions as their kernels are divided.
        whole = jax.lax.with_sharding_constraint(state.params, everywhere)

        def gradients(batch_stats: Any, part: Arrays, key: Key[Array, ""]) -> tuple[Any, Any]:
            def loss_fn(params: Any) -> tuple[Array, tuple[Metrics, Any]]:
                outputs, updated = network.apply(
                    {"params": params, "batch_stats": batch_stats},
                    *task.inputs(part, train=True),
                    train=True,
                    mutable=["batch_stats"],
                    rngs=network_keys(task, key),
                    **scales(state),
                )
                loss, metrics = task.loss(outputs, part, shared, normalizer)
                return loss, (metrics, updated.get("batch_stats", {}))

            (loss, (metrics, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(whole)
            grads = jax.lax.with_sharding_constraint(grads, param_shardings)
            return ({"loss": loss, **metrics}, grads), batch_stats

        (metrics, grads), batch_stats = accumulate(
            gradients, state.batch_stats, examples, keys.dropout, parts=parts, mesh=mesh
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            assert ema_decay is not None
            # Weakly typed: double where jax has float64, and averages of float32 stay float32.
            count = 1.0 * state.step
            keep = jnp.minimum(ema_decay, (1 + count) / (10 + count))
            new = {"params": params, "batch_stats": batch_stats}
            ema = optax.incremental_update(new, ema, 1 - keep)
        metrics = {**metrics, "grad_norm": optax.tree.norm(grads)}
        if stop is not None:
            metrics["stop"] = jnp.max(stop)
        return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics

    compiled: TrainStep = network.jit(
        step,
        in_shardings=(where, over_batch(mesh), everywhere),
        out_shardings=(where, everywhere),
        donate_argnums=0,
    )
    return compiled


def make_eval_step(task: Task, network: Network) -> EvalStep:
    """Builds the jitted evaluation of one batch.

    Args:
        task: Says what is measured.
        network: The network; the batch is sharded over its mesh.

    Returns:
        ``(variables, batch) -> measured`` as ``Task.measure``; the sums have ``count`` too, the
        number of the images of weight 1.
    """
    everywhere, divided = replicated(network.mesh), over_batch(network.mesh)

    def step(variables: dict[str, Any], batch: Arrays) -> Measured:
        whole = jax.lax.with_sharding_constraint(variables, everywhere)
        measured = task.measure(network.apply(whole, *task.inputs(batch, train=False)), batch)
        return Measured({**measured.sums, "count": jnp.sum(batch["weight"])}, measured.rows)

    # The variables lie where they lie: whole, or divided as in training.
    where = Measured(everywhere, divided)
    return network.jit(step, in_shardings=(None, divided), out_shardings=where)
