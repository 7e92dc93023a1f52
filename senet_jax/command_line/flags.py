"""The flags of `train`, `show-data` and scripts: each field of the config is one."""

import contextlib
import dataclasses
import io
import sys
from pathlib import Path
from typing import Any, TypeVar

from senet_jax.command_line.help_pages import Description, asked_topic, config_page
from senet_jax.command_line.wrong_flags import flags_of, unknown_argument, wrong_value
from senet_jax.config import CheckpointConfig, TrainConfig
from senet_jax.errors import ExitCode
from senet_jax.files import user_address, user_path, user_weights
from senet_jax.ranges import check_config

Config = TypeVar("Config")


def read_config(
    prog: str, positional: str, description: Description, default: Config, arguments: list[str]
) -> Config:
    """Reads the flags that change the fields of a config.

    Args:
        prog: The name of the program, without its arguments.
        positional: The words before the flags, for the usage.
        description: The texts of ``--help``.
        default: A dataclass, the config or what holds it, that the flags change.
        arguments: The flags.

    Raises:
        UsageError: A flag that there is not (the message gives the nearest ones), a value that its
            field does not take, a number out of range, a path that no file can have, or an unknown
            topic of ``--help``.
        SystemExit: The arguments ask for help, which is printed.
    """
    topic = asked_topic(arguments)
    if topic is not None:
        print(config_page(topic, prog, positional, description, default))
        sys.exit(0)

    import tyro

    output = io.StringIO()
    try:
        # tyro draws a box of up to twenty lines around each error.
        with contextlib.redirect_stderr(output):
            config, unknown = tyro.cli(
                type(default),
                prog=f"{prog} {positional}".strip(),
                default=default,
                args=arguments,
                return_unknown_args=True,
            )
    except SystemExit as end:
        if end.code != ExitCode.BAD_INPUT:
            raise
        raise wrong_value(prog, default, arguments, output.getvalue()) from None
    if unknown:
        raise unknown_argument(prog, unknown[0], flags_of(default))
    check_config(config)
    return expand_paths(config)


def expand_paths(config: Config) -> Config:
    """The same config with ``~`` expanded in all its paths, those of the configs in it too.

    Raises:
        UsageError: A path that is the address of a bucket where only a folder can be.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = expand_paths(value)
        elif isinstance(value, Path):
            changes[field.name] = user_path(value)
    if isinstance(config, CheckpointConfig) and config.dir is not None:
        changes["dir"] = user_address(config.dir)
    if isinstance(config, TrainConfig) and config.init_weights is not None:
        changes["init_weights"] = user_weights(config.init_weights)
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]
