"""The types of the arguments that argparse reads: numbers of a range, and paths."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from senet_jax.errors import UsageError
from senet_jax.files import user_address, user_path, user_weights
from senet_jax.ranges import Range, range_of

Value = TypeVar("Value")

Flags = argparse._ActionsContainer
"""Takes declarations of flags: a parser, or a group of one."""


def number(row: Range) -> Callable[[str], int | float]:
    """The type of an argument that is a number of a range."""

    def parse(text: str) -> int | float:
        try:
            value = int(text) if row.whole else float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"must be {row.allowed()}, not {text[:60]!r}"
            ) from None
        try:
            row.check("it", value)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix("it ").rstrip(".")) from None
        return value

    return parse


def number_of(config: type, field: str) -> Callable[[str], int | float]:
    """The type of an argument with the range of a field of a config."""
    row = range_of(config, field)
    assert row is not None, field
    return number(row)


def count(least: int, greatest: int) -> Callable[[str], int | float]:
    """The type of an argument that is a whole number from ``least`` to ``greatest``."""
    return number(Range(least, greatest, whole=True))


def path(text: str) -> Path:
    """The type of an argument that is a path on this machine."""
    return _argument(user_path, text)


def address(text: str) -> str:
    """The type of an argument that is a path on this machine or gs://BUCKET/FOLDER."""
    return _argument(user_address, text)


def weights(text: str) -> str:
    """The type of an argument that is a path on this machine or hf-hub:OWNER/REPOSITORY."""
    return _argument(user_weights, text)


def _argument(read: Callable[[str], Value], text: str) -> Value:
    try:
        return read(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None
