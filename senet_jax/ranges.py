"""The values that a user can give the fields of configs and networks, and their check.

The range of a number is in the annotation of its field, as ``Annotated[int, whole(1, 64)]``; the
choices of other fields are their types. This file imports neither jax nor the models, so that
``--help`` answers at once.
"""

import dataclasses
import types
import typing
from typing import Any

from senet_jax.errors import UsageError, choose

MOST_STEPS = 2**31 - 1
"""The step of a run and the optimizer's count of updates are int32."""
MOST_EPOCHS = 1_000_000
"""A run keeps a number for each epoch in memory and writes a line of metrics for each."""
MOST_SEED = 2**32 - 1
"""A key of jax has 32 bits of the seed: 2**32 would draw what 0 draws."""
MOST_BATCH = 2**20
"""Images; 16 times the largest batch that was published (LAMB, arXiv 1904.00962: 65,536)."""
MOST_SIDE = 2**14
"""Pixels; the first feature map of one image has 17 GB, and OpenCV takes sides below 2**15."""
MOST_WIDTH = 2**16
"""Channels; a 3x3 convolution from as many to as many has 155 GB of weights."""
MOST_CLASSES = 2**20
"""Logits; ImageNet-21k has 21,843 classes."""
MOST_STAGES = 14
"""Each stage halves the map, and a side has at most 2**14 pixels."""
MOST_BLOCKS = 1024
"""Blocks of a stage, each of which is traced by itself; the deepest published network has 111."""
MOST_DEVICES = 2**20
"""More than any accelerator cluster has."""
LARGE = 1e30
"""Finite in float32, and so are its products with a batch size."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that a number, or each number of a tuple, may have."""

    least: float
    greatest: float
    whole: bool = False
    """Whole numbers only."""
    open_below: bool = False
    """``least`` itself is not allowed."""
    open_above: bool = False
    """``greatest`` itself is not allowed."""
    or_zero: bool = False
    """0 is allowed too, and turns off what the field is for."""
    odd: bool = False
    """Odd numbers only."""
    none: str | None = None
    """The meaning of None; without it None is not allowed."""
    count: tuple[int, int] | None = None
    """The fewest and the most numbers of a tuple; None if the field is one number."""
    or_one: bool = False
    """One number is allowed too, in place of a tuple."""

    def check(self, field: str, value: object) -> None:
        """Checks a value.

        Args:
            field: Its name, for the message.
            value: The value.

        Raises:
            UsageError: It is of another type, not finite or out of range.
        """
        if value is None and self.none is not None:
            return
        if self.count is None or (self.or_one and not isinstance(value, tuple | list)):
            holds = self._holds(value)
        else:
            fewest, most = self.count
            holds = (
                isinstance(value, tuple | list)
                and fewest <= len(value) <= most
                and all(self._holds(each) for each in value)
            )
        if not holds:
            raise UsageError(f"{field} must be {self.allowed(value)}, not {_shown(value)}.")

    def _holds(self, value: Any) -> bool:
        if not (_is_whole(value) or (isinstance(value, float) and not self.whole)):
            return False
        if self.or_zero and value == 0:
            return True
        # NaN compares as false.
        above = self.least < value if self.open_below else self.least <= value
        below = value < self.greatest if self.open_above else value <= self.greatest
        return above and below and not (self.odd and value % 2 == 0)

    def allowed(self, refused: object = None) -> str:
        """The allowed values, as the end of "must be ...".

        Args:
            refused: A value that is not allowed, which decides what of the range is said: of a
                bound that only a machine sets, not that a number below 0 is not above it.

        Example:
            >>> Range(0, 1, open_above=True).allowed()
            'at least 0 and below 1'
        """
        low = f"{'above' if self.open_below else 'at least'} {_number(self.least)}"
        high = f"{'below' if self.open_above else 'at most'} {_number(self.greatest)}"
        text = f"{low} and {high}"
        if self.greatest > 1000 and isinstance(refused, int | float):
            text = low if refused <= self.least else high if refused >= self.greatest else text
        if self.odd:
            text = f"odd, {text}"
        if self.whole and not all(map(_is_whole, _as_tuple(refused))):
            text = f"a whole number, {text}"
        if self.or_zero:
            text = f"0, or {text}"
        if self.count is not None:
            fewest, most = self.count
            some = f"{fewest} numbers"
            if fewest < most:
                least = _FEWEST.get(fewest, f"{fewest} numbers or more")
                some = f"{least}, at most {most}"
            if self.or_one:
                some = f"one number, or {some}"
            text = f"{some}, each {text}"
        return text if self.none is None else f"{text}, or None ({self.none})"


def check_config(config: Any, prefix: str = "") -> None:
    """Checks as ``check_fields``, the configs in the config too."""
    check_fields(config, prefix)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            # The flags of an invocation's config have no prefix.
            check_config(value, prefix if field.name == "config" else f"{prefix}{field.name}.")


def check_fields(config: Any, prefix: str = "") -> None:
    """Checks each field of a config or a Linen module by its range, or by its type's choices.

    Args:
        config: A dataclass; the configs in it are not checked.
        prefix: Stands before the names of the fields in messages, such as "data.".

    Raises:
        UsageError: A number of another type, not finite or out of range, a choice that the field
            does not have, or a switch that is neither True nor False.
    """
    for field in dataclasses.fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        if row := range_of(type(config), field.name):
            row.check(name, value)
        elif field.type is str:
            if not isinstance(value, str):
                raise UsageError(f"{name} must be a text, not {_shown(value)}.")
        else:
            _check_choice(name, value, choices_of(field.type))


def range_of(kind: type, field: str) -> Range | None:
    """The range of a field of a dataclass, or None."""
    annotation = kind.__dataclass_fields__[field].type  # type: ignore[attr-defined]
    rows = getattr(annotation, "__metadata__", ())
    return next((row for row in rows if isinstance(row, Range)), None)


def choices_of(annotation: Any) -> tuple[object, ...]:
    """All values of a type if it is a ``Literal``, bool, or one of them or None; else ()."""
    if annotation is bool:
        return (True, False)
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return inner
    if origin in (typing.Union, types.UnionType):
        some = [choices_of(each) for each in inner if each is not types.NoneType]
        if all(some):
            return (*(value for each in some for value in each), *[None][: types.NoneType in inner])
    return ()


def _check_choice(field: str, value: object, choices: tuple[object, ...]) -> None:
    # 1 is equal to True, but no switch.
    if not choices or any(type(value) is type(each) and value == each for each in choices):
        return
    if isinstance(value, str) and any(isinstance(each, str) for each in choices):
        choose(field, value, [each for each in choices if isinstance(each, str)])
    *some, last = map(str, choices)
    raise UsageError(f"{field} must be {', '.join(some)} or {last}, not {_shown(value)}.")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _as_tuple(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


_FEWEST = {0: "no number or more", 1: "one number or more", 2: "two numbers or more"}


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole(
    least: int,
    greatest: int,
    *,
    none: str | None = None,
    count: tuple[int, int] | None = None,
    or_one: bool = False,
) -> Range:
    """The range of a whole number, or of each whole number of a tuple; see ``Range``."""
    return Range(least, greatest, whole=True, none=none, count=count, or_one=or_one)


RATE = Range(0, 1, open_above=True)
"""The range of a rate of dropout and the like."""
WIDTH = whole(1, MOST_WIDTH)
"""The range of a number of channels."""
CLASSES = whole(1, MOST_CLASSES)
"""The range of a number of classes."""
KERNEL = Range(1, 1023, whole=True, odd=True)
"""The range of the side of a kernel; that of ECA sees as many channels."""
