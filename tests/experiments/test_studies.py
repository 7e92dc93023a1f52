"""The runs of every study on each data set, never trained."""

import dataclasses
import functools
import runpy
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from experiments.ablate import ABLATIONS
from experiments.registered import STUDIES as REGISTERED
from senet_jax.command_line import study
from senet_jax.command_line.study import Options, recipe
from senet_jax.models.configured import build_model
from senet_jax.studies.grid import jobs
from senet_jax.training.records.run_dir import read_config

STUDIES = {
    "ablate_gate": 4,
    "ablate_squeeze": 5,
    "ablate_reduction": {"imagenet2012": 6, "": 5},
    "ablate_stage": {"imagenet2012": 6, "": 5},
    "ablate_placement": 6,
    "ablate_squeeze_free": 3,
    "gates_and_squeezes": 5,
    "depth": 6,
    "attention_zoo": 9,
    "registered_gain": 2,
    "registered_variants": 7,
}
"""Cells of each, by data set if it is not the same for all ("" for the others)."""

DATA = ("digits", "cifar10", "cifar100", "imagenet2012")
SCENES = ("scenes", "camvid", "ade20k", "pascal_context", "cityscapes", "voc2012")
OBJECTS = ("scenes-detection", "nuclei", "bccd", "coco-senet")
OWN_NETWORKS = {"depth", "registered_gain", "registered_variants"}
OF_ONE_NETWORK = [name for name in STUDIES if name not in OWN_NETWORKS]
IMAGES = {"digits": (8, 8, 1), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}


def test_every_data_set_is_of_images_or_of_scenes():
    assert typing.get_args(typing.get_type_hints(Options)["data"]) == (
        *DATA,
        *SCENES,
        *OBJECTS,
    )


@functools.cache
def declared(name):
    """The name, the description, the cells and the other fields of a study."""
    for script, studies in (("ablate", ABLATIONS), ("registered", REGISTERED)):
        if name.startswith(f"{script}_"):
            chosen = studies[name.removeprefix(f"{script}_")]
            return chosen.name, chosen.description, chosen.cells, vars(chosen)
    given = []

    def main(*arguments, **options):
        given.append((*arguments, options))
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "main", main)
        with pytest.raises(SystemExit):
            runpy.run_module(f"experiments.{name}", run_name="__main__")
    ((title, description, cells, options),) = given
    return title, description, cells, options


def cells_of(name, data):
    *_, cells, _ = declared(name)
    return cells(recipe(Options(data=data)))


@functools.cache
def parameters(model, image):
    """Shapes of a network's parameters; of many blocks in a stage, one is enough."""
    if getattr(model, "blocks", None):
        model = dataclasses.replace(model, blocks=(1,) * len(model.blocks))
    images = jnp.zeros((1, *image))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    return jax.tree.map(jnp.shape, variables["params"])


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_has_distinct_cells_that_can_be_run(tmp_path, name, data):
    cells = cells_of(name, data)
    count = STUDIES[name]
    assert len(cells) == (count if isinstance(count, int) else count.get(data, count[""]))
    found = jobs(cells, tmp_path, range(2))
    assert len({job.config.run_dir for job in found}) == 2 * len(cells)
    for config in cells.values():
        assert config.data.name == data
        model = build_model(config.model, num_classes=10)
        assert parameters(model, IMAGES.get(data, (64, 64, 3)))


@pytest.mark.parametrize("data", SCENES)
@pytest.mark.parametrize("name", [*OF_ONE_NETWORK, "segmentation"])
def test_a_study_of_one_network_is_of_scenes_too(tmp_path, name, data):
    *_, options = declared(name)
    cells = cells_of(name, data)
    assert options["baseline"] in cells
    assert len(jobs(cells, tmp_path, range(2))) == 2 * len(cells)
    networks = {cell: build_model(config.model, 11) for cell, config in cells.items()}
    assert networks["plain"].attention is None
    assert len({*networks.values()}) == len(cells)
    assert {config.task for config in cells.values()} == {"segmentation"}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        *(("detection", data) for data in OBJECTS),
        ("ablate_gate", "nuclei"),
        ("ablate_stage", "bccd"),
    ],
)
def test_a_study_of_one_network_is_of_objects_too(tmp_path, name, data):
    *_, options = declared(name)
    cells = cells_of(name, data)
    assert options["baseline"] in cells
    assert len(jobs(cells, tmp_path, range(2))) == 2 * len(cells)
    networks = {cell: build_model(config.model, 11) for cell, config in cells.items()}
    assert networks["plain"].attention is None
    assert len({*networks.values()}) == len(cells)
    assert {config.task for config in cells.values()} == {"detection"}


def test_the_registered_cells_differ_in_attention_alone():
    cells = cells_of("registered_variants", "cifar10")
    assert {*cells_of("registered_gain", "cifar10")} == {"plain", "se"}
    networks = {name: build_model(config.model, 10) for name, config in cells.items()}
    assert networks["plain"].attention is None
    for stage, width in enumerate(networks["se"].widths):
        assert round(width / networks["se"].attention.reduction) == 8 * 2**stage
    for name, network in networks.items():
        assert dataclasses.replace(network, attention=None) == networks["plain"]
        assert cells[name].optimizer == cells["plain"].optimizer
        assert cells[name].data == cells["plain"].data


def test_each_stage_of_a_backbone_is_ablated():
    assert {*cells_of("ablate_stage", "ade20k")} == {
        *("plain", "all", "stage2", "stage3", "stage4", "stage5")
    }


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("depth", "scenes", "depth names its own networks, which are of classification: choose"),
        ("segmentation", "digits", "this study is of semantic segmentation: choose --data scenes"),
        ("detection", "scenes", "this study is of detection: choose --data scenes-detection, nucl"),
    ],
)
def test_a_study_of_the_other_task_is_refused(name, data, message, monkeypatch, capsys):
    title, description, cells, options = declared(name)
    monkeypatch.setattr("sys.argv", [title, "--data", data])
    assert study.main(title, description, cells, **options) == 2
    assert message in capsys.readouterr().err


RESULTS = {
    "cifar10_gates": (
        "gates_and_squeezes",
        Options(data="cifar10", model="cifar_seresnet8", epochs=10),
    ),
    "camvid_se": ("segmentation", Options(data="camvid")),
}


def without_base(optimizer):
    """The base of the rate is the batch itself, which changes nothing; older runs have none."""
    return dataclasses.replace(optimizer, base_batch=None)


@pytest.mark.parametrize("result", RESULTS)
def test_the_results_in_the_repository_are_of_their_study(result):
    study, options = RESULTS[result]
    *_, cells, _ = declared(study)
    grid = cells(recipe(options))
    folder = Path(__file__).parents[2] / "experiments" / "results" / result
    assert {path.parent.name for path in folder.glob("*/seed0")} == {*grid}
    for name, config in grid.items():
        for seed in range(3):
            run = read_config(folder / name / f"seed{seed}")
            assert build_model(run.model, 10) == build_model(config.model, 10)
            run = dataclasses.replace(run, optimizer=without_base(run.optimizer))
            expected = dataclasses.replace(
                config,
                seed=seed,
                model=run.model,
                data=dataclasses.replace(config.data, dir=run.data.dir),
                optimizer=without_base(config.optimizer),
            )
            assert run.differences(expected) == []


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_says_what_it_is(name):
    title, description, _, options = declared(name)
    # The tiers of the registered study share a folder.
    assert title == ("registered" if name.startswith("registered_") else name)
    assert name.startswith(("ablate_", "registered_")) or (
        f"python -m experiments.{name} --data imagenet2012" in description
    )
    for data in DATA:
        cells = {cell.rpartition("/")[2] for cell in cells_of(name, data)}
        assert options["baseline"] in cells


def networks(name, data):
    return {cell: build_model(config.model, 10) for cell, config in cells_of(name, data).items()}


@pytest.mark.parametrize("data", ["cifar10", "imagenet2012"])
def test_pairs_of_a_depth_differ_in_the_attention_alone(data):
    pairs = networks("depth", data)
    for cell, plain in pairs.items():
        if cell.endswith("/plain"):
            se = pairs[cell.replace("plain", "se")]
            assert plain.attention is None
            assert se.attention is not None
            assert dataclasses.replace(se, attention=None) == plain


@pytest.mark.parametrize("name", [name for name in STUDIES if name.startswith("ablate_")])
def test_the_ablations_have_biases_where_the_paper_has_them(name):
    for data in ("cifar10", "imagenet2012"):
        attentions = [model.attention for model in networks(name, data).values()]
        biases = {attention.bias for attention in attentions if attention is not None}
        assert biases == {data == "cifar10"}


def test_an_ablation_of_another_attention_leaves_it_as_it_is():
    base = recipe(Options(data="imagenet2012", model="ecaresnet26t"))
    cells = declared("ablate_squeeze")[2](base)
    assert build_model(cells["max"].model, 10).attention.squeeze == "max"


def test_a_study_does_not_write_into_a_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    for name in ("config.json", "dataset.json"):
        (tmp_path / "run" / name).write_text("{}")
    out = str(tmp_path / "run" / "digits")
    title, description, cells, options = declared("attention_zoo")
    monkeypatch.setattr("sys.argv", [title, "--out", out])
    assert study.main(title, description, cells, **options) == 2
    assert f"{tmp_path / 'run'} is the folder of a run" in capsys.readouterr().err
    assert not Path(out).exists()


def test_a_flag_that_no_study_has_is_answered_with_the_nearest(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ablate_gate", "--epcohs", "1"])
    assert study.main("ablate_gate", "", dict, "plain") == 2
    assert "unknown argument '--epcohs': did you mean --epochs" in capsys.readouterr().err


def test_the_first_argument_names_the_ablation(monkeypatch, capsys):
    script = str(Path(__file__).parents[2] / "experiments" / "ablate.py")

    def answer(*arguments):
        monkeypatch.setattr("sys.argv", [script, *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(script, run_name="__main__")
        return (end.value.code, *capsys.readouterr())

    code, said, _ = answer()
    assert code == 0
    assert all(name in said for name in ABLATIONS)
    code, _, error = answer("gaet")
    assert code == 2
    assert "did you mean gate" in error
    code, said, _ = answer("reduction", "--help")
    assert code == 0
    assert "22.29  22.25" in said
    assert "python -m experiments.ablate reduction" in said
