"""The script that trains by the recipes for ImageNet."""

import dataclasses
import os
import subprocess
import sys

import pytest

from experiments import imagenet
from experiments.imagenet import RECIPES
from senet_jax.config import ModelConfig
from senet_jax.errors import ExitCode
from senet_jax.training import loop
from senet_jax.training.presets import PRESETS, preset


def test_every_large_preset_is_a_recipe_and_told():
    large = {name for name in PRESETS if name.startswith(("imagenet", "places365"))}
    assert {*RECIPES.values()} == large
    assert all(name in imagenet.__doc__ for name in RECIPES)


def command_line(monkeypatch, *arguments):
    """The config that a command trains, and its exit code."""
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
    recipe = preset("imagenet-senet")
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


def test_help_ends_in_silence_if_nobody_reads_it():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, imagenet.__file__, "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (ExitCode.READER_GONE, "")
