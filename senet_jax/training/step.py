"""One step of training and one of evaluation: pure functions, jitted over the mesh."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, UInt8, UInt32

from senet_jax.data.augment.device import change_batch
from senet_jax.data.config import AugmentConfig
from senet_jax.ops.conv_lowering import lowering
from senet_jax.ops.lowerings import Lowering
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


LogitsStep = Callable[[dict[str, Any], DeviceBatch], DeviceBatch]


def normalize(
    images: UInt8[Array, "n h w c"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    bgr: bool = False,
) -> Float[Array, "n h w c"]:
    """Maps pixels of 0 to 255 to zero mean and unit deviation by channel; ``bgr`` reverses them."""
    normalized = (images.astype(jnp.float32) / 255 - jnp.array(mean)) / jnp.array(std)
    return normalized[..., ::-1] if bgr else normalized


def step_key(seed: int, step: Int[Array, ""] | int) -> Key[Array, ""]:
    """The key of all that a training step draws."""
    return jax.random.fold_in(jax.random.key(seed), step)


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


@contextlib.contextmanager
def _traced(mesh: Mesh, conv_lowering: Lowering | None) -> Iterator[None]:
    """Tells the convolutions, while a step is traced, of the mesh and of their form."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), lowering(conv_lowering):
        yield


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    bgr: bool = False,
    state_shardings: TrainState | None = None,
    seed: int,
    augmentation: AugmentConfig,
    label_smoothing: float = 0.0,
    ema_decay: float | None = None,
    drop_block_steps: int | None = None,
    parts: int = 1,
    conv_lowering: Lowering | None = None,
) -> TrainStep:
    """Builds the jitted step; it donates the state that it is given.

    The loss is the mean cross-entropy over the whole batch, so that its gradient is the same on
    any number of devices, up to rounding; batch norm takes its statistics over the whole batch.

    Args:
        model: A module with the calling convention of the zoo.
        optimizer: The optimizer.
        mesh: The batch is split over it.
        mean: Mean of the channels, 0 to 1.
        std: Standard deviation of the channels, 0 to 1.
        bgr: The network takes blue first.
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
        conv_lowering: Form in which XLA is given the convolutions; None chooses for each.

    Returns:
        ``(state, batch) -> (state, metrics)``, the metrics being ``loss``, ``top1`` (the fraction
        right, 0 to 1; of mixed images that of the label with the larger share counts) and
        ``grad_norm``, of this batch before the update. If the batch has ``stop``, a number for
        each image, its largest is among them: so all hosts learn what one of them wants.
    """

    def scales(state: TrainState) -> dict[str, Any]:
        if drop_block_steps is None or not getattr(model, "drop_block", 0):
            return {}
        return {"drop_block_scale": state.step / drop_block_steps}

    everywhere = replicated(mesh)
    where = everywhere if state_shardings is None else state_shardings
    param_shardings = everywhere if state_shardings is None else state_shardings.params

    @_traced(mesh, conv_lowering)
    def step(
        state: TrainState, batch: DeviceBatch, data: UInt32[Array, " words"]
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(data), state.step)
        _, dropout_key = jax.random.split(key)
        images, share = change_batch(batch["image"], key, mean=mean, config=augmentation)
        examples = {"image": images, "label": batch["label"]}
        if share is not None:
            examples["mixed_label"] = jnp.roll(batch["label"], 1)
        # Without this XLA would divide the convolutions as their kernels are divided.
        whole = jax.lax.with_sharding_constraint(state.params, everywhere)

        def gradients(batch_stats: Any, part: DeviceBatch, key: Key[Array, ""]) -> tuple[Any, Any]:
            def loss_fn(params: Any) -> tuple[Array, tuple[Array, Any]]:
                logits, updated = model.apply(
                    {"params": params, "batch_stats": batch_stats},
                    normalize(part["image"], mean, std, bgr),
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
            gradients, state.batch_stats, examples, dropout_key, parts=parts, mesh=mesh
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

    program = jax.jit(
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


def make_eval_step(
    model: nn.Module,
    mesh: Mesh,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    bgr: bool = False,
    conv_lowering: Lowering | None = None,
) -> EvalStep:
    """Builds the jitted evaluation of one batch.

    Args:
        model: A module with the calling convention of the zoo.
        mesh: The batch is split over it.
        mean: Mean of the channels, 0 to 1.
        std: Standard deviation of the channels, 0 to 1.
        bgr: The network takes blue first.
        conv_lowering: Form in which XLA is given the convolutions; None chooses for each.

    Returns:
        ``(variables, batch) -> sums`` over the images of weight 1: ``loss`` (cross-entropy without
        smoothing), ``top1`` (number right), ``top5`` (number with the right class among the first
        five; only where there are more classes than that) and ``count``. Of classes with equal
        logits the first comes first; logits that are not numbers are wrong.
    """
    everywhere = replicated(mesh)

    @_traced(mesh, conv_lowering)
    def step(variables: dict[str, Any], batch: DeviceBatch) -> Metrics:
        images = normalize(batch["image"], mean, std, bgr)
        whole = jax.lax.with_sharding_constraint(variables, everywhere)
        logits: Any = model.apply(whole, images, train=False)
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
    return jax.jit(step, in_shardings=(None, over_batch(mesh)), out_shardings=everywhere)


def _rank(logits: Float[Array, "n classes"], labels: Int[Array, " n"]) -> Int[Array, " n"]:
    """How many classes come before the right one; all of them where a logit is not a number."""
    right = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    classes = logits.shape[-1]
    before = (logits > right) | ((logits == right) & (jnp.arange(classes) < labels[:, None]))
    broken = jnp.isnan(logits).any(axis=-1)
    return jnp.where(broken, classes, jnp.sum(before, axis=-1))


def make_logits_step(
    model: nn.Module,
    mesh: Mesh,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    bgr: bool = False,
    conv_lowering: Lowering | None = None,
) -> LogitsStep:
    """Builds the jitted forward pass of some views of the images of a batch.

    Args:
        model: A module with the calling convention of the zoo.
        mesh: The batch is split over it.
        mean: Mean of the channels, 0 to 1.
        std: Standard deviation of the channels, 0 to 1.
        bgr: The network takes blue first.
        conv_lowering: Form in which XLA is given the convolutions; None chooses for each.

    Returns:
        ``(variables, batch) -> batch``: in place of ``image`` (n, views, h, w, c) it has ``logits``
        (n, views, classes), float32; the rest is passed on. Every device, so every host, has all.
    """

    @_traced(mesh, conv_lowering)
    def step(variables: dict[str, Any], batch: DeviceBatch) -> DeviceBatch:
        images = batch["image"]
        merged = images.reshape(-1, *images.shape[2:])
        logits: Any = model.apply(variables, normalize(merged, mean, std, bgr), train=False)
        logits = logits.reshape(*images.shape[:2], -1).astype(jnp.float32)
        return {**{name: x for name, x in batch.items() if name != "image"}, "logits": logits}

    return jax.jit(
        step, in_shardings=(replicated(mesh), over_batch(mesh)), out_shardings=replicated(mesh)
    )
