import dataclasses
from typing import Annotated, Literal, get_args

import pytest

from senet_jax.config import AttentionOverrides, ModelConfig
from senet_jax.errors import UsageError
from senet_jax.fields.attention import MECHANISMS
from senet_jax.fields.models import FAMILIES
from senet_jax.fields.union import union_of
from senet_jax.ranges import Range, check_fields, whole


@dataclasses.dataclass
class Both:
    dropout: Annotated[float, Range(0, 1, open_above=True)] = 0.0
    """Rate of
    dropout."""


@dataclasses.dataclass
class One(Both):
    stem: Literal["a", "b"] = "a"
    """Its stem."""
    width: Annotated[int, whole(1, 8)] = 1
    """Channels."""
    size: Annotated[int | tuple[int, int], whole(2, 9, count=(2, 2), or_one=True)] = 2
    """Sizes."""
    only: bool = True
    """The first alone."""


@dataclasses.dataclass
class Two(Both):
    stem: Literal["b", "c"] = "b"
    """Another stem."""
    width: Annotated[float, Range(0, 4, open_below=True)] = 1.0
    """Channels."""
    size: Annotated[int | None, whole(1, 3, none="some")] = None
    """Sizes."""


Fields = union_of({"one": One, "two": Two})


@dataclasses.dataclass(frozen=True)
class Union(Fields):
    """The values of a config."""


FIELDS = {field.name: field for field in dataclasses.fields(Union)}


def test_no_field_is_given_by_default():
    assert dataclasses.asdict(Union()) == dict.fromkeys(FIELDS)
    assert list(FIELDS) == ["dropout", "stem", "width", "size", "only"]


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("stem", ["a", "b", "c", None], ["d", 1]),
        ("width", [0.1, 1, 8, None], [0, 8.5]),
        ("size", [1, 9, (2, 2), None], [0, 10, (), (1,), 1.5]),
        ("only", [True, None], ["True", 0]),
        ("dropout", [0, 0.5, None], [1.0]),
    ],
)
def test_it_allows_what_one_of_them_allows(field, good, bad):
    for value in good:
        check_fields(Union(**{field: value}))
    for value in bad:
        with pytest.raises(UsageError, match=field):
            check_fields(Union(**{field: value}))


def test_a_whole_number_is_a_float_where_the_other_is():
    assert get_args(get_args(FIELDS["width"].type)[0]) == (float, type(None))
    assert get_args(get_args(FIELDS["size"].type)[0]) == (int, tuple[int, int], type(None))


def test_the_help_names_who_has_a_field_and_what_differs():
    assert {name: field.metadata["help"] for name, field in FIELDS.items()} == {
        "dropout": "Rate of dropout.",
        "stem": "one: Its stem. two: Another stem.",
        "width": "Channels.",
        "size": "Sizes.",
        "only": "one: The first alone.",
    }


@pytest.mark.parametrize(
    ("config", "declarations"), [(ModelConfig, FAMILIES), (AttentionOverrides, MECHANISMS)]
)
def test_every_field_is_documented_by_all_that_have_it(config, declarations):
    names = {
        name: {field.name for field in dataclasses.fields(each)}
        for name, each in declarations.items()
    }
    for field in dataclasses.fields(config):
        owners = [name for name, fields in names.items() if field.name in fields]
        text = field.metadata["help"] if owners else "The field of the config itself."
        assert text.endswith(".")
        assert len(owners) in (0, len(names)) or all(name in text for name in owners)
