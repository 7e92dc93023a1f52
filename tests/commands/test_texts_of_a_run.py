"""Texts in the config of a run that no file, folder or class has in its name."""

import json

import pytest

from senet_jax.training.presets import preset
from senet_jax.training.records.run_dir import saved_config

COMMANDS = {
    "report": ("--out", "out"),
    "evaluate": (),
    "predict": ("--run",),
    "average": ("--out", "out.npz"),
    "checkpoints": (),
    "convert": ("--out", "out.npz"),
}
TEXTS = {"a\0b": r"'a\x00b' holds a NUL character.", "\ud800": r"'\ud800' holds half a surrogate"}
FIELDS = ("data.dir", "data.name", "checkpoint.dir", "init_weights", "model.name")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that has made no step."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "study" / "run"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(saved_config(preset("cifar10"))))
    return run


def arguments_of(command, run):
    first = ("image.png",) if command == "predict" else ()
    named = (*COMMANDS[command], run) if command == "predict" else (run, *COMMANDS[command])
    return command, *first, *named


@pytest.mark.parametrize("text", TEXTS, ids=["NUL", "surrogate"])
@pytest.mark.parametrize("name", COMMANDS)
def test_one_in_the_config_is_one_sentence(refused, run, name, text):
    file = run / "config.json"
    whole = file.read_text()
    for field in FIELDS:
        values = json.loads(whole)
        *path, last = field.split(".")
        inner = values[path[0]] if path else values
        inner[last] = text
        file.write_text(json.dumps(values))
        said = refused(*arguments_of(name, run))
        assert "config.json cannot be read as the config of a run: the text " in said
        assert TEXTS[text] in said
