import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from experiments import imagenet
from senet_jax import cli
from senet_jax.command_line import study
from senet_jax.command_line.flags import read_config
from senet_jax.command_line.help_pages import Description
from senet_jax.commands.table import CONFIG_COMMANDS, SUMMARIES
from senet_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Inner:
    """A config in a config."""

    batch_size: int = 1
    area: tuple[float, float] = (0.0, 1.0)
    """Two numbers."""


@dataclasses.dataclass(frozen=True)
class Outer:
    """A config."""

    epochs: int = 1
    name: Literal["sgd", "adamw"] = "sgd"
    rate: float = 0.1
    width: int | None = None
    sizes: tuple[int, ...] | None = None
    keep: bool | None = None
    out: Path | None = None
    fast: bool = False
    inner: Inner = Inner()


def refused(*arguments):
    with pytest.raises(UsageError) as error:
        read_config("prog", "", Description("A program."), Outer(), list(arguments))
    return str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "three"], "--epochs must be a whole number, not 'three'."),
        (["--epochs=1.5"], "--epochs must be a whole number, not '1.5'."),
        (["--epochs"], "--epochs needs a value, a whole number."),
        (["--name", "sdg"], "--name must be one of sgd, adamw, not 'sdg'."),
        (["--rate", "a"], "--rate must be a number, not 'a'."),
        (["--width", "x"], "--width must be a whole number or None, not 'x'."),
        (["--sizes", "1", "x"], "--sizes must be whole numbers or None, not '1 x'."),
        (["--keep", "yes"], "--keep must be True or False or None, not 'yes'."),
        (["--inner.area", "1"], "--inner.area must be 2 numbers, not '1'."),
        (["--inner.batch_size", "x"], "--inner.batch-size must be a whole number, not 'x'."),
        (["--epochs", "1", "--rate", "x"], "--rate must be a number, not 'x'."),
        (["--epochs", "1", "--epochs", "x"], "--epochs must be a whole number, not 'x'."),
        (["--rate", "\x1b[2J"], r"--rate must be a number, not '\\x1b[2J'."),
        (["--out"], "--out needs a value, a text or None."),
    ],
)
def test_a_wrong_value_is_one_sentence(arguments, message, capsys):
    assert refused(*arguments) == message
    assert capsys.readouterr() == ("", "")


def test_a_long_value_is_cut():
    assert len(refused("--epochs", "9" * 5000)) < 150


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--epoch", "did you mean --epochs"),
        ("--batch-size", "did you mean --inner.batch-size"),
        ("--inner.bach-size", "did you mean --inner.batch-size"),
        ("--area", "did you mean --inner.area"),
        ("--epochz=3", "unknown argument '--epochz': did you mean --epochs"),
        ("stray", "unknown argument 'stray', where a flag is expected"),
        ("--q", "unknown argument '--q'"),
        ("--\x1b", r"unknown argument '--\\x1b'"),
    ],
)
def test_an_unknown_flag_names_three_and_how_to_list_all(argument, hint):
    said = refused(argument)
    assert hint in said
    assert said.endswith("`prog --help all` lists all.")
    assert said.count("--") <= 1 + 3 + 1


def answer(capsys, main, *arguments):
    code = main(*arguments)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert len(err) < 300
    return err


@pytest.mark.parametrize("command", sorted({*SUMMARIES} - {*CONFIG_COMMANDS}))
def test_an_unknown_flag_of_every_command(command, capsys):
    said = answer(
        capsys, cli.main, [command, "x", "--no-such-flag", "--format", "npz", "--out", "x"]
    )
    assert "unknown argument" in said or "expected" in said
    assert f"`senet-jax {command} --help" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--vews", "center"], "did you mean --views"),
        (["evaluate", "--views", "centre"], "invalid choice: 'centre'"),
        (["predict"], "are required: image; see `senet-jax predict --help`"),
        (["predict", "x", "--top", "x"], "argument --top: "),
        (["models", "a", "b"], "unknown argument 'b'"),
        (
            ["models", "--image-size", "0"],
            "'--image-size': `senet-jax models --help all` lists all.",
        ),
        (["models", "--jsn"], "'--jsn': did you mean --json or --markdown?"),
        (["evaluat"], "unknown command 'evaluat': did you mean evaluate?"),
        (["\x1b"], r"unknown command '\x1b'"),
        ([], "are required: COMMAND; see `senet-jax --help`"),
        (["--zzz"], "are required: COMMAND"),
        (["train", "demo", "--gate", "tanh"], "did you mean --model.attention.gate"),
        (["train", "demo", "stray"], "unknown argument 'stray'"),
        (["train", "demo", "--hosts.count", "two"], "--hosts.count must be a whole number or None"),
        (["train", "demo", "--optimizer.rate", "1"], "did you mean --optimizer.learning-rate"),
        (["show-data", "demo", "--stp", "1"], "did you mean --step"),
        (["show-data", "demo", "--step", "x"], "--step must be a whole number, not 'x'"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, message, capsys):
    assert message in answer(capsys, cli.main, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epoch", "3"], "did you mean --epochs"),
        (["--seeds", "many"], "--seeds must be a whole number, not 'many'"),
        (
            ["--data", "mnist"],
            "--data must be one of digits, cifar10, cifar100, imagenet2012, scenes, camvid",
        ),
        (["--slurm.gpu", "1"], "did you mean --slurm.gpus"),
    ],
)
def test_a_wrong_flag_of_a_study_is_one_line(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", *arguments])

    def main():
        return study.main("depth", "What it does.", lambda config: {}, "plain")

    assert message in answer(capsys, main)


def test_a_wrong_flag_of_a_recipe_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "senet", "--batch-size", "3"])
    said = answer(capsys, imagenet.main)
    assert "did you mean --data.batch-size" in said
    assert "`python experiments/imagenet.py senet --help all` lists all" in said
