"""A message names no flag that the command which shows it does not have."""

import ast
import re
from pathlib import Path

import pytest

import senet_jax
from senet_jax.command_line import study
from senet_jax.command_line.invocation import Invocation
from senet_jax.command_line.parsers import command_parser
from senet_jax.commands import table
from senet_jax.commands.show_data import ShowDataConfig
from senet_jax.config import TrainConfig, field_values

PACKAGE = Path(senet_jax.__file__).parent
SHARED = {
    # Modules whose messages several commands show, and those commands.
    "command_line/networks.py": ("evaluate", "excitation", "predict", "convert", "export"),
    "command_line/source.py": ("convert", "export"),
    "command_line/study.py": ("study",),
    "interchange/files.py": ("convert", "export", "evaluate", "predict", "excitation", "train"),
    "interchange/state_dict.py": ("convert", "export", "evaluate", "predict", "train"),
    "interchange/torch.py": ("convert", "export", "evaluate", "predict", "excitation", "train"),
    "interchange/weights.py": ("convert", "export", "evaluate", "predict", "excitation", "train"),
    "analysis/gates/sites.py": ("excitation",),
    "analysis/study/cells.py": ("report",),
    "data/loader.py": ("evaluate", "predict", "excitation", "average", "train"),
    "data/build/prepare.py": ("prepare",),
    "data/workers.py": ("evaluate", "predict", "excitation", "train"),
    "inference/average.py": ("average",),
    "inference/ensemble.py": ("evaluate", "predict", "excitation"),
    "training/distributed/mesh.py": ("evaluate", "predict", "excitation", "average", "train"),
    "inference/trained.py": ("evaluate", "predict", "excitation", "average", "convert", "export"),
}
ELSEWHERE = {
    # Flags of `open_networks`, which `convert`, `export` and `predict` do not call, and of views
    # and crops, which `excitation` does not have.
    "command_line/networks.py": {
        *("--weights", "--data", "--data-dir", "--model"),
        *("--sizes", "--image-size", "--views", "--crop-size"),
    },
    # `--drop-head` is named only if the command has it: see test_weights_in_commands.py.
    "command_line/source.py": {"--drop-head"},
    # `--slurm.*` stands for all flags of a group.
    "command_line/study.py": {"--slurm"},
}


def flags_of(command):
    """The flags of a command, or of a study."""
    configs = {
        "train": Invocation(TrainConfig()),
        "show-data": ShowDataConfig(),
        "study": study.Options(),
    }
    config = configs.get(command)
    if config is not None:
        names = (name.removeprefix("config.") for name in field_values(config))
        return {f"--{name.replace('_', '-')}" for name in names}
    parser = command_parser(command, "", table.command(command))
    return {flag for action in parser._actions for flag in action.option_strings}


def named_flags(module):
    """The flags that the messages of a module name, without command lines in backticks."""
    named = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Raise) or called.endswith((".warning", ".advise", "UsageError")):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    text = re.sub(r"`[^`]*`", "", part.value)
                    named |= {*re.findall(r"--[a-z][a-z.-]*[a-z]", text)}
    return named


def modules():
    own = {f"commands/{name.replace('-', '_')}.py": (name,) for name in table.SUMMARIES}
    return own | SHARED


@pytest.mark.parametrize("module", modules())
def test_a_command_has_the_flags_that_it_names(module):
    for command in modules()[module]:
        missing = named_flags(module) - flags_of(command) - ELSEWHERE.get(module, set())
        assert not missing, f"{command} does not have {missing}"


def test_messages_and_flags_are_found():
    assert named_flags("commands/excitation.py") >= {"--weights", "--grad-cam", "--data"}
    assert {"--weights-of", "--per-class"} <= flags_of("evaluate")
    assert {"--weights-of", "--data.batch-size", "--hosts.count"} <= flags_of("train")


def test_every_flag_of_a_message_is_one_of_some_command():
    known = {"--help", "--slurm"}.union(flags_of("study"), *map(flags_of, table.SUMMARIES))
    for file in PACKAGE.rglob("*.py"):
        module = file.relative_to(PACKAGE).as_posix()
        named = named_flags(module) - {"--ntasks-per-node"}
        assert named <= known, f"{module} names {named - known}"
