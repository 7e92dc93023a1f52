"""What a command line says besides the experiment: how it is carried out this once."""

import dataclasses
from typing import Annotated

import tyro

from senet_jax.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Invocation:
    """An experiment, and what is done with it."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    show_sharding: bool = False
    """Draw what of the state lies on which device, and stop."""
    profile_steps: int = 0
    """Trace so many steps after the compilation with jax's profiler, into `profile/` of the run's
    folder. To look at them: `xprof --logdir RUN/profile`, or TensorBoard with its profile plugin,
    or open one of the `*.trace.json.gz` in Perfetto."""
    profile_start: int | None = None
    """The first step that is traced; None means the first after the compilation."""
