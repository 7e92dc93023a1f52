"""What `train`, `show-data` and scripts take: a config whose every field is a flag."""

from typing import Any, TypeVar

from senet_jax.errors import UsageError, choose
from senet_jax.training.config import field_names

Config = TypeVar("Config")


def read_config(
    prog: str, positional: str, description: str, default: Config, arguments: list[str]
) -> Config:
    """Reads the flags that change the fields of a config.

    Args:
        prog: What the program is called, without its arguments.
        positional: What stands before the flags, for the usage.
        description: What ``--help`` says.
        default: A dataclass, the config or what holds it, that the flags change.
        arguments: The flags.

    Raises:
        UsageError: A flag that there is not; the message gives the nearest ones.
    """
    import tyro

    config, unknown = tyro.cli(
        type(default),
        prog=f"{prog} {positional}".strip(),
        description=description,
        default=default,
        args=arguments,
        return_unknown_args=True,
    )
    if unknown:
        flags = [f"--{name.replace('_', '-')}" for name in _flag_names(default)]
        choose("argument", unknown[0].partition("=")[0].replace("_", "-"), flags)
        raise UsageError(f"{unknown[0]!r} is no argument of {prog}: see {prog} --help.")
    return config


def _flag_names(default: Any) -> list[str]:
    """The fields by their flags: those of an invocation's config have no prefix."""
    return [name.removeprefix("config.") for name in field_names(default)]
