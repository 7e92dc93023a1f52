"""Optimizers and schedules, from optax."""

import dataclasses
import fnmatch
import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jaxtyping import Array, Float, PyTree
from optax.contrib import ReduceLROnPlateauState as PlateauState

from senet_jax.config import OptimizerConfig
from senet_jax.errors import UsageError
from senet_jax.ranges import MOST_STEPS
from senet_jax.tasks.base import is_kernel


def scaled_to(config: OptimizerConfig, batch_size: int) -> OptimizerConfig:
    """The config with the learning rate for a batch of another size, in proportion."""
    if config.base_batch is None:
        return config
    rate = config.learning_rate * (batch_size / config.base_batch)
    return dataclasses.replace(config, learning_rate=rate, base_batch=batch_size)


def make_schedule(config: OptimizerConfig, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Learning rate by step: a linear warm-up, then a way to zero, steps, or the peak.

    What the plateau schedule takes off is not in it but in the optimizer's state: see
    ``plateau_scale``.

    Args:
        config: Peak, form and milestones.
        steps_per_epoch: Steps of an epoch.
        epochs: Epochs of the run.

    Example:
        >>> config = OptimizerConfig(learning_rate=0.1, schedule="polynomial", power=1)
        >>> rate = make_schedule(config, steps_per_epoch=10, epochs=4)
        >>> [round(float(rate(step)), 3) for step in (0, 10, 40)]
        [0.1, 0.075, 0.0]
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    peak, total = config.learning_rate, epochs * steps_per_epoch
    after: optax.Schedule
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(total - warmup, 1))
    elif config.schedule == "step":
        # The milestones count from the start of the run, this schedule from the warm-up's end.
        boundaries = {
            round(epoch * steps_per_epoch) - warmup: config.decay for epoch in config.milestones
        }
        after = optax.piecewise_constant_schedule(peak, boundaries)
    elif config.schedule == "polynomial":
        after = optax.polynomial_schedule(peak, 0.0, config.power, max(total - warmup, 1))
    else:
        after = optax.constant_schedule(peak)
    if warmup:
        rise = optax.linear_schedule(0.0, peak, warmup)
        after = optax.join_schedules([rise, after], [warmup])
    # A quotient of int32, the optimizer's count of steps, is float32 even where jax has float64.
    return lambda step: after(jnp.asarray(step, int))


def check_schedule(config: OptimizerConfig, steps_per_epoch: int, epochs: int) -> None:
    """Checks a schedule in steps: epochs that are apart can fall on one step.

    Args:
        config: The schedule.
        steps_per_epoch: Steps of an epoch.
        epochs: Epochs of the run.

    Raises:
        UsageError: More steps than int32 counts, no step after the warm-up, or a milestone that
            does not change the rate of any step.
    """
    total, warmup = epochs * steps_per_epoch, round(config.warmup_epochs * steps_per_epoch)
    if total > MOST_STEPS:
        raise UsageError(
            f"{epochs:,} epochs of {steps_per_epoch:,} steps are {total:,} steps, and at most "
            f"{MOST_STEPS:,} can be counted: lower --epochs."
        )
    if warmup >= total:
        raise UsageError(
            f"optimizer.warmup_epochs {config.warmup_epochs:g} are all of the {total:,} steps of "
            "the run: the rate would never reach its peak."
        )
    steps = [round(epoch * steps_per_epoch) for epoch in config.milestones]
    if any(late <= early for early, late in itertools.pairwise((warmup, *steps, total))):
        raise UsageError(
            f"optimizer.milestones must be steps apart, after the warm-up ({warmup:,} steps) and "
            f"before the end ({total:,}), not {tuple(config.milestones)}, which are the steps "
            f"{steps}."
        )


def matching(params: PyTree[jax.Array], patterns: Sequence[str]) -> PyTree[bool]:
    """Marks the parameters whose path one of the shell patterns matches.

    Raises:
        UsageError: A pattern that matches none.
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    for pattern in patterns:
        if not fnmatch.filter(flat, pattern):
            raise UsageError(
                f"no parameter matches {pattern!r}: paths are like {', '.join(list(flat)[:3])}."
            )
    found = {path: any(fnmatch.fnmatchcase(path, p) for p in patterns) for path in flat}
    return traverse_util.unflatten_dict(found, sep="/")


def make_optimizer(
    config: OptimizerConfig,
    schedule: optax.Schedule,
    *,
    frozen: Sequence[str] = (),
    body_rate: float = 1.0,
    head: Sequence[str] = ("head/*",),
    decays: Callable[[tuple[str, ...]], bool] = is_kernel,
) -> optax.GradientTransformation:
    """Builds the optimizer: clipping, weight decay, the update.

    Args:
        config: Kind and constants.
        schedule: Learning rate by step.
        frozen: Shell patterns of the paths of parameters that do not change.
        body_rate: Learning rate of all but the head, as a fraction.
        head: Shell patterns of the paths of the head's parameters.
        decays: Says of the path of a parameter if weight decay applies to it; with
            ``config.decay_all`` it applies to every parameter.
    """

    def decayed(params: PyTree[jax.Array]) -> PyTree[bool]:
        return traverse_util.path_aware_map(
            lambda path, _: config.decay_all or decays(tuple(map(str, path))), params
        )

    update = _update(config, schedule, decayed)
    if body_rate != 1:
        update = optax.chain(
            update,
            optax.partition(
                {True: optax.identity(), False: optax.scale(body_rate)},
                lambda params: matching(params, head),
            ),
        )
    if frozen:
        # Around all the rest, so that frozen gradients do not count where the norm is clipped.
        update = optax.partition(
            {True: optax.set_to_zero(), False: update},
            lambda params: matching(params, frozen),
        )
    if config.schedule == "plateau":
        update = optax.chain(update, _scale_by_plateau())
    return update


Decayed = Callable[[PyTree[jax.Array]], PyTree[bool]]
"""Marks the parameters that weight decay applies to."""


def _update(
    config: OptimizerConfig, schedule: optax.Schedule, decayed: Decayed
) -> optax.GradientTransformation:
    clipped = config.clip_norm is not None
    clip = optax.clip_by_global_norm(config.clip_norm) if clipped else optax.identity()
    return optax.chain(clip, *OPTIMIZERS[config.name](config, schedule, decayed))


def _sgd(
    config: OptimizerConfig, schedule: optax.Schedule, decayed: Decayed
) -> tuple[optax.GradientTransformation, ...]:
    decay = optax.add_decayed_weights(config.weight_decay, mask=decayed)
    return decay, optax.sgd(schedule, momentum=config.momentum, nesterov=config.nesterov)


def _adamw(
    config: OptimizerConfig, schedule: optax.Schedule, decayed: Decayed
) -> tuple[optax.GradientTransformation, ...]:
    eps = 1e-8 if config.eps is None else config.eps
    return (
        optax.adamw(
            schedule, config.b1, config.b2, eps, weight_decay=config.weight_decay, mask=decayed
        ),
    )


def _lars(
    config: OptimizerConfig, schedule: optax.Schedule, decayed: Decayed
) -> tuple[optax.GradientTransformation, ...]:
    return (
        optax.lars(
            schedule,
            config.weight_decay,
            weight_decay_mask=decayed,
            trust_coefficient=config.trust_coefficient,
            trust_ratio_mask=decayed,
            momentum=config.momentum,
            nesterov=config.nesterov,
        ),
    )


def _lamb(
    config: OptimizerConfig, schedule: optax.Schedule, decayed: Decayed
) -> tuple[optax.GradientTransformation, ...]:
    # optax.lamb adapts every parameter; the authors' code those that decay.
    return (
        optax.scale_by_adam(config.b1, config.b2, 1e-6 if config.eps is None else config.eps),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.masked(optax.scale_by_trust_ratio(), decayed),
        optax.scale_by_learning_rate(schedule),
    )


OPTIMIZERS: dict[
    str,
    Callable[[OptimizerConfig, optax.Schedule, Decayed], tuple[optax.GradientTransformation, ...]],
] = {"sgd": _sgd, "adamw": _adamw, "lars": _lars, "lamb": _lamb}
"""The transformations of each optimizer, one after the other, by its name in the config."""


def _scale_by_plateau() -> optax.GradientTransformation:
    """Scales the updates by what ``observe_validation`` has made of the scale."""

    def init(params: PyTree[jax.Array]) -> PlateauState:
        zero = jnp.zeros((), jnp.int32)
        return PlateauState(
            scale=jnp.ones(()),
            # Not infinity, as in optax: a checkpoint holds nothing that is not finite.
            best_value=jnp.asarray(jnp.finfo(jnp.float32).max),
            plateau_count=zero,
            cooldown_count=zero,
            count=zero,
            avg_value=jnp.zeros(()),
        )

    def update(
        updates: PyTree[jax.Array], state: PlateauState, params: PyTree[jax.Array] | None = None
    ) -> tuple[PyTree[jax.Array], PlateauState]:
        return jax.tree.map(lambda x: x * state.scale, updates), state

    return optax.GradientTransformation(init, update)


def plateau_scale(config: OptimizerConfig, opt_state: PyTree[jax.Array]) -> float:
    """The factor of the plateau schedule; 1 for other schedules."""
    return float(opt_state[-1].scale) if config.schedule == "plateau" else 1.0


def observe_validation(
    config: OptimizerConfig, opt_state: PyTree[jax.Array], loss: float
) -> PyTree[jax.Array]:
    """Tells the plateau schedule of a validation; for other schedules nothing changes.

    Args:
        config: The schedule.
        opt_state: State of the optimizer.
        loss: Validation loss.

    Returns:
        The state with which training goes on.
    """
    if config.schedule != "plateau":
        return opt_state
    *rest, before = opt_state
    after = _observe(config, before, loss)
    # Laid out as before, so that the training step is not compiled again.
    return (*rest, jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), after, before))


@functools.partial(jax.jit, static_argnums=0)
def _observe(config: OptimizerConfig, state: PlateauState, loss: Float[Array, ""]) -> PlateauState:
    plateau = optax.contrib.reduce_on_plateau(
        config.decay, config.patience, min_scale=config.decay**config.max_drops
    )
    return plateau.update((), state, value=loss)[1]
