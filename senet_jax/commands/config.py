"""What `train` and `show-data` take: a config whose every field is a flag."""

from typing import TypeVar

from senet_jax.errors import UsageError, choose
from senet_jax.training.config import TrainConfig, field_names

Config = TypeVar("Config", bound=TrainConfig)


def read_config(
    command: str, positional: str, description: str, default: Config, arguments: list[str]
) -> Config:
    """Reads the flags that change the fields of a config.

    Args:
        command: The command, for the messages.
        positional: What stands before the flags, for the usage.
        description: What ``--help`` says.
        default: The config that the flags change.
        arguments: The flags.

    Raises:
        UsageError: A flag that there is not; the message gives the nearest ones.
    """
    import tyro

    config, unknown = tyro.cli(
        type(default),
        prog=f"senet-jax {command} {positional}",
        description=description,
        default=default,
        args=arguments,
        return_unknown_args=True,
    )
    if unknown:
        flags = [f"--{name.replace('_', '-')}" for name in field_names(default)]
        choose("argument", unknown[0].partition("=")[0].replace("_", "-"), flags)
        raise UsageError(
            f"{unknown[0]!r} is no argument of {command}: see senet-jax {command} --help."
        )
    return config
