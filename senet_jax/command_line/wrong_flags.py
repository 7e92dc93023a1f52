"""Flags that are unknown, and values that a flag does not take, in one sentence."""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from senet_jax.config import field_values
from senet_jax.errors import UsageError
from senet_jax.text import printable

NEAREST = 3
"""Flags that are named where one is unknown."""

ELSEWHERE = {"lr": "learning-rate", "wd": "weight-decay", "pretrained": "init-weights"}
"""Names that other programs have for fields."""

_LONGEST = 60
"""Characters of a wrong value that a message repeats."""


def unknown_argument(prog: str, argument: str, flags: Iterable[str]) -> UsageError:
    """The error for an argument that a program does not have.

    Args:
        prog: The program, with what stands before its flags.
        argument: The argument.
        flags: The program's flags.
    """
    every = f"`{prog} --help all` lists all"
    name = printable(argument.partition("=")[0])[:_LONGEST]
    if not argument.startswith("-"):
        return UsageError(f"unknown argument {name!r}, where a flag is expected: {every}.")
    near = _nearest(name.replace("_", "-"), flags)
    if not near:
        return UsageError(f"unknown argument {name!r}: {every}.")
    *others, last = near
    hint = f"{', '.join(others)} or {last}" if others else last
    return UsageError(f"unknown argument {name!r}: did you mean {hint}? {every}.")


def _nearest(name: str, flags: Iterable[str]) -> list[str]:
    """The flags that are most like a name, as a whole or in what stands after the last dot."""
    group, dot, last = name.lstrip("-").rpartition(".")
    last = ELSEWHERE.get(last, last)
    name = f"--{group}{dot}{last}"

    def likeness(flag: str) -> float:
        if last == flag.lstrip("-").rpartition(".")[2]:
            # The very field, of another group.
            return 0.97
        whole = difflib.SequenceMatcher(None, name, flag).ratio()
        end = difflib.SequenceMatcher(None, name.lstrip("-"), flag.rpartition(".")[2]).ratio()
        # Not for short ends, which have letters in common with anything.
        return max(whole, 0.9 * end if len(name) > 4 else 0, _part_of(name, flag))

    ranked = sorted(((likeness(flag), flag) for flag in flags), key=lambda one: -one[0])
    return [flag for score, flag in ranked[:NEAREST] if score >= 0.4]


def _part_of(name: str, flag: str) -> float:
    """Likeness of "--optimizer.rate" to "--optimizer.learning-rate", whose words it has in part."""
    group, _, end = name.lstrip("-").rpartition(".")
    flag_group, _, flag_end = flag.lstrip("-").rpartition(".")
    words = flag_end.split("-")
    return 0.95 if group == flag_group and set(end.split("-")) < set(words) else 0


def flags_of(default: Any) -> list[str]:
    """All flags of a config, or of what holds it."""
    return [_flag(name) for name in field_values(default)]


def _flag(name: str) -> str:
    """The flag of a dotted field: those of an invocation's config have no prefix."""
    return f"--{name.removeprefix('config.').replace('_', '-')}"


def wrong_value(prog: str, default: Any, arguments: Sequence[str], message: str) -> UsageError:
    """The error for values that a field does not take, in one sentence.

    Args:
        prog: The program.
        default: The config, or what holds it, that the flags change.
        arguments: All that was given.
        message: The message of tyro, which names the flag.
    """
    names = {_flag(name): name for name in field_values(default)}
    given = [one.partition("=")[0].replace("_", "-") for one in arguments]
    wrong = [flag for flag in given if flag in names and re.search(rf"{flag}(?![\w.-])", message)]
    if not wrong:
        text = " ".join(re.sub(r"[^\w\s'\"`.,:;()/{}|=<>?!-]|-{3,}", " ", message).split())
        return UsageError(f"{printable(text)}: see `{prog} --help`.")
    flag = min(wrong, key=message.index)
    at = len(given) - 1 - given[::-1].index(flag)
    value = arguments[at].partition("=")[2]
    values = [value] if value else []
    for one in arguments[at + 1 :]:
        if one.startswith("--"):
            break
        values.append(one)
    allowed = _allowed(_type(type(default), names[flag].split(".")))
    if not values:
        return UsageError(f"{flag} needs a value, {allowed}.")
    shown = " ".join(values)
    shown = printable(shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}...")
    return UsageError(f"{flag} must be {allowed}, not {shown!r}.")


def _type(config: Any, path: Sequence[str]) -> Any:
    """The annotation of a field, by its path of names."""
    kind = typing.get_type_hints(config)[path[0]]
    return _type(kind, path[1:]) if len(path) > 1 else kind


_NAMES = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "each True or False"),
}


def _allowed(kind: Any, *, several: bool = False) -> str:
    """The values that an annotation allows, for a sentence."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        some = [_allowed(one, several=several) for one in inner if one is not types.NoneType]
        return " or ".join([*some, *(["None"] if types.NoneType in inner else [])])
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        fixed = [one for one in inner if one is not ...]
        count = "" if ... in inner else f"{len(fixed)} "
        return f"{count}{_allowed(fixed[0], several=True)}"
    return _NAMES.get(kind, ("a text", "texts"))[several]
