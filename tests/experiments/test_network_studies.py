"""The studies of networks: their cells are configs that can be run, and ask what they say."""

import dataclasses
import functools
import importlib
import itertools

import jax
import jax.numpy as jnp
import pytest

from senet_jax.analysis.study.cells import baseline_of
from senet_jax.analysis.study.published import published
from senet_jax.command_line.study import Options, recipe
from senet_jax.data.card import known_card
from senet_jax.data.datasets import open_dataset
from senet_jax.errors import UsageError
from senet_jax.models.configured import build_model
from senet_jax.models.zoo import find
from senet_jax.studies.grid import jobs
from senet_jax.training.presets import RESNEST, SENET

RECIPES = {"resnest_radix": RESNEST, "resnest_recipe": RESNEST}
BASELINES = {
    "architectures": "plain",
    "cifar": "plain",
    "densenet_growth": "BC",
    "plain_degradation": "plain",
    "resnest_radix": "0s1x64d",
    "resnest_recipe": "baseline",
    "resnext_cardinality": "1x64d",
}
DATA = ("digits", "cifar10", "cifar100", "imagenet2012")
STUDIES = [
    (study, data)
    for study in BASELINES
    for data in DATA
    if (study, data) != ("cifar", "imagenet2012")
]

FIGURES = {
    # How many cells have a figure of a paper. On digits that is of the ablation of the reduction.
    ("architectures", "digits"): 2,
    ("cifar", "digits"): 2,
    ("architectures", "cifar10"): 5,
    ("architectures", "cifar100"): 4,
    ("architectures", "imagenet2012"): 15,
    ("cifar", "cifar10"): 8,
    ("cifar", "cifar100"): 8,
    ("densenet_growth", "cifar10"): 4,
    ("densenet_growth", "cifar100"): 4,
    ("densenet_growth", "imagenet2012"): 1,
    ("plain_degradation", "cifar10"): 4,
    ("plain_degradation", "imagenet2012"): 8,
    ("resnest_radix", "imagenet2012"): 8,
    ("resnest_recipe", "imagenet2012"): 5,
    ("resnext_cardinality", "cifar10"): 1,
    ("resnext_cardinality", "cifar100"): 1,
    ("resnext_cardinality", "imagenet2012"): 13,
}


@functools.cache
def cells(study, data):
    module = importlib.import_module(f"experiments.{study}")
    return module.cells(recipe(Options(data=data), RECIPES.get(study, SENET)))


def dataset(data, size=224):
    card = known_card(data, size)
    return open_dataset(data) if card is None else card.stand_in()


@functools.cache
def init(module, shape):
    """Shapes of a network's variables; of many blocks in a stage, one is enough."""
    if getattr(module, "blocks", None):
        module = dataclasses.replace(module, blocks=(1,) * len(module.blocks))
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), image)


@pytest.mark.parametrize(("study", "data"), STUDIES)
def test_the_cells_are_valid_and_distinct_and_suit_the_data(study, data, tmp_path):
    grid = jobs(cells(study, data), tmp_path, [0, 1])
    assert len(grid) == 2 * len(cells(study, data))
    photographs = data == "imagenet2012"
    for job in grid:
        assert job.config.data.name == data
        job.config.data.check_images(photographs)
        build_model(job.config.model, num_classes=10)


@pytest.mark.parametrize(
    ("study", "data"),
    [
        # The others are large, and most of those for CIFAR-100 are CIFAR-10's.
        pytest.param(*each, marks=[] if each[1] == "digits" else [pytest.mark.slow])
        for each in STUDIES
        if each[1] != "cifar100" or each[0] == "cifar"
    ],
)
def test_the_networks_take_the_images(study, data):
    for config in cells(study, data).values():
        size = config.data.image_size or find(config.model.name).input_size
        shown = dataset(data, size)
        module = build_model(config.model, len(shown.classes))
        assert init(module, shown.image_shape)["params"]


@pytest.mark.parametrize(("study", "data"), STUDIES)
def test_every_cell_has_its_baseline(study, data):
    names = list(cells(study, data))
    bases = {name: baseline_of(name, BASELINES[study], names) for name in names}
    assert None not in bases.values()
    assert set(bases.values()) < set(names)
    # In the order of the command line the baseline of a group is run first.
    for name, base in bases.items():
        assert names.index(base) <= names.index(name)


@pytest.mark.parametrize(("study", "data"), STUDIES)
def test_the_published_figures_are_found(study, data):
    groups = {}
    for name, config in cells(study, data).items():
        groups.setdefault(name.rpartition("/")[0], []).append(config)
    found = [row for group in groups.values() for row in published(group) if row is not None]
    assert len(found) == FIGURES.get((study, data), 0)
    title = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}.get(data, "ImageNet")
    assert {row.what.rpartition(" on ")[2] for row in found} <= {title}


@pytest.mark.parametrize("data", DATA)
def test_the_pairs_of_families_differ_by_their_attention_alone(data):
    found = cells("architectures", data)
    assert len(found) == 20
    for name, config in found.items():
        if not name.endswith("/se"):
            continue
        differences = config.differences(found[name.replace("/se", "/plain")])
        assert {line.split(":")[0].rpartition(".")[0] for line in differences} == {
            "model.attention"
        }
        assert build_model(config.model, 10).attention.name == "se"
    rates = {name: config.optimizer.learning_rate for name, config in found.items()}
    small = data != "imagenet2012"
    assert {name for name, rate in rates.items() if rate < max(rates.values())} == {
        name for name in found if name.startswith("VGG") and small
    }


@pytest.mark.parametrize("data", DATA)
def test_plain_and_residual_networks_differ_by_one_field(data):
    found = cells("plain_degradation", data)
    for name, config in found.items():
        if name.endswith("/plain"):
            residual = found[name.replace("/plain", "/residual")]
            assert config.differences(residual) == ["model.residual: False, not None"]


def test_the_steps_of_the_recipe_change_one_thing_each():
    steps = list(cells("resnest_recipe", "imagenet2012").values())
    changed = [
        [line.split(":")[0] for line in after.differences(before)]
        for before, after in itertools.pairwise(steps)
    ]
    assert changed == [
        ["label_smoothing"],
        ["data.augment.mixup"],
        ["data.augment.policy"],
        ["model.name"],
        ["model.name"],
        ["data.image_size"],
    ]
    full = steps[5].differences(RESNEST)
    assert not [line for line in full if not line.startswith("optimizer.base_batch")]


def test_what_a_study_cannot_do_is_refused(monkeypatch, capsys):
    with pytest.raises(UsageError, match="are not for imagenet2012: choose --data cifar10"):
        cells("cifar", "imagenet2012")
    monkeypatch.setattr("sys.argv", ["architectures", "--model", "resnet50"])
    module = importlib.import_module("experiments.architectures")
    study = importlib.import_module("senet_jax.command_line.study")
    code = study.main("architectures", "", module.cells, "plain", own_networks=True)
    assert code == 2
    assert "names its own networks: leave --model out" in capsys.readouterr().err
