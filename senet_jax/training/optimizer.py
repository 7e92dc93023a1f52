"""Optimizers and schedules, from optax."""

import fnmatch
from collections.abc import Sequence

import jax
import optax
from flax import traverse_util
from jaxtyping import PyTree

from senet_jax.errors import UsageError
from senet_jax.training.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, steps_per_epoch: int, epochs: int) -> optax.Schedule:
    """Learning rate by step: a linear warm-up, then a half cosine to zero, or steps.

    Args:
        config: Peak, form and milestones.
        steps_per_epoch: Steps of an epoch.
        epochs: Epochs of the run.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    peak, total = config.learning_rate, epochs * steps_per_epoch
    if config.schedule == "cosine":
        after: optax.Schedule = optax.cosine_decay_schedule(peak, max(total - warmup, 1))
    else:
        # The milestones count from the start of the run, this schedule from the warm-up's end.
        boundaries = {
            round(epoch * steps_per_epoch) - warmup: config.decay for epoch in config.milestones
        }
        after = optax.piecewise_constant_schedule(peak, boundaries)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def decayed(params: PyTree[jax.Array]) -> PyTree[bool]:
    """Which parameters decay: the kernels; no bias, no scale of a batch norm."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def matching(params: PyTree[jax.Array], patterns: Sequence[str]) -> PyTree[bool]:
    """Which parameters have a path that one of the shell patterns matches.

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
) -> optax.GradientTransformation:
    """Builds the optimizer: clipping, weight decay on the kernels, the update.

    Args:
        config: Kind and constants.
        schedule: Learning rate by step.
        frozen: Shell patterns of the paths of parameters that do not change.
        body_rate: Learning rate of all but the classifier, as a fraction.
    """
    update = _update(config, schedule)
    if body_rate != 1:
        update = optax.chain(
            update,
            optax.partition(
                {True: optax.identity(), False: optax.scale(body_rate)},
                lambda params: matching(params, ["head/*"]),
            ),
        )
    if frozen:
        # Around all the rest, so that frozen gradients do not count where the norm is clipped.
        update = optax.partition(
            {True: optax.set_to_zero(), False: update},
            lambda params: matching(params, frozen),
        )
    return update


def _update(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if config.name == "adamw":
        update = optax.adamw(schedule, weight_decay=config.weight_decay, mask=decayed)
        return optax.chain(clip, update)
    return optax.chain(
        clip,
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.sgd(schedule, momentum=config.momentum, nesterov=config.nesterov),
    )
