"""The recipes as they are resolved.

After a wanted change, renew what is compared with: ``python -m tests.experiments.test_imagenet``.
"""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments import imagenet
from experiments.imagenet import RECIPES
from senet_jax.config import ModelConfig, TrainConfig
from senet_jax.models.configured import build_model
from senet_jax.training import loop
from senet_jax.training.optimizer import make_schedule, scaled_to

GOLDENS = Path(__file__).with_name("recipes")


def text(name):
    return json.dumps(RECIPES[name].to_json(), indent=2) + "\n"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_it_was(name):
    assert text(name) == (GOLDENS / f"{name}.json").read_text()


def test_there_is_no_snapshot_without_a_recipe():
    assert {path.stem for path in GOLDENS.iterdir()} == {*RECIPES}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_run(name):
    recipe = RECIPES[name]
    recipe.validate()
    assert TrainConfig.from_json(json.loads(text(name))) == recipe
    build_model(recipe.model, num_classes=1000)
    assert name in imagenet.__doc__


def rate(name, epoch, batch_size=None):
    """The learning rate of an epoch, of ten steps each."""
    recipe = RECIPES[name]
    optimizer = scaled_to(recipe.optimizer, batch_size or recipe.data.batch_size)
    return float(make_schedule(optimizer, 10, recipe.epochs)(10 * epoch))


def test_the_rates_are_those_of_the_papers():
    # SENet, section 5.1.
    assert [rate("senet", epoch) for epoch in (0, 29, 30, 60, 99)] == pytest.approx(
        [0.6, 0.6, 0.06, 0.006, 0.0006]
    )
    assert rate("senet", 0, 256) == pytest.approx(0.15)
    # ResNeSt, section 4: 0.1 for 256 images, five epochs of warm-up.
    assert [rate("resnest", epoch) for epoch in (0, 5, 270)] == pytest.approx([0, 3.2, 0], abs=1e-6)
    assert rate("mobile", 399) == pytest.approx(0.1)


def test_stages_of_progressive_resolution_divide_the_epochs():
    recipe = RECIPES["short"]
    assert recipe.epochs % len(recipe.data.train_sizes) == 0


def command_line(monkeypatch, *arguments):
    """What is trained by a command, and its exit code."""
    trained = []

    class Stop(loop.Preempted):
        """The run ends where it would begin."""

    def train(config, **how):
        trained.append(config)
        raise Stop

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr("sys.argv", ["imagenet.py", *arguments])
    return imagenet.main(), trained


def test_flags_change_the_fields_of_a_recipe(monkeypatch):
    code, (config,) = command_line(
        monkeypatch, "senet", "--model.name", "seresnet18", "--data.batch-size", "32"
    )
    recipe = RECIPES["senet"]
    assert code == 75
    assert config == dataclasses.replace(
        recipe,
        model=ModelConfig(name="seresnet18"),
        data=dataclasses.replace(recipe.data, batch_size=32),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnst"], "did you mean resnest"),
        (["senet", "--model.drop-blok", "0.1"], "did you mean --model.drop-block"),
    ],
)
def test_what_is_misspelt_is_said(monkeypatch, capsys, arguments, message):
    assert command_line(monkeypatch, *arguments) == (2, [])
    assert message in capsys.readouterr().err


if __name__ == "__main__":
    for name in RECIPES:
        (GOLDENS / f"{name}.json").write_text(text(name))
