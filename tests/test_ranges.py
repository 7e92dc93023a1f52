import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Literal

import pytest

from senet_jax import UsageError
from senet_jax.attention import ATTENTIONS
from senet_jax.command_line.invocation import Invocation
from senet_jax.command_line.study import Options
from senet_jax.commands.show_data import ShowDataConfig
from senet_jax.config import (
    AttentionOverrides,
    CheckpointConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    SegmentationConfig,
    TrainConfig,
)
from senet_jax.data.config import AugmentConfig, CropConfig, DataConfig
from senet_jax.models.backbone import Backbone
from senet_jax.models.detection.named import HEADS as DETECTORS
from senet_jax.models.segmentation.named import HEADS
from senet_jax.models.segmentation.segmenter import Segmenter
from senet_jax.models.zoo import create_model, list_models
from senet_jax.ranges import Range, check_config, check_fields, range_of
from senet_jax.studies.slurm import SlurmOptions
from senet_jax.training.distributed.clusters import HostsConfig
from senet_jax.training.presets import PRESETS

CONFIGS = (
    *(TrainConfig, ModelConfig, AttentionOverrides, DataConfig, AugmentConfig, OptimizerConfig),
    *(CheckpointConfig, MeshConfig, HostsConfig, Invocation, ShowDataConfig, SlurmOptions, Options),
    *(CropConfig, SegmentationConfig),
)
FAMILIES = {type(create_model(name)) for name in list_models()} - {
    *HEADS.values(),
    *DETECTORS.values(),
}
MODULES = (
    Backbone,
    Segmenter,
    *HEADS.values(),
    *DETECTORS.values(),
    *ATTENTIONS.values(),
    *sorted(FAMILIES, key=lambda family: family.__name__),
)


def kinds(hint) -> set[type]:
    """The types that a hint allows, those in tuples too; none of a choice."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple):
        return set().union(*map(kinds, typing.get_args(hint)))
    return {hint} if isinstance(hint, type) else set()


def numbers(config):
    """The fields of a dataclass that hold numbers, with whether they are whole and may be None."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        found = kinds(hints[field.name])
        if found & {int, float} and field.name not in ("parent", "name"):
            yield field.name, float not in found, type(None) in found


@pytest.mark.parametrize("config", [*CONFIGS, *MODULES], ids=lambda config: config.__name__)
def test_every_number_has_a_range(config):
    for field, whole, optional in numbers(config):
        row = range_of(config, field)
        assert row is not None, f"{config.__name__}.{field} has no range"
        assert row.whole == whole, field
        assert (row.none is not None) == optional, field
        assert math.isfinite(row.least), field
        assert math.isfinite(row.greatest), field


@pytest.mark.parametrize("config", [*CONFIGS, *MODULES], ids=lambda config: config.__name__)
def test_every_range_is_that_of_a_number(config):
    found = {field for field, *_ in numbers(config)}
    assert all(
        field.name in found or range_of(config, field.name) is None
        for field in dataclasses.fields(config)
    )


@pytest.mark.parametrize("config", [config for config in CONFIGS if config is not Invocation])
def test_the_defaults_are_in_range(config):
    check_config(config())


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_are_in_range(name):
    PRESETS[name].validate()


HOSTILE = [math.nan, math.inf, -math.inf, 1e308, -1, -0.5, 2**63, -(2**63), "1", True, None, (), []]


@pytest.mark.parametrize("row", [Range(0, 3), Range(0, 3, whole=True), Range(1, 3, odd=True)])
@pytest.mark.parametrize("value", HOSTILE)
def test_what_is_no_number_of_the_range_is_refused(row, value):
    with pytest.raises(UsageError, match=r"^x must be "):
        row.check("x", value)


@pytest.mark.parametrize(
    ("row", "good", "bad"),
    [
        (Range(0, 1), [0, 1, 0.5], [-1e-9, 1.1]),
        (Range(0, 1, open_below=True), [1e-300, 1], [0, 0.0]),
        (Range(0, 1, open_above=True), [0], [1, 1.0]),
        (Range(2, 9, whole=True), [2, 9], [2.0, 1, 10]),
        (Range(2, 9, or_zero=True), [0, 2, 9], [1, -1]),
        (Range(1, 9, whole=True, odd=True), [1, 9], [2, 8]),
        (Range(1, 2, none="nothing"), [None, 1], [0]),
        (Range(1, 2, count=(1, 2)), [(1,), (1, 2), [1, 2]], [(), (1, 1, 1), (3,), 1, None]),
        (Range(1, 2, count=(0, 2)), [()], ["", (0,)]),
        (Range(1, 2, count=(3, 3), or_one=True), [1, (1, 2, 2)], [0, (1,), (1, 2, 3), None]),
    ],
)
def test_a_range_takes_its_values_and_no_others(row, good, bad):
    for value in good:
        row.check("x", value)
    for value in bad:
        with pytest.raises(UsageError, match=r"^x must be "):
            row.check("x", value)


@pytest.mark.parametrize(
    ("row", "value", "sentence"),
    [
        (Range(1, 10_000, whole=True), 0, "x must be at least 1, not 0."),
        (Range(1, 10_000, whole=True), 2**63, f"x must be at most 10,000, not {2**63}."),
        (
            Range(1, 10_000, whole=True),
            1.5,
            "x must be a whole number, at least 1 and at most 10,000, not 1.5.",
        ),
        (Range(0, 1), 2.0, "x must be at least 0 and at most 1, not 2.0."),
        (
            Range(1, 9, none="all", whole=True, count=(1, 3)),
            (),
            "x must be one number or more, at most 3, each at least 1 and at most 9, or None "
            "(all), not ().",
        ),
    ],
)
def test_the_sentence_says_what_is_allowed(row, value, sentence):
    with pytest.raises(UsageError) as error:
        row.check("x", value)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "sentence"),
    [
        (bool, [True, False], [1, "True", None], "x must be True or False, not "),
        (bool | None, [True, None], [0], "x must be True, False or None, not "),
        (Literal["a", "b"] | None, ["a", None], [3, True], "x must be a, b or None, not "),
        (Literal[1, 2], [1, 2], [True, 3, 1.0, "1"], "x must be 1 or 2, not "),
        (Literal["apple", "pear"], ["pear"], ["peer"], "unknown x 'peer': did you mean pear?"),
        (str | None, ["anything", 3], [], ""),
    ],
)
def test_a_choice_takes_its_values_and_no_others(annotation, good, bad, sentence):
    config = dataclasses.make_dataclass("Choice", [("x", annotation)])
    for value in good:
        check_fields(config(value))
    for value in bad:
        with pytest.raises(UsageError) as error:
            check_fields(config(value))
        assert str(error.value).startswith(sentence)


def test_a_module_is_checked_with_the_ranges_of_what_it_inherits():
    model = create_model("densenet121")
    object.__setattr__(model, "num_classes", 0)
    with pytest.raises(UsageError, match="num_classes must be at least 1, not 0"):
        check_fields(model)


RESULTS = Path(__file__).parents[1] / "experiments" / "results"


@pytest.mark.parametrize("file", sorted(RESULTS.rglob("config.json")), ids=lambda p: p.parent.name)
def test_the_committed_runs_are_in_range(file):
    TrainConfig.from_json(json.loads(file.read_text())).validate()
