"""The folder of a run, its checkpoints and its data: whose they are, and nothing is lost."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from senet_jax.analysis.run_report import report_run
from senet_jax.config import CheckpointConfig, TrainConfig
from senet_jax.data.card import Card
from senet_jax.data.config import DataConfig
from senet_jax.data.datasets import open_dataset
from senet_jax.errors import UsageError
from senet_jax.models import zoo
from senet_jax.tasks import classification
from senet_jax.training import loop
from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.loop import train
from senet_jax.training.records.lock import folder_lock
from senet_jax.training.records.metrics import MetricsLog, read_metrics
from senet_jax.training.records.run_dir import (
    check_data,
    check_run_dir,
    claim_run_dir,
    note_saved,
    read_config,
)
from senet_jax.training.run import Run
from tests.evaluated_run import evaluate_run
from tests.tiny_runs import TINY, tiny_config

pytestmark = pytest.mark.usefixtures("shared_programs")

RESULTS = Path(__file__).parents[3] / "experiments" / "results"


def changed(config, **fields):
    """A config with fields of its parts changed: ``changed(config, data={"workers": 2})``."""
    return dataclasses.replace(
        config,
        **{
            name: dataclasses.replace(getattr(config, name), **value)
            if isinstance(value, dict)
            else value
            for name, value in fields.items()
        },
    )


def snapshot(folder):
    """Content of every file of a folder, but the lock's, which names the last process."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if path.name != ".lock"}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A run of one epoch whose checkpoints lie in a folder of their own."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.ZOO, "tiny", TINY)
        train(apart(tiny_config(folder / "run")))
    return folder


def apart(config):
    """A config with one epoch and its checkpoints beside the folder of the run."""
    return changed(config, epochs=1, checkpoint={"dir": str(config.run_dir.parent / "checkpoints")})


@pytest.fixture
def trained(template, tiny, tmp_path):
    """A copy of the run, as if it had been trained where the copy lies."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    names = ["run/config.json", "checkpoints/run.json"]
    names += [f"checkpoints/{step}/meta/metadata" for step in (5, 10, 14)]
    for name in names:
        if (file := tmp_path / name).exists():
            file.write_text(file.read_text().replace(str(template), str(tmp_path)))
    return apart(tiny)


def test_a_second_run_in_a_checkpoint_folder_is_refused(trained, tmp_path):
    before = snapshot(tmp_path)
    other = dataclasses.replace(trained, run_dir=tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match=r"holds the checkpoints of the run in \S+/run: give"):
        train(other)
    # With the same config, too: two runs would delete each other's checkpoints.
    with pytest.raises(UsageError, match="holds the checkpoints of the run in"):
        train(dataclasses.replace(trained, run_dir=tmp_path / "other"))
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "other").exists()
    # The first run was moved away: its checkpoints still are of another config.
    trained.run_dir.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match=r"another run, which differs in seed: 1, not 0"):
        train(other)


def test_the_checkpoints_of_another_run_are_not_evaluated(trained, tmp_path):
    file = trained.run_dir / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "seed": 5}))
    with pytest.raises(UsageError, match=r"another run, which differs in seed: 5, not 0: those of"):
        evaluate_run(trained.run_dir)


def test_the_default_checkpoint_folder_of_another_run_is_refused(tiny, tmp_path):
    train(dataclasses.replace(tiny, epochs=1))
    inside = changed(tiny, epochs=1, checkpoint={"dir": str(tiny.run_dir / "checkpoints")})
    with pytest.raises(UsageError, match="holds the checkpoints of the run in"):
        train(dataclasses.replace(inside, run_dir=tmp_path / "other"))


def test_a_checkpoint_folder_in_use_is_refused(trained, tmp_path):
    with (
        folder_lock(tmp_path / "checkpoints", "wait"),
        pytest.raises(UsageError, match=r"checkpoints is in use by process.*--checkpoint\.dir"),
    ):
        train(trained)


def test_a_run_moved_with_its_folder_goes_on(trained, tmp_path):
    trained.run_dir.rename(tmp_path / "moved")
    moved = dataclasses.replace(trained, run_dir=tmp_path / "moved")
    assert train(moved) == read_metrics(moved.run_dir)[-1]


def test_lost_checkpoints_are_said_and_the_records_stay(trained, tmp_path):
    shutil.rmtree(tmp_path / "checkpoints")
    before = snapshot(trained.run_dir)
    with pytest.raises(UsageError, match=r"made checkpoints, the newest at step 14, and .* bring"):
        train(trained)
    assert snapshot(trained.run_dir) == before
    assert not (tmp_path / "checkpoints").exists()


def test_lost_checkpoints_of_an_older_run_are_said(tiny):
    train(dataclasses.replace(tiny, epochs=1))
    file = tiny.run_dir / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "run_dir": str(tiny.run_dir)}))
    (tiny.run_dir / "newest_checkpoint.json").unlink()
    shutil.rmtree(tiny.run_dir / "checkpoints")
    with pytest.raises(UsageError, match="the newest at step 14"):
        train(dataclasses.replace(tiny, epochs=1))


def test_lost_records_of_a_finished_run_are_written_again(trained):
    last = read_metrics(trained.run_dir)[-1]
    shutil.rmtree(trained.run_dir)
    again = train(trained)
    assert {key: last[key] for key in again} == again
    assert again["val/count"] == 360


def test_lines_stay_until_a_new_one_replaces_them(tmp_path):
    log = MetricsLog(tmp_path, 0)
    log.write({"step": 1, "epoch": 0.5})
    log.write({"step": 2, "epoch": 1.0})
    log.close()
    MetricsLog(tmp_path, 0).close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    log = MetricsLog(tmp_path, 1)
    log.write({"step": 3, "epoch": 1.5})
    log.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 3]


def test_a_relative_checkpoint_folder_is_stored_absolute(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = changed(tiny, run_dir=Path("run"), epochs=1, checkpoint={"dir": "saved"})
    last = train(config)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert train(changed(config, run_dir=tmp_path / "run", checkpoint={"dir": "../saved"})) == last
    assert evaluate_run(Path("../run"))[1]["val/top1"] == last["val/top1"]
    assert list(Path().iterdir()) == []


def test_relative_paths_of_an_older_run_open_from_anywhere(tmp_path, monkeypatch):
    run = tmp_path / "start" / "runs" / "a"
    run.mkdir(parents=True)
    (tmp_path / "start" / "images").mkdir()
    values = {
        **TrainConfig().to_json(),
        "run_dir": "runs/a",
        "data": {"name": "folder", "dir": "images"},
        "checkpoint": {"dir": "saved"},
        "init_weights": "hf-hub:owner/repository",
    }
    (run / "config.json").write_text(json.dumps(values))
    monkeypatch.chdir(tmp_path)
    config = read_config(Path("start/runs/a"))
    assert config.data.dir == tmp_path / "start" / "images"
    assert config.checkpoint.dir == str(tmp_path / "start" / "saved")
    assert config.init_weights == "hf-hub:owner/repository"
    assert config.run_dir == Path("start/runs/a")


def test_all_committed_configs_are_read():
    files = list(RESULTS.rglob("config.json"))
    names = {read_config(file.parent).data.name for file in files}
    assert names >= {"cifar10", "camvid", "voc_xml", "coco_json"}


def test_fields_that_change_no_number_do_not_refuse(tiny, tmp_path):
    train(dataclasses.replace(tiny, epochs=1))
    alike = changed(
        tiny,
        epochs=1,
        log_every_steps=5,
        deterministic=True,
        conv_lowering="native",
        eval_every_epochs=2,
        data={"eval_batch_size": 100, "workers": 1, "max_corrupt": 0.5, "dir": tmp_path},
        checkpoint={"keep_last": 3, "every_steps": 7},
    )
    check_run_dir(alike)
    plateau = changed(tiny, epochs=1, eval_every_epochs=2, optimizer={"schedule": "plateau"})
    with pytest.raises(UsageError, match="eval_every_epochs"):
        check_run_dir(plateau)


@pytest.fixture
def photographs(tmp_path):
    """Two folders of the same images, and one of other classes."""
    for place, classes in (("here", "ab"), ("there", "ab"), ("other", "ac")):
        for split in ("train", "val"):
            for name in classes:
                folder = tmp_path / place / split / name
                folder.mkdir(parents=True)
                for index in range(2):
                    Image.new("RGB", (8, 8), (index, 9, 9)).save(folder / f"{index}.png")
    return tmp_path


def test_data_are_recognised_by_their_facts(tiny, photographs):
    config = changed(
        tiny,
        epochs=2,
        log_every_steps=None,
        data=DataConfig(name="folder", image_size=8, batch_size=2, dir=photographs / "here"),
        checkpoint=CheckpointConfig(),
    )
    train(config)
    (photographs / "here").rename(photographs / "moved")
    for place in ("moved", "there"):
        assert train(changed(config, data={"dir": photographs / place}))["epoch"] == 2
    before = snapshot(config.run_dir)
    with pytest.raises(UsageError, match=r"2 classes, not 2 \(new: \['c'\], gone: \['b'\]\)"):
        train(changed(config, data={"dir": photographs / "other"}))
    assert snapshot(config.run_dir) == before


def test_another_number_of_images_is_another_data_set(tiny):
    train(dataclasses.replace(tiny, epochs=1))
    card = Card.of(open_dataset("digits"))
    check_data(tiny.run_dir, card)
    with pytest.raises(UsageError, match="train is 1436, not 1437"):
        check_data(tiny.run_dir, dataclasses.replace(card, train=1436))


def test_initial_weights_are_recognised_by_their_content(tiny, tmp_path):
    for name, value in (("a.npz", 1), ("b.npz", 1), ("c.npz", 2)):
        np.savez(tmp_path / name, weight=np.full(3, value))
    config = changed(tiny, init_weights=str(tmp_path / "a.npz"))
    claim_run_dir(config, Card.of(open_dataset("digits")))
    note_saved(config.run_dir, 1)
    (tmp_path / "a.npz").unlink()
    check_run_dir(config)
    check_run_dir(changed(config, init_weights=str(tmp_path / "b.npz")))
    for other in (tmp_path / "c.npz", tmp_path / "absent.npz"):
        with pytest.raises(UsageError, match="differs in init_weights"):
            check_run_dir(changed(config, init_weights=str(other)))


def test_the_step_is_traced_once_and_before_anything_is_written(tiny, monkeypatch):
    traced = []
    change = classification.change_batch

    def tracing(*args, **kwargs):
        traced.append(tiny.run_dir.exists())
        return change(*args, **kwargs)

    monkeypatch.setattr(loop, "Run", Run)
    monkeypatch.setattr(classification, "change_batch", tracing)
    train(dataclasses.replace(tiny, epochs=1))
    assert traced == [False]


def test_an_error_of_the_trace_leaves_nothing(tiny, monkeypatch):
    def fail(*args, **kwargs):
        raise UsageError("found while tracing.")

    monkeypatch.setattr(loop, "Run", Run)
    monkeypatch.setattr(classification, "change_batch", fail)
    with pytest.raises(UsageError, match="found while tracing"):
        train(tiny)
    assert not tiny.run_dir.exists()


def test_a_run_that_can_learn_nothing_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "Run", Run)
    with pytest.raises(UsageError, match=r"--frozen 'stem/\*' '\*' .* nothing is left to train"):
        train(dataclasses.replace(tiny, frozen=("stem/*", "*")))
    for split in ("train", "val"):
        (tmp_path / "data" / split / "cat").mkdir(parents=True)
        for index in range(4):
            image = Image.new("RGB", (8, 8), (50 * index, 0, 0))
            image.save(tmp_path / "data" / split / "cat" / f"{index}.png")
    data = DataConfig(name="folder", dir=tmp_path / "data", image_size=8, batch_size=2, workers=0)
    with pytest.raises(UsageError, match="has one class, 'cat', so that there is nothing to learn"):
        train(dataclasses.replace(tiny, data=data))
    assert not tiny.run_dir.exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "sessions.jsonl"])
def test_damaged_records_are_refused_before_the_data_are_opened(trained, name):
    (trained.run_dir / name).write_text("[]\n{}\n")
    with pytest.raises(UsageError, match=name):
        check_run_dir(trained)


def test_the_report_names_the_folder_of_the_checkpoints(trained):
    files = report_run(trained.run_dir).splitlines()[-1]
    assert files.endswith(f"curves.png, tensorboard/; checkpoints in {trained.checkpoint.dir}")


def test_a_folder_without_a_step_is_taken_over(tiny, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr("senet_jax.training.loop._Loop", lambda *_: os.kill(0, 0) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tiny)
    other = dataclasses.replace(tiny, seed=1, epochs=1)
    assert train(other)["epoch"] == 1
    assert "held a run without a step of training, which differs in epochs: 1, not 2" in caplog.text
    assert read_config(tiny.run_dir).seed == 1
    with pytest.raises(UsageError, match="holds another run, which differs in epochs"):
        train(tiny)


@pytest.mark.parametrize(
    "content",
    ["", "null", "[]", '{"epochs": "x"}', '{"epochz": 1}', '{"model": 3}', '{"data": {"dir": 5}}'],
)
def test_a_damaged_config_is_one_sentence(tiny, content):
    tiny.run_dir.mkdir()
    (tiny.run_dir / "config.json").write_text(content)
    with pytest.raises(UsageError, match=r"config\.json cannot be read"):
        train(tiny)
    assert [path.name for path in tiny.run_dir.iterdir()] == ["config.json"]


def test_a_checkpoint_with_a_fifo_is_damaged(trained, tmp_path):
    newest = tmp_path / "checkpoints" / "14"
    (newest / "meta" / "metadata").unlink()
    os.mkfifo(newest / "meta" / "metadata")
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(UsageError, match="is no regular file"):
        checkpoints.verify(14)


@pytest.mark.parametrize("values", [None, [], {"fingerprint": {}, "extra": 3}, {"metrics": 7}])
def test_damaged_metadata_of_a_checkpoint_is_a_damaged_one(trained, tmp_path, values, caplog):
    file = tmp_path / "checkpoints" / "14" / "meta" / "metadata"
    file.write_text(json.dumps(values))
    assert train(trained)["epoch"] == 1
    assert "falling back to the checkpoint of step 10" in caplog.text


def test_milestones_after_the_end_are_described(tiny):
    late = changed(
        tiny, optimizer={"schedule": "step", "milestones": (1, 2, 5), "warmup_epochs": 0}
    )
    assert "(it does not fall at epochs 2, 5, after the end of the run)" in Run(late).describe()


def test_a_bucket_without_its_client_is_one_sentence(tiny, monkeypatch):
    def missing(self):
        raise ImportError("Please install gcsfs to access Google Storage")

    bucket = changed(tiny, checkpoint={"dir": "gs://bucket/run"})
    monkeypatch.setattr("etils.epath.gpath._GPath.exists", missing)
    with pytest.raises(UsageError, match=r"gs://bucket/run needs the .*'\.\[gcs\]'"):
        train(bucket)
    assert not tiny.run_dir.exists()


@pytest.mark.parametrize("content", ["", "null", "{}", '{"run_dir": 5}'])
def test_a_damaged_owner_is_one_sentence(trained, tmp_path, content):
    (tmp_path / "checkpoints" / "run.json").write_text(content)
    with pytest.raises(UsageError, match=r"run\.json (cannot be read|does not name)"):
        train(trained)


def test_lost_checkpoints_are_known_by_the_records_alone(tiny):
    train(tiny)
    (tiny.run_dir / "newest_checkpoint.json").unlink()
    shutil.rmtree(tiny.run_dir / "checkpoints")
    before = snapshot(tiny.run_dir)
    with pytest.raises(UsageError, match="the newest at step 14"):
        train(tiny)
    assert snapshot(tiny.run_dir) == before
