"""The events that are due after a step, a pure function of the config and the step."""

import dataclasses

from senet_jax.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Due:
    """The events that follow a step, in the order in which they happen."""

    epoch_end: bool
    """The step is the last of its epoch."""
    write: bool
    """A line of metrics."""
    validate: bool
    """A validation, whose results the line has; only with ``write``."""
    save: bool
    """A checkpoint."""
    preempted: bool
    """The run stops before its end."""

    @classmethod
    def after(
        cls, step: int, config: TrainConfig, steps_per_epoch: int, *, stopping: bool = False
    ) -> "Due":
        """Returns the events after a step.

        Args:
            step: The number of steps done, at least 1.
            config: The run.
            steps_per_epoch: Steps of an epoch.
            stopping: A signal asks the run to stop: its state is saved.
        """
        epoch, rest = divmod(step, steps_per_epoch)
        last, epoch_end = step == steps_per_epoch * config.epochs, rest == 0
        checkpoint = config.checkpoint
        return cls(
            epoch_end=epoch_end,
            write=epoch_end or _every(config.log_every_steps, step),
            validate=epoch_end and (last or epoch % config.eval_every_epochs == 0),
            save=stopping
            or (epoch_end and (last or epoch % checkpoint.every_epochs == 0))
            or _every(checkpoint.every_steps, step),
            preempted=stopping and not last,
        )


def _every(steps: int | None, step: int) -> bool:
    return steps is not None and step % steps == 0
