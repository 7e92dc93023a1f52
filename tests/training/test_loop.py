import dataclasses
import json
import math
import os
import signal
from io import BytesIO

import jax
import numpy as np
import pytest
from PIL import Image

from senet_jax.config import OptimizerConfig
from senet_jax.errors import UsageError
from senet_jax.models import zoo
from senet_jax.models.vgg import VGG
from senet_jax.training import loop
from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.loop import Diverged, Preempted, train
from senet_jax.training.records.metrics import read_metrics
from senet_jax.training.run import Run
from tests.evaluated_run import evaluate_run

pytestmark = pytest.mark.usefixtures("shared_programs")


class Killed(BaseException):
    """Ends a run where it stands, as SIGKILL would: nothing is caught, nothing finished."""


def outcome(config):
    checkpoints = Checkpoints(config.run_dir / "checkpoints")
    step = checkpoints.steps()[-1]
    state = checkpoints.restore(step, loop.Run(config).abstract).state
    lines = [
        {key: value for key, value in line.items() if not key.startswith("time/")}
        for line in read_metrics(config.run_dir)
    ]
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)], lines


def at_step(wanted, action):
    """A hook that calls ``action`` when a run has dispatched its ``wanted``-th step."""

    def hook(step):
        if step == wanted:
            action()

    return hook


def test_a_network_without_batch_norm_trains_and_is_restored(tiny, monkeypatch):
    fields = {"blocks": (1,), "widths": (4,), "fc_width": 8}
    monkeypatch.setitem(zoo.ZOO, "tiny", zoo.ZooEntry(VGG, fields, 8))
    last = train(dataclasses.replace(tiny, epochs=1))
    _, restored = evaluate_run(tiny.run_dir)
    assert restored["val/top1"] == last["val/top1"]
    assert restored["val/loss"] == pytest.approx(last["val/loss"], rel=1e-5)


def test_a_run_builds_its_network_once(tiny, monkeypatch):
    built, build = [], zoo.ZooEntry.build

    def count(entry, **fields):
        built.append(fields["num_classes"])
        return build(entry, **fields)

    monkeypatch.setattr(zoo.ZooEntry, "build", count)
    Run(tiny).fresh_state()
    assert built == [10]


def test_a_run_leaves_what_the_readme_says(tiny):
    last = train(tiny)
    values = tiny.to_json()
    del values["run_dir"]
    assert json.loads((tiny.run_dir / "config.json").read_text()) == values
    lines = read_metrics(tiny.run_dir)
    assert lines[-1] == last
    assert {"step", "epoch", "train/loss", "train/top1", "val/loss", "val/top1"} <= last.keys()
    assert last["val/count"] == 360
    # 14 steps an epoch, a line every 4 steps and at each end of an epoch.
    assert [line["step"] for line in lines] == [4, 8, 12, 14, 16, 20, 24, 28]
    assert [line["step"] for line in lines if "val/top1" in line] == [14, 28]
    assert last["epoch"] == 2
    assert 0 <= last["train/top1"] <= 1
    assert any((tiny.run_dir / "tensorboard").iterdir())
    steps = Checkpoints(tiny.run_dir / "checkpoints").steps()
    assert steps[-2:] == [25, 28]


def test_the_lines_mean_what_they_say(tiny, finished):
    run = loop.Run(tiny)
    state, losses = run.fresh_state(), []
    for step in range(4):
        batch = loop.meshes.to_devices(run.batches[step][0], run.mesh)
        state, metrics = run.train_step(state, batch)
        losses.append(float(metrics["loss"]))
    first = read_metrics(finished.run_dir)[0]
    assert first["train/loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    assert first["train/learning_rate"] == pytest.approx(float(run.schedule(3)))


@pytest.mark.parametrize("wanted", [1, 7, 14, 23])
def test_a_killed_run_ends_as_if_nothing_had_happened(tiny, finished, wanted):
    def kill():
        raise Killed

    with pytest.raises(Killed):
        train(tiny, on_step=at_step(wanted, kill))
    train(tiny)
    expected, expected_lines = outcome(finished)
    state, lines = outcome(tiny)
    assert lines == expected_lines
    assert state == expected


@pytest.fixture
def long_recipe(tiny):
    """All that changes from step to step: a plateau, an average, DropBlock, stochastic depth."""
    return dataclasses.replace(
        tiny,
        epochs=4,
        model=dataclasses.replace(tiny.model, drop_block=0.1, stochastic_depth=0.1),
        optimizer=OptimizerConfig(
            learning_rate=2.0, base_batch=96, schedule="plateau", patience=1, max_drops=2
        ),
    )


@pytest.mark.slow
def test_the_rate_drops_on_a_plateau_in_a_killed_run_too(long_recipe, tmp_path):
    whole = dataclasses.replace(long_recipe, run_dir=tmp_path / "whole")
    train(whole)
    lines = read_metrics(whole.run_dir)
    rate, best, expected = 2.0, math.inf, []
    for line in lines:
        expected.append(rate)
        if "val/loss" in line:
            fell = line["val/loss"] < best * (1 - 1e-4)
            best = line["val/loss"] if fell else best
            rate = rate if fell else max(rate / 10, 0.02)
    assert min(expected) < 2.0
    assert [line["train/learning_rate"] for line in lines] == pytest.approx(expected)

    def kill():
        raise Killed

    with pytest.raises(Killed):
        train(long_recipe, on_step=at_step(30, kill))
    train(long_recipe)
    assert outcome(long_recipe) == outcome(whole)


def test_nothing_compiles_after_the_first_epoch(long_recipe):
    # 360 images in batches of 200: the last is padded.
    lowered, after = [], []

    def count(event, duration, **kwargs):
        # Comes with every compilation, one that the cache on disk spares too.
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            lowered.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        recipe = dataclasses.replace(long_recipe, epochs=3)
        train(recipe, on_step=lambda step: after.append(len(lowered)))
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    # The second step of an epoch comes after the validation and the checkpoint of the one before.
    assert after[0] > 0
    assert after[15] == after[-1]


def test_the_images_of_the_first_batch_are_shown(finished):
    (file,) = (finished.run_dir / "tensorboard").iterdir()
    content = file.read_bytes()
    assert content.count(b"train/images") == 1
    png = content[content.index(b"\x89PNG") :]
    # Sixteen digits of 8x8 pixels, eight in a row.
    assert Image.open(BytesIO(png)).size == (64, 16)


def test_sigterm_saves_and_the_run_goes_on_from_there(tiny, finished):
    stop = at_step(9, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Preempted, match="after step 9"):
        train(tiny, on_step=stop)
    assert Checkpoints(tiny.run_dir / "checkpoints").steps()[-1] == 9
    train(tiny)
    assert outcome(tiny) == outcome(finished)


@pytest.mark.usefixtures("tiny")
def test_a_finished_run_is_not_run_again(finished, monkeypatch):
    monkeypatch.setattr(loop, "_Loop", lambda *_: pytest.fail("a step was made"))
    assert train(finished) == read_metrics(finished.run_dir)[-1]


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(tiny):
    optimizer = dataclasses.replace(tiny.optimizer, learning_rate=1e30, warmup_epochs=0)
    config = dataclasses.replace(
        tiny,
        optimizer=optimizer,
        checkpoint=dataclasses.replace(tiny.checkpoint, every_steps=1),
    )
    with pytest.raises(Diverged, match=r"not finite at step \d+: try a lower --optimizer"):
        train(config)
    # The checkpoints that were saved before can be read, and are finite.
    checkpoints = Checkpoints(config.run_dir / "checkpoints")
    for step in checkpoints.steps():
        state = checkpoints.restore(step, loop.Run(config).abstract).state
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.usefixtures("tiny")
def test_evaluating_a_run_gives_its_own_numbers(finished):
    last = read_metrics(finished.run_dir)[-1]
    step, result = evaluate_run(finished.run_dir)
    assert step == 28
    assert result["val/top1"] == last["val/top1"]
    assert result["val/loss"] == pytest.approx(last["val/loss"], rel=1e-6)
    best = max(
        (line for line in read_metrics(finished.run_dir) if "val/top1" in line),
        key=lambda line: line["val/top1"],
    )
    step, result = evaluate_run(finished.run_dir, "best")
    assert result["val/top1"] == best["val/top1"]
    assert evaluate_run(finished.run_dir / "checkpoints" / str(step)) == (step, result)
    with pytest.raises(UsageError, match="no checkpoint 3"):
        evaluate_run(finished.run_dir / "checkpoints" / "3")


def test_evaluating_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not the folder of a run, which has a config"):
        evaluate_run(tmp_path)


@pytest.mark.usefixtures("tiny")
def test_another_config_in_the_folder_is_refused_with_the_fields(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.run_dir.rglob("*")}
    with pytest.raises(UsageError, match="differs in epochs: 3, not 2; seed: 1, not 0"):
        train(dataclasses.replace(finished, epochs=3, seed=1))
    assert {path: path.stat().st_mtime_ns for path in finished.run_dir.rglob("*")} == before


def test_a_folder_of_other_things_is_refused(tiny):
    tiny.run_dir.mkdir()
    (tiny.run_dir / "thesis.tex").write_text("all of it")
    with pytest.raises(UsageError, match="not the folder of a run"):
        train(tiny)
    assert [path.name for path in tiny.run_dir.iterdir()] == ["thesis.tex"]


def test_a_run_killed_while_writing_its_config_starts_again(tiny):
    tiny.run_dir.mkdir()
    (tiny.run_dir / "config.json.partial").write_text('{"epo')
    assert train(tiny)["epoch"] == 2
    assert not (tiny.run_dir / "config.json.partial").exists()


def test_a_folder_that_cannot_be_made_is_refused(tiny, tmp_path):
    (tmp_path / "file").write_text("no folder")
    config = dataclasses.replace(tiny, run_dir=tmp_path / "file" / "run")
    with pytest.raises(UsageError, match="cannot be written"):
        train(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mesh": {"data": 5}}, "cannot be divided over 5 devices"),
        ({"mesh": {"data": 3, "fsdp": 3}}, "needs 9 devices, but there are 8"),
        ({"data": {"batch_size": 2000}}, "larger than the 1437 training images"),
        ({"data": {"name": "digit"}}, "did you mean digits"),
        ({"model": {"name": "tinny"}}, "did you mean tiny"),
    ],
)
def test_a_wrong_config_is_refused_before_anything_is_written(tiny, change, message):
    for field, value in change.items():
        if isinstance(value, dict):
            change[field] = dataclasses.replace(getattr(tiny, field), **value)
    with pytest.raises(UsageError, match=message):
        train(dataclasses.replace(tiny, **change))
    assert not tiny.run_dir.exists()
