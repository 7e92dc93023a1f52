"""One step of training and one of evaluation: pure functions, jitted over the mesh."""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, UInt32

from senet_jax.data.augment.device import change_batch
from senet_jax.data.augment.keys import StepKeys
from senet_jax.data.config import AugmentConfig
from senet_jax.network import Network
from senet_jax.training.distributed.mesh import over_batch, replicated
from senet_jax.training.micro_batches import accumulate
from senet_jax.training.state import TrainState

Metrics = dict[str, Float[Array, ""]]
TOP = 5
"""Besides the first class, so many of the first are looked through for the right one."""
DeviceBatch = dict[str, Array]


class EvalStep(Protocol):
    """The jitted evaluation of a batch, from ``make_eval_step``."""

    def __call__(self, variables: dict[str, Any], batch: DeviceBatch) -> Metrics: ...

    def trace(self, variables: Any, batch: DeviceBatch) -> Any:
        """Traces without compiling; shapes are enough."""


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """A training step and the seed by which it draws.

    The seed is an argument of the compiled program, so that runs that differ by it share one.
    """

    program: Any
    """Jitted, ``(state, batch, key data) -> (state, metrics)``."""
    seed: int
    """Seed of augmentation and dropout."""

    def __call__(self, state: TrainState, batch: DeviceBatch) -> tuple[TrainState, Metrics]:
        """Returns the state after the step, and the metrics; the state given is donated."""
        updated: tuple[TrainState, Metrics] = self.program(state, batch, key_data(self.seed))
        return updated

    def trace(self, state: TrainState, batch: DeviceBatch) -> Any:
        """As the method of what ``jax.jit`` returns; shapes are enough."""
        return self.program.trace(state, batch, key_data(self.seed))

    def lower(self, state: TrainState, batch: DeviceBatch) -> Any:
        """As the method of what ``jax.jit`` returns."""
        return self.program.lower(state, batch, key_data(self.seed))


def key_data(seed: int, impl: str | None = None) -> UInt32[np.ndarray, " words"]:
    """The key of a seed as NumPy data, which a program on any mesh and hosts takes."""
    return np.asarray(jax.random.key_data(jax.random.key(seed, impl=impl)))


def make_train_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    state_shardings: TrainState | None = None,
    seed: int,
    augmentation: AugmentConfig,
    label_smoothing: float = 0.0,
    ema_decay: float | None = None,
    drop_block_steps: int | None = None,
    parts: int = 1,
) -> TrainStep:
    """Builds the jitted step; it donates the state that it is given.

    The loss is the mean cross-entropy over the whole batch, so that its gradient is the same on
    any number of devices, up to rounding; batch norm takes its statistics over the whole batch.

    Args:
        network: The network; the batch is sharded over its mesh.
        optimizer: The optimizer.
        state_shardings: Where the leaves of the state lie (``mesh.state_shardings``); None means
            whole on every device. The step gathers the parameters and divides their gradients.
        seed: Seed of augmentation and dropout; step and seed alone determine what is drawn.
        augmentation: How the images are changed.
        label_smoothing: Share of the target that is spread over all classes (Inception-v3, arXiv
            1512.00567, section 7).
        ema_decay: Decay of the averages. It is (1 + step) / (10 + step) as long as that is less,
            so that the start is forgotten.
        drop_block_steps: Steps over which a network with DropBlock raises its rate from 0, as
            ResNeSt does over the run (arXiv 2004.08955, section 4.2); None means the full rate.
        parts: Parts of a batch whose gradients are accumulated; batch norm takes its statistics
            over a part (see ``micro_batches.accumulate``).

    Returns:
        ``(state, batch) -> (state, metrics)``, the metrics being ``loss``, ``top1`` (the fraction
        right, 0 to 1; of mixed images that of the label with the larger share counts) and
        ``grad_norm``, of this batch before the update. If the batch has ``stop``, a number for
        each image, its largest is among them: so all hosts learn what one of them wants.
    """

    def scales(state: TrainState) -> dict[str, Any]:
        if drop_block_steps is None or not getattr(network.model, "drop_block", 0):
            return {}
        return {"drop_block_scale": state.step / drop_block_steps}

    mesh = network.mesh
    everywhere = replicated(mesh)
    where = everywhere if state_shardings is None else state_shardings
    param_shardings = everywhere if state_shardings is None else state_shardings.params

    def step(
        state: TrainState, batch: DeviceBatch, data: UInt32[Array, " words"]
    ) -> tuple[TrainState, Metrics]:
        keys = StepKeys.of(jax.random.wrap_key_data(data), state.step)
        mean = network.normalization.mean
        images, share = change_batch(batch["image"], keys, mean=mean, config=augmentation)
        examples = {"image": images, "label": batch["label"]}
        if share is not None:
            examples["mixed_label"] = jnp.roll(batch["label"], 1)
        # Without this XLA would divide the convolutions as their kernels are divided.
        whole = jax.lax.with_sharding_constraint(state.params, everywhere)

        def gradients(batch_stats: Any, part: DeviceBatch, key: Key[Array, ""]) -> tuple[Any, Any]:
            def loss_fn(params: Any) -> tuple[Array, tuple[Array, Any]]:
                logits, updated = network.apply(
                    {"params": params, "batch_stats": batch_stats},
                    part["image"],
                    train=True,
                    mutable=["batch_stats"],
                    rngs={"dropout": key},
                    **scales(state),
                )
                right = jnp.argmax(logits, axis=-1) == _counted(part, share)
                targets = _targets(part, share, logits.shape[-1], label_smoothing)
                loss = optax.softmax_cross_entropy(logits, targets).mean()
                return loss, (jnp.mean(right), updated.get("batch_stats", {}))

            (loss, (top1, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(whole)
            grads = jax.lax.with_sharding_constraint(grads, param_shardings)
            return ({"loss": loss, "top1": top1}, grads), batch_stats

        (metrics, grads), batch_stats = accumulate(
            gradients, state.batch_stats, examples, keys.dropout, parts=parts, mesh=mesh
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            assert ema_decay is not None
            count = state.step.astype(jnp.float32)
            keep = jnp.minimum(ema_decay, (1 + count) / (10 + count))
            new = {"params": params, "batch_stats": batch_stats}
            ema = optax.incremental_update(new, ema, 1 - keep)
        metrics = {**metrics, "grad_norm": optax.tree.norm(grads)}
        if "stop" in batch:
            metrics["stop"] = jnp.max(batch["stop"])
        return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics

    program = network.jit(
        step,
        in_shardings=(where, over_batch(mesh), everywhere),
        out_shardings=(where, everywhere),
        donate_argnums=0,
    )
    return TrainStep(program, seed)


def _targets(
    part: DeviceBatch, share: Float[Array, ""] | None, classes: int, label_smoothing: float
) -> Float[Array, "n classes"]:
    """The distributions that the logits should have; smoothed before they are mixed."""

    def smooth(labels: Int[Array, " n"]) -> Float[Array, "n classes"]:
        return optax.smooth_labels(jax.nn.one_hot(labels, classes), label_smoothing)

    targets = smooth(part["label"])
    if share is None:
        return targets
    return share * targets + (1 - share) * smooth(part["mixed_label"])


def _counted(part: DeviceBatch, share: Float[Array, ""] | None) -> Int[Array, " n"]:
    """The labels that count as right: of mixed images the one with the larger share."""
    if share is None:
        return part["label"]
    return jnp.where(share >= 0.5, part["label"], part["mixed_label"])


def make_eval_step(network: Network) -> EvalStep:
    """Builds the jitted evaluation of one batch.

    Args:
        network: The network; the batch is sharded over its mesh.

    Returns:
        ``(variables, batch) -> sums`` over the images of weight 1: ``loss`` (cross-entropy without
        smoothing), ``top1`` (number right), ``top5`` (number with the right class among the first
        five; only where there are more classes than that) and ``count``. Of classes with equal
        logits the first comes first; logits that are not numbers are wrong.
    """
    everywhere = replicated(network.mesh)

    def step(variables: dict[str, Any], batch: DeviceBatch) -> Metrics:
        whole = jax.lax.with_sharding_constraint(variables, everywhere)
        logits: Any = network.apply(whole, batch["image"])
        labels, weight = batch["label"], batch["weight"]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        rank = _rank(logits, labels)
        sums = {
            # Where the weight is 0 the loss may be anything, even not a number.
            "loss": jnp.sum(jnp.where(weight > 0, loss, 0)),
            "top1": jnp.sum((rank < 1) * weight),
            "count": jnp.sum(weight),
        }
        if logits.shape[-1] > TOP:
            sums["top5"] = jnp.sum((rank < TOP) * weight)
        return sums

    # The variables lie where they lie: whole, or divided as in training.
    shardings = (None, over_batch(network.mesh))
    return network.jit(step, in_shardings=shardings, out_shardings=everywhere)


def _rank(logits: Float[Array, "n classes"], labels: Int[Array, " n"]) -> Int[Array, " n"]:
    """How many classes come before the right one; all of them where a logit is not a number."""
    right = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    classes = logits.shape[-1]
    before = (logits > right) | ((logits == right) & (jnp.arange(classes) < labels[:, None]))
    broken = jnp.isnan(logits).any(axis=-1)
    return jnp.where(broken, classes, jnp.sum(before, axis=-1))
