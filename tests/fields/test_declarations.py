"""Every field that is declared is a flag, is checked, and reaches its module."""

import dataclasses
import functools
import itertools
import math

import pytest

from senet_jax import UsageError
from senet_jax.attention import ATTENTIONS
from senet_jax.attention.gates import ACTIVATIONS, GATES
from senet_jax.attention.gather_excite import EXTENTS
from senet_jax.attention.squeeze import SQUEEZES
from senet_jax.command_line.flags import read_config
from senet_jax.command_line.help_pages import Description
from senet_jax.config import AttentionOverrides, ModelConfig, TrainConfig
from senet_jax.fields.attention import MECHANISMS
from senet_jax.fields.detectors import DETECTORS
from senet_jax.fields.models import FAMILIES, BackboneFields
from senet_jax.fields.segmenters import SEGMENTERS
from senet_jax.models.configured import build_model
from senet_jax.models.detection import named as detectors
from senet_jax.models.segmentation.named import HEADS
from senet_jax.models.shufflenet import WIDTHS
from senet_jax.models.zoo import create_model, list_models
from senet_jax.ranges import choices_of, range_of

PROGRAMS_OWN = {
    *("num_classes", "attention", "features_only", "features_by", "dtype", "layers", "backbone"),
    *("parent", "name"),
}
"""The fields of modules that a program sets and no user: a run has the classes of its data set and
needs their logits, the name says the backbone, the attention and the precision have flags of their
own, the layers of an Inception network are no values of a flag, and the last two are Linen's."""

NETWORKS = {**FAMILIES, **SEGMENTERS, **DETECTORS}

FAMILY_FIELDS = [
    (family, field.name)
    for family, declaration in NETWORKS.items()
    for field in dataclasses.fields(declaration)
]
MECHANISM_FIELDS = [
    (kind, field.name)
    for kind, declaration in MECHANISMS.items()
    for field in dataclasses.fields(declaration)
]


TABLES = {"squeeze": SQUEEZES, "gate": GATES, "activation": ACTIVATIONS}


def choices(declaration, field):
    """The choices that the type of a field has."""
    (annotation,) = (f.type for f in dataclasses.fields(declaration) if f.name == field)
    return choices_of(annotation)


@functools.cache
def named(family):
    """The named networks of a family."""
    composed = [f"{head}_resnet18" for head in HEADS]
    composed += [f"{head}_resnet18_fpn" for head in detectors.HEADS]
    models = ((name, create_model(name)) for name in [*list_models(), *composed])
    return [(name, model) for name, model in models if type(model).__name__ == family]


def others(declaration, field, own):
    """Values of a field that its declaration allows, other than ``own``."""
    row = range_of(declaration, field)
    if field in TABLES:
        some = TABLES[field]
    elif row is None:
        some = choices(declaration, field)
    elif row.count is None or (row.or_one and not isinstance(own, tuple)):
        near = [2 * own, own / 2, own + 1, own - 1, own + 2] if own else []
        some = [*near, *(row.least + step for step in (0, 1, 2, 3, 0.5))]
        some = [int(value) if row.whole else float(value) for value in some]
    else:
        some = [tuple(2 * n for n in own)] if own else []
        some += [(n,) * max(1, row.count[0]) for n in range(int(row.least), int(row.least) + 5)]
    for value in some:
        if value is not None and value != own and (row is None or holds(row, value)):
            yield value


def holds(row, value):
    """Tells whether a value is in a range."""
    try:
        row.check("x", value)
    except UsageError:
        return False
    return True


def built(name, **fields):
    """A network, or None if a field does not go together with its others."""
    try:
        return build_model(ModelConfig(name, **fields), 3)
    except UsageError:
        return None


FIXED = {("CascadeRCNN", "box_outputs"), ("CascadeMaskRCNN", "box_outputs")}
"""Fields that are inherited, and have one value alone."""


@pytest.mark.parametrize(("family", "field"), FAMILY_FIELDS)
def test_every_field_of_a_family_reaches_its_module(family, field):
    for name, model in named(family):
        for value in others(NETWORKS[family], field, getattr(model, field)):
            changed = built(name, **{field: value})
            if changed is not None:
                assert (family, field) not in FIXED
                assert getattr(changed, field) == value
                return
    if (family, field) in FIXED:
        return
    pytest.fail("no network of the family takes another value")


@pytest.mark.parametrize(("kind", "field"), MECHANISM_FIELDS)
def test_every_field_of_a_mechanism_reaches_its_description(kind, field):
    own = getattr(ATTENTIONS[kind](), field)
    value = next(others(MECHANISMS[kind], field, own))
    overrides = AttentionOverrides(kind=kind, **{field: value})
    attention = build_model(ModelConfig("resnet50", attention=overrides), 3).attention
    assert type(attention) is ATTENTIONS[kind]
    assert getattr(attention, field) == value


def flag_of(prefix, field, value):
    values = value if isinstance(value, tuple) else (value,)
    return [f"--model.{prefix}{field.replace('_', '-')}", *map(str, values)]


def test_every_field_is_a_flag():
    model = {field: next(others(NETWORKS[family], field, None)) for family, field in FAMILY_FIELDS}
    attention = {
        field: next(others(MECHANISMS[kind], field, None)) for kind, field in MECHANISM_FIELDS
    }
    flags = [
        *itertools.chain(*(flag_of("", *item) for item in model.items())),
        *itertools.chain(*(flag_of("attention.", *item) for item in attention.items())),
    ]
    read = read_config("prog", "", Description(""), TrainConfig(), flags).model
    assert read == ModelConfig(attention=AttentionOverrides(**attention), **model)


WRONG = (math.nan, -1, "nonsense", object())


@pytest.mark.parametrize(("family", "field"), FAMILY_FIELDS)
def test_every_field_of_a_family_is_checked(family, field):
    name, _ = named(family)[0]
    for value in WRONG:
        with pytest.raises(UsageError, match=f"^(unknown )?{field} "):
            create_model(name, **{field: value})
        with pytest.raises(UsageError, match=f"^(unknown )?model.{field} "):
            build_model(ModelConfig(name, **{field: value}), 3)


@pytest.mark.parametrize(("kind", "field"), MECHANISM_FIELDS)
def test_every_field_of_a_mechanism_is_checked(kind, field):
    for value in WRONG:
        with pytest.raises(UsageError, match=f"^(unknown )?{field} "):
            ATTENTIONS[kind](**{field: value})
        overrides = AttentionOverrides(kind=kind, **{field: value})
        with pytest.raises(UsageError, match=f"^(unknown )?(model.attention.)?{field} "):
            build_model(ModelConfig("resnet50", attention=overrides), 3)


def test_every_family_and_mechanism_is_declared():
    models = [model for family in NETWORKS for _, model in named(family)]
    assert {type(create_model(name)).__name__ for name in list_models()} <= NETWORKS.keys()
    assert {type(model).__name__ for model in models} == NETWORKS.keys()
    assert {head.__name__ for head in HEADS.values()} == SEGMENTERS.keys()
    assert {head.__name__ for head in detectors.HEADS.values()} == DETECTORS.keys()
    for model in models:
        declared = {field.name for field in dataclasses.fields(NETWORKS[type(model).__name__])}
        fields = {field.name for field in dataclasses.fields(model)}
        assert declared < fields
        assert fields - declared <= PROGRAMS_OWN
    assert MECHANISMS.keys() == ATTENTIONS.keys()
    for kind, declaration in MECHANISMS.items():
        assert dataclasses.fields(ATTENTIONS[kind]) == dataclasses.fields(declaration)


def test_the_choices_are_the_keys_of_their_tables():
    assert {*choices(MECHANISMS["ge"], "extent")} == {*EXTENTS}
    assert {*choices(FAMILIES["ShuffleNetV1"], "groups")} == {*WIDTHS}
    assert {*choices(AttentionOverrides, "kind")} == {*MECHANISMS, "none", None}


@pytest.mark.parametrize("field", TABLES)
def test_the_help_lists_the_keys_of_a_table(field):
    (found,) = (each for each in dataclasses.fields(AttentionOverrides) if each.name == field)
    assert [key for key in TABLES[field] if f'"{key}"' not in found.metadata["help"]] == []


def test_a_gate_that_a_script_adds_is_there_at_once(monkeypatch):
    monkeypatch.setitem(GATES, "mine", GATES["tanh"])
    overrides = AttentionOverrides(gate="mine")
    assert (
        build_model(ModelConfig("cifar_seresnet8", attention=overrides), 3).attention.gate == "mine"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_none_of_a_config_takes_nothing_away(family):
    # None of a config is "not given": it must not be the only way to say what None of a module
    # means. Of the stem of a DenseNet it means a number, twice the growth rate.
    optional = [
        field.name
        for field in dataclasses.fields(FAMILIES[family])
        if field.default is None and field.name != "stem_width"
    ]
    assert {field.name for field in dataclasses.fields(BackboneFields)} >= {*optional}
    for name, model in named(family):
        given = {field: getattr(model, field) for field in optional}
        assert given == dict.fromkeys(optional), name
        if model.attention is not None:
            for field in dataclasses.fields(model.attention):
                assert field.default is not None or getattr(model.attention, field.name) is None
