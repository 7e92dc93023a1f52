"""What a command line says besides the experiment: how it is carried out this once."""

import dataclasses
from typing import Annotated

import tyro

from senet_jax.training.clusters import HostsConfig
from senet_jax.training.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class Invocation:
    """An experiment, and what is done with it."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    hosts: HostsConfig = HostsConfig()
    show_sharding: bool = False
    """Draw what of the state lies on which device, and stop."""
