"""What `train`, `show-data` and scripts take: a config whose every field is a flag."""

import contextlib
import io
from typing import TypeVar

from senet_jax.commands.wrong_flags import flags_of, unknown_argument, wrong_value
from senet_jax.errors import BAD_INPUT

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
        UsageError: A flag that there is not (the message gives the nearest ones), or a value that
            its field does not take.
    """
    import tyro

    said = io.StringIO()
    try:
        # tyro draws a box of up to twenty lines around each error.
        with contextlib.redirect_stderr(said):
            config, unknown = tyro.cli(
                type(default),
                prog=f"{prog} {positional}".strip(),
                description=description,
                default=default,
                args=arguments,
                return_unknown_args=True,
            )
    except SystemExit as end:
        if end.code != BAD_INPUT:
            raise
        raise wrong_value(prog, default, arguments, said.getvalue()) from None
    if unknown:
        raise unknown_argument(prog, unknown[0], flags_of(default))
    return config
