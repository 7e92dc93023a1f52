import contextlib
import io
import re

import pytest
import tyro

from senet_jax import cli
from senet_jax.command_line import study
from senet_jax.command_line.flags import read_config
from senet_jax.command_line.help_pages import Description, asked_topic, groups_of
from senet_jax.command_line.invocation import Invocation
from senet_jax.command_line.parsers import command_parser
from senet_jax.commands import table
from senet_jax.commands.show_data import ShowDataConfig
from senet_jax.config import TrainConfig
from senet_jax.errors import UsageError

ARGPARSE = sorted({*table.SUMMARIES} - {*table.CONFIG_COMMANDS})


@pytest.fixture(autouse=True)
def columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def page(capsys, *arguments):
    """The help that a command prints."""
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "")
    return out


def flags(text):
    """The flags that begin a line of a page."""
    return {
        flag for line in text.splitlines() for flag in re.findall(r"^ {2}(--[a-z][\w.-]*)", line)
    }


@pytest.mark.parametrize(
    "arguments", [[], *([command] for command in table.SUMMARIES), ["train", "imagenet-senet"]]
)
def test_the_first_page_fits_a_screen(capsys, arguments):
    lines = page(capsys, *arguments, "--help").splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("command", ARGPARSE)
def test_the_page_of_all_has_every_flag(capsys, command):
    shown = set(re.findall(r"--[\w-]+", page(capsys, command, "--help", "all")))
    parser = command_parser(command, "", table.command(command))
    known = {flag for action in parser._actions for flag in action.option_strings}
    assert known - {"-h"} <= shown


@pytest.mark.parametrize("config", [Invocation(TrainConfig()), ShowDataConfig(), study.Options()])
def test_the_flags_in_help_are_those_that_tyro_reads(config):
    told = io.StringIO()
    with contextlib.redirect_stdout(told), pytest.raises(SystemExit):
        tyro.cli(type(config), default=config, args=["--help"], console_outputs=True)
    boxes = re.sub(r"^│ ", "  ", told.getvalue(), flags=re.M)
    groups = groups_of(config)
    mine = [flag.name for group in groups.values() for flag in group.flags]
    assert len(mine) == len(set(mine))
    assert set(mine) == flags(boxes)
    assert all(group.about for group in groups.values())


def test_a_group_has_its_flags_and_the_values_of_the_preset(capsys):
    told = page(capsys, "train", "cifar10", "--help", "optimizer")
    own = {f"--optimizer.{name}" for name in ("name", "schedule", "clip-norm", "nesterov")}
    assert own <= flags(told)
    assert all(flag.startswith("--optimizer.") for flag in flags(told))
    assert re.search(r"--optimizer.schedule .*\n.*\n.*\(default: step\)", told)
    assert "--optimizer.nesterov, --optimizer.no-nesterov" in told


def test_the_text_of_a_group_follows_its_flags(capsys):
    told = page(capsys, "train", "--help", "hosts")
    assert told.index("--hosts.count") < told.index("Several hosts train together")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--help", "presets"], "scenes-detection       8"),
        (["train", "--epochs", "3", "--help=examples"], "--drop-head --frozen"),
        (["evaluate", "--help", "segmentation"], "--own-sizes "),
        (["predict", "-h", "weights"], "--normalization "),
        (["excitation", "--help", "views"], "--crop-pct "),
    ],
)
def test_a_topic_is_a_page(capsys, arguments, told):
    assert told in page(capsys, *arguments)


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_an_unknown_topic_is_refused(capsys, command):
    assert cli.main([command, "--help", "exampels"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "senet-jax: error: unknown topic of --help 'exampels': did you mean exam"
    )


@pytest.mark.parametrize(
    ("arguments", "topic"),
    [
        ([], None),
        (["--helper", "model"], None),
        (["-h"], ""),
        (["demo", "--help", "--epochs"], ""),
        (["--help", "model"], "model"),
        (["--help=model"], "model"),
    ],
)
def test_the_topic_is_the_word_after_help(arguments, topic):
    assert asked_topic(arguments) == topic


def test_a_program_without_groups_has_one_page(capsys):
    from tests.commands.test_wrong_flags import Inner

    with pytest.raises(SystemExit):
        read_config("prog", "FILE", Description("A program."), Inner(), ["--help"])
    told = capsys.readouterr().out
    assert told == (
        "usage: prog FILE [FLAGS]\n\nA program.\n\nflags:\n"
        "  --batch-size INT                  (default: 1)\n"
        "  --area FLOAT FLOAT                Two numbers (default: 0.0 1.0)\n"
    )
    with pytest.raises(UsageError, match="unknown topic of --help"):
        read_config("prog", "FILE", Description("A program."), Inner(), ["--help", "slurm"])


def test_the_version_is_that_of_the_package(capsys):
    assert re.fullmatch(
        r"senet-jax \d+\.\d+\.\d+ \(jax [\d.]+, flax [\d.]+\)\n", page(capsys, "--version")
    )
