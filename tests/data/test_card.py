import dataclasses
import json
import math

import numpy as np
import pytest
import tensorflow_datasets as tfds

from senet_jax.data.card import Card, known_card
from senet_jax.data.class_names import IMAGENET_SYNSETS, readable
from senet_jax.data.config import ObjectsConfig
from senet_jax.data.datasets import DATASETS
from senet_jax.data.picture_examples import evaluation_pictures
from senet_jax.data.pictures import PictureDataset
from senet_jax.data.scenes import SceneDataset, evaluation_scenes
from senet_jax.errors import UsageError

CARD = Card("x", ["a", "b"], (8, 6, 3), (0.5, 0.4, 0.3), (0.2, 0.1, 0.2), 10, 2, True)


def test_a_card_is_read_as_it_was_written():
    assert Card.from_json(json.loads(json.dumps(dataclasses.asdict(CARD)))) == CARD


def test_the_cards_of_published_sets_are_valid():
    for card in filter(None, (known_card(name, 224) for name in DATASETS)):
        card.validate()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train", 0),
        ("train", -5),
        ("train", 2**40),
        ("val", 0),
        ("classes", []),
        ("image_shape", (0, 8, 3)),
        ("image_shape", (8, -1, 3)),
        ("image_shape", (8, 10**9, 3)),
        ("image_shape", (8, 8, 0)),
        ("image_shape", (8, 8, 7)),
        ("mean", (0.5, 0.5)),
        ("mean", (0.5, math.nan, 0.5)),
        ("mean", (0.5, math.inf, 0.5)),
        ("std", (0.2, 0.2)),
        ("std", (0.2, 0.0, 0.2)),
        ("std", (0.2, -0.1, 0.2)),
        ("std", (0.2, 0.2, math.nan)),
        ("std", (0.2, 0.2, math.inf)),
        ("ignore_label", 11),
        ("palette", ((0, 0, 0), (1, 1, 1))),
    ],
)
def test_facts_that_no_data_set_has_are_refused(field, value):
    values = json.loads(json.dumps(dataclasses.asdict(CARD) | {field: value}))
    with pytest.raises(UsageError, match=f"not the facts of a data set: {field} must be "):
        Card.from_json(values)


def test_a_class_that_stands_twice_is_named():
    values = dataclasses.asdict(CARD) | {"classes": ["a", "b\x1b", "c", "b\x1b"]}
    with pytest.raises(UsageError, match=r"classes must differ, and 'b\\x1b' stands twice\.$"):
        Card.from_json(values)


def test_no_data_set_that_opens_has_a_class_twice():
    # Folders of one parent have different names; ImageNet's classes are its synsets, though the
    # words of two are "maillot"; and TFDS refuses a class that stands twice itself.
    values = dataclasses.asdict(CARD) | {"classes": [*IMAGENET_SYNSETS]}
    assert Card.from_json(values).classes == [*IMAGENET_SYNSETS]
    words = [name.partition(",")[0] for name in readable([*IMAGENET_SYNSETS])]
    assert words.count("maillot") == 2
    with pytest.raises(ValueError, match="duplicated"):
        tfds.features.ClassLabel(names=["crane", "crane"])


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"name": "x"},
        dataclasses.asdict(CARD) | {"mean": 3},
        dataclasses.asdict(CARD) | {"mean": "abc"},
        dataclasses.asdict(CARD) | {"image_shape": [8, 8]},
        dataclasses.asdict(CARD) | {"image_shape": None},
        dataclasses.asdict(CARD) | {"train": "10"},
        dataclasses.asdict(CARD) | {"classes": "ab"},
        dataclasses.asdict(CARD) | {"classes": [1]},
        dataclasses.asdict(CARD) | {"more": 1},
    ],
)
def test_values_of_other_types_are_refused(values):
    with pytest.raises(UsageError, match="not the facts of a data set"):
        Card.from_json(values)


@pytest.mark.parametrize("photographs", [True, False])
def test_a_stand_in_of_any_size_takes_no_memory(photographs):
    card = dataclasses.replace(CARD, train=2**31 - 1, photographs=photographs)
    dataset = card.stand_in()
    assert len(dataset.train) == 2**31 - 1
    assert dataset.train.labels[-1] == -1


@pytest.mark.parametrize(
    "change", [{"std": (1e-320,) * 3}, {"std": (2.0,) * 3}, {"mean": (1e30,) * 3}]
)
def test_statistics_of_no_image_are_refused(change):
    card = known_card("imagenet2012", 224)
    with pytest.raises(UsageError, match="must be a number of"):
        dataclasses.replace(card, **change).validate()


SCENES = dataclasses.replace(CARD, ignore_label=255, palette=((0, 0, 0), (9, 8, 7)))


def test_a_card_of_scenes_is_read_as_it_was_written():
    assert Card.from_json(json.loads(json.dumps(dataclasses.asdict(SCENES)))) == SCENES


@pytest.mark.parametrize("photographs", [True, False])
def test_scenes_stand_in_for_those_of_a_card(photographs):
    card = dataclasses.replace(SCENES, photographs=photographs)
    dataset = card.stand_in()
    assert isinstance(dataset, SceneDataset)
    assert Card.of(dataset) == card
    assert len(dataset.train.taken(np.arange(3))) == 3
    (group,) = evaluation_scenes(dataset.val, 2, (0, 0, 0), 8)
    assert group.arrays["image"].shape == (8, 6, 3)
    with pytest.raises(UsageError, match="are not there"):
        dataset.train.scene(0)


@pytest.mark.parametrize(
    "palette", [(), ((0, 0, 0),), ((0, 0, 0), (1, 2)), ((0, 0, 0), (0, 0, 256))]
)
def test_a_palette_has_a_colour_for_each_class(palette):
    with pytest.raises(UsageError, match="palette must be"):
        dataclasses.replace(SCENES, palette=palette).validate()


PICTURES = dataclasses.replace(CARD, category_ids=(3, 90), masks=True)


@pytest.mark.parametrize("photographs", [True, False])
def test_pictures_stand_in_for_those_of_a_card(photographs):
    card = dataclasses.replace(PICTURES, photographs=photographs)
    assert Card.from_json(json.loads(json.dumps(dataclasses.asdict(card)))) == card
    dataset = card.stand_in()
    assert isinstance(dataset, PictureDataset)
    assert Card.of(dataset) == card
    assert len(dataset.train.taken(np.arange(3))) == 3
    assert not dataset.train.counts.any()
    (group,) = evaluation_pictures(dataset.val, ObjectsConfig(), 8)
    assert group.arrays["image"].shape == (32, 32, 3)
    with pytest.raises(UsageError, match="are not there"):
        dataset.train.picture(0, masks=False)


@pytest.mark.parametrize("ids", [(3,), (3, 3), (1, 2, 3)])
def test_a_class_has_a_number_of_its_own(ids):
    with pytest.raises(UsageError, match="category_ids must be"):
        dataclasses.replace(PICTURES, category_ids=ids).validate()
