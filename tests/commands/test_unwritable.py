"""Places that cannot be written: found before the work, and what was computed is printed."""

import errno
import os
import types

import numpy as np
import pytest

from senet_jax.commands import evaluate
from senet_jax.inference.tally import Tally


@pytest.fixture
def no_work(monkeypatch):
    """Fails where a command begins the work whose result it will write."""

    def begun(*arguments, **more):
        raise AssertionError("the work began before the target was checked")

    for place in (
        "senet_jax.commands.convert.read_source",
        "senet_jax.commands.export.read_source",
        "senet_jax.commands.evaluate.open_networks",
        "senet_jax.commands.excitation.open_networks",
        "senet_jax.inference.average.average_checkpoints",
        "senet_jax.training.run.Run",
    ):
        monkeypatch.setattr(place, begun)


FILES = {
    "convert": ("convert", "w.npz", "--model", "tiny", "--out"),
    "export": ("export", "w.npz", "--model", "tiny", "--format", "npz", "--out"),
    "export onnx": ("export", "w.npz", "--model", "tiny", "--format", "onnx", "--out"),
    "evaluate": ("evaluate", "run", "--per-class"),
    "average": ("average", "run", "--out"),
    "show-data": ("show-data", "digits", "--out"),
}


@pytest.mark.parametrize("arguments", FILES.values(), ids=FILES)
def test_a_file_is_checked_before_the_work(refused, no_work, tmp_path, arguments):
    suffix = ".png" if arguments[0] == "show-data" else ".npz"
    (tmp_path / f"folder{suffix}").mkdir()
    os.mkfifo(tmp_path / f"fifo{suffix}")
    (tmp_path / "file").write_text("old")
    for name, reason in (
        ("folder", "is a folder: give the name of a file."),
        ("fifo", "is no regular file and is not replaced"),
        ("file/x", "file"),
        ("n" * 300, "too long for the name of a file"),
    ):
        assert reason in refused(*arguments, tmp_path / f"{name}{suffix}")
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_is_checked_before_the_work(refused, no_work, tmp_path):
    (tmp_path / "file").write_text("old")
    for name, reason in (
        ("file", "file is no folder: give another name."),
        ("file/new", "file is no folder: give another name."),
        ("new/" + "n" * 300, "too long for the name of a file"),
    ):
        assert reason in refused("excitation", "run", "--out", tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_files_of_a_folder_are_checked_too(refused, no_work, tmp_path):
    (tmp_path / "gates.png").mkdir()
    assert "gates.png is a folder" in refused("excitation", "run", "--out", tmp_path)


@pytest.fixture
def full_disk(monkeypatch):
    """From now on every write fails as on a full disk, at its end."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def begin():
        monkeypatch.setattr("senet_jax.files.os.fsync", full)

    return begin


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["lines", "json"])
def test_evaluate_prints_before_it_writes(command, tmp_path, monkeypatch, full_disk, form):
    classes = ["a", "b"]
    network = types.SimpleNamespace(
        name="it", step=3, card=types.SimpleNamespace(classes=classes), member=lambda **_: None
    )
    dataset = types.SimpleNamespace(name="letters", classes=classes)
    tally = Tally(2)
    tally.add(np.log([[0.75, 0.25], [0.75, 0.25]]), np.array([[0], [1]]))
    monkeypatch.setattr(evaluate, "open_networks", lambda *_: ([network], dataset))
    monkeypatch.setattr(evaluate, "_count", lambda *_: (tally, []))
    monkeypatch.setattr("senet_jax.inference.ensemble.Ensemble", lambda *_: None)
    full_disk()
    code, out, err = command("evaluate", "run", "--per-class", tmp_path / "c.csv", *form)
    assert code == 2
    assert (
        err == f"senet-jax: error: {tmp_path}/c.csv cannot be written: No space left on device.\n"
    )
    assert ('"val/top1": 0.5' if form else "step 3: top-1 50.00% (1 of 2") in out
    assert form or "worst classes:" in out
    assert not any(tmp_path.iterdir())


def test_excitation_prints_before_it_writes(command, digits, tmp_path, full_disk):
    (tmp_path / "removal.csv").write_text("of an earlier look")
    full_disk()
    code, out, err = command("excitation", digits, "--limit", 40, "--out", tmp_path)
    assert code == 2
    assert "report.md cannot be written: No space left on device." in err
    assert "Gates of 40 images" in out
    assert [path.name for path in tmp_path.iterdir()] == ["removal.csv"]


def test_a_picture_is_drawn_whole_or_not_at_all(command, tmp_path, full_disk):
    (tmp_path / "a.png").write_bytes(b"an older picture")
    full_disk()
    code, _, err = command("show-data", "digits", "--images", 1, "--out", tmp_path / "a.png")
    assert code == 2
    assert "a.png cannot be written: No space left on device." in err
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        ("a.png", b"an older picture")
    ]
