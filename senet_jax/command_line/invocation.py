"""The parts of a command line besides the experiment: the conduct of this one run."""

import dataclasses
from typing import Annotated

import tyro

from senet_jax.config import TrainConfig
from senet_jax.ranges import MOST_STEPS, whole
from senet_jax.training.distributed.clusters import HostsConfig


@dataclasses.dataclass(frozen=True)
class Invocation:
    """An experiment, and what is done with it."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    hosts: HostsConfig = HostsConfig()
    show_sharding: bool = False
    """Draw what of the state lies on which device, and stop."""
    profile_steps: Annotated[int, whole(0, MOST_STEPS)] = 0
    """Trace so many steps after the compilation with jax's profiler, into `profile/` of the run's
    folder. To look at them: `xprof --logdir RUN/profile`, or TensorBoard with its profile plugin,
    or open one of the `*.trace.json.gz` in Perfetto."""
    profile_start: Annotated[
        int | None, whole(1, MOST_STEPS, none="the first after the compilation")
    ] = None
    """The first step that is traced; None means the first after the compilation."""
    dry_run: bool = False
    """Compile the training step, say what it needs and how fast it can be at most, and stop. The
    images need not be there, nor the accelerators: virtual devices take their place."""
    topology: str | None = None
    """Compile the dry run for this slice of TPUs, as "v5e:4x4", by their own compiler (jax[tpu])
    and without any; "v5e", "v5p" or "v6e"."""
    accelerators: tuple[str, ...] = ()
    """Accelerators whose times the dry run bounds: "a100", "a100-40gb", "h100", "h100-pcie",
    "h200", "v4", "v5e", "v5p", "v6e"; none means the one that it was compiled for, else some."""
