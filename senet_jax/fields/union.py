"""A dataclass with the fields of several declarations, as flags need it."""

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union

from senet_jax.fields.documentation import documentation
from senet_jax.ranges import Range


def union_of(declarations: Mapping[str, type]) -> Any:
    """Makes a frozen dataclass with every field of the declarations, for others to inherit.

    A field's default is None, which means that it is not given; its type and range allow what one
    of the declarations allows. Its metadata has its documentation under "help", where tyro looks:
    that of the declarations, with their names if they differ or are not all.

    Args:
        declarations: Dataclasses by the names that the documentation gives them.
    """
    fields: dict[str, dict[str, type]] = {}
    for name, declaration in declarations.items():
        for field in dataclasses.fields(declaration):
            fields.setdefault(field.name, {})[name] = declaration
    made = [
        (
            name,
            _type_of(name, owners.values()),
            dataclasses.field(default=None, metadata=_Help(name, owners, len(declarations))),
        )
        for name, owners in fields.items()
    ]
    return dataclasses.make_dataclass(
        "Union", made, frozen=True, kw_only=True, init=False, repr=False, eq=False
    )


def _type_of(field: str, owners: Iterable[type]) -> Any:
    """The types of a field in one, and None."""
    annotations = [owner.__dataclass_fields__[field].type for owner in owners]  # type: ignore[attr-defined]
    kinds = list(dict.fromkeys(kind for each in annotations for kind in _parts(each)))
    literals = [kind for kind in kinds if typing.get_origin(kind) is Literal]
    # A whole number is a float, too.
    others = [
        kind for kind in kinds if kind not in literals and not (kind is int and float in kinds)
    ]
    choices = dict.fromkeys(value for kind in literals for value in typing.get_args(kind))
    kind = _of(Union, *others, *([_of(Literal, *choices)] if choices else []), None)
    rows = [row for each in annotations for row in getattr(each, "__metadata__", ())]
    return _of(Annotated, kind, _hull(rows)) if rows else kind


def _of(form: Any, *parameters: Any) -> Any:
    """``form[*parameters]``, which a type checker would take for an annotation."""
    return form[parameters]


def _parts(annotation: Any) -> list[Any]:
    """The types that an annotation allows besides None."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _parts(inner[0])
    if origin in (Union, types.UnionType):
        return [part for each in inner for part in _parts(each)]
    return [] if annotation is types.NoneType else [annotation]


def _hull(rows: Sequence[Range]) -> Range:
    """The least range that has all values of the ranges, and None."""
    least, greatest = min(row.least for row in rows), max(row.greatest for row in rows)
    counts = [row.count for row in rows if row.count is not None]
    count = None
    if counts:
        # A tuple without numbers would be a value forgotten on the command line.
        count = max(1, min(few for few, _ in counts)), max(most for _, most in counts)
    return Range(
        least,
        greatest,
        whole=all(row.whole for row in rows),
        open_below=all(row.open_below for row in rows if row.least == least),
        open_above=all(row.open_above for row in rows if row.greatest == greatest),
        or_zero=any(row.or_zero for row in rows),
        odd=all(row.odd for row in rows),
        none="the network's own",
        count=count,
        or_one=count is not None and any(row.or_one or row.count is None for row in rows),
    )


class _Help(Mapping[str, str]):
    """The metadata of a field: its documentation, read from the source when it is asked for."""

    def __init__(self, field: str, owners: Mapping[str, type], among: int) -> None:
        self._field, self._owners, self._among = field, owners, among

    def __getitem__(self, key: str) -> str:
        if key != "help":
            raise KeyError(key)
        texts: dict[str, list[str]] = {}
        for name, owner in self._owners.items():
            texts.setdefault(documentation(owner, self._field), []).append(name)
        if len(texts) == 1 and len(self._owners) == self._among:
            return next(iter(texts))
        return " ".join(f"{', '.join(names)}: {text}" for text, names in texts.items())

    def __iter__(self) -> Iterator[str]:
        return iter(["help"])

    def __len__(self) -> int:
        return 1
