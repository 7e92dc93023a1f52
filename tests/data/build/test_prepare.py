import errno
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.core import file_adapters

from senet_jax import cli
from senet_jax.data.build import prepare, verify
from senet_jax.data.build.verify import RECORDS_AT_ONCE
from senet_jax.data.stored_labels import Damaged, label_file
from senet_jax.errors import UsageError
from tests.data import stand_in
from tests.data.tars import SYNSETS, pack, train_members, validation_members, write_tars


def jpeg(side=8):
    file = BytesIO()
    Image.new("RGB", (side, side)).save(file, "jpeg")
    return file.getvalue()


@pytest.fixture
def tars(tmp_path):
    image = jpeg()
    test = [("ILSVRC2012_test_00000001.JPEG", image)]
    return write_tars(
        tmp_path / "tars", train_members(image=image), validation_members(image=image), test
    )


@pytest.fixture
def tensorflow(monkeypatch):
    """TFDS with the stand-in, as if TensorFlow were there."""
    monkeypatch.setattr("tensorflow_datasets.builder", stand_in.builder)
    monkeypatch.setattr("importlib.util.find_spec", stand_in.find_spec)


@pytest.fixture
def no_tensorflow(monkeypatch):
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == "tensorflow" else stand_in.FIND_SPEC(name, *rest),
    )


@pytest.fixture
def built(tmp_path, tars, tensorflow):
    return prepare.prepare("imagenet2012", tmp_path / "data", tars).folder


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(*arguments):
    with pytest.raises(UsageError) as error:
        prepare.prepare(*arguments)
    said = str(error.value)
    assert said.endswith((".", "?"))
    assert "\n" not in said
    return said


def test_the_command_builds_verifies_and_leaves_nothing_else(tmp_path, tars, tensorflow, capsys):
    data = tmp_path / "data"
    arguments = ["prepare", "imagenet2012", "--manual-dir", str(tars), "--data-dir", str(data)]
    assert cli.main(arguments) == 0
    folder = data / "imagenet2012" / "5.1.0"
    out = capsys.readouterr().out
    assert out.splitlines() == [
        f"imagenet2012 built and verified: {folder}",
        "  train: 6 images in 3 of 1,000 classes, 1 to 3 each, 2 in the median",
        "  validation: 5 images in 5 of 1,000 classes, 1 each",
        "  test: 1 images without labels",
    ]
    assert [path.name for path in data.iterdir()] == ["imagenet2012"]
    assert [path.name for path in folder.parent.iterdir()] == ["5.1.0"]

    synsets = stand_in.lines("labels.txt")
    builder = stand_in.TFDS_BUILDER("imagenet2012", data_dir=data)
    sources = builder.as_data_source(decoders={"image": tfds.decode.SkipDecoding()})
    for split, source in sources.items():
        kept = np.load(label_file(folder, split))
        assert kept.dtype == np.int32
        assert kept.tolist() == [row["label"] for row in source]
    assert all(
        row["file_name"].decode().startswith(synsets[row["label"]]) for row in sources["train"]
    )
    expected = stand_in.lines("validation_labels.txt")
    assert all(
        synsets[row["label"]] == expected[int(row["file_name"][15:23]) - 1]
        for row in sources["validation"]
    )
    assert Counter(row["image"] for row in sources["train"]) == {jpeg(): 6}
    assert "tensorflow" not in sys.modules


def test_a_prepared_set_is_verified_without_tars_or_tensorflow(built, no_tensorflow):
    labels = np.load(label_file(built, "train"))
    again = prepare.prepare("imagenet2012", built.parents[1])
    assert again.how == "was there, verified before"
    assert again.splits[0].labels.tolist() == labels.tolist()
    for file in built.glob("labels-*.npy"):
        file.unlink()
    before = files(built)
    again = prepare.prepare("imagenet2012", built.parents[1])
    assert again.how == "was there, now verified"
    assert np.load(label_file(built, "train")).tolist() == labels.tolist()
    assert before.items() < files(built).items()


def test_labels_that_do_not_fit_are_found_again(built):
    file = label_file(built, "train")
    np.save(file, np.load(file)[:-1])
    assert prepare.prepare("imagenet2012", built.parents[1]).how == "was there, now verified"
    assert len(np.load(file)) == 6


def test_a_read_only_set_is_verified_all_the_same(built, monkeypatch, caplog):
    label_file(built, "test").unlink()

    def refuse(*_):
        raise UsageError("labels-test.npy cannot be written: Read-only file system.")

    monkeypatch.setattr(verify, "write_whole", refuse)
    with caplog.at_level(logging.WARNING):
        again = prepare.prepare("imagenet2012", built.parents[1])
    assert again.how == "was there, now verified"
    assert "Read-only file system" in caplog.text


def cut(file):
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, "train.array_record-00000-of-00001 is missing"),
        (cut, "train.array_record-00000-of-00001 has 0 records where 6 belong"),
    ],
)
def test_a_damaged_file_is_found_even_by_a_quick_look(built, harm, message):
    (shard,) = built.glob("*-train.array_record*")
    harm(shard)
    before = files(built)
    said = refused("imagenet2012", built.parents[1])
    assert f"imagenet2012 in {built} is damaged (" in said
    assert message in said
    assert files(built) == before


def test_a_flipped_bit_is_found_by_reading(built):
    (shard,) = built.glob("*-train.array_record*")
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    for file in built.glob("labels-*.npy"):
        file.unlink()
    assert "one cannot be read" in refused("imagenet2012", built.parents[1])


def test_a_damaged_file_of_labels_is_written_again(built, caplog):
    for harm in (
        lambda file: file.write_bytes(b"\x93NUMPY"),
        lambda file: np.save(file, np.full(6, 1000, np.int32)),
    ):
        file = label_file(built, "train")
        whole = file.read_bytes()
        harm(file)
        again = prepare.prepare("imagenet2012", built.parents[1])
        assert again.how == "was there, now verified"
        assert file.read_bytes() == whole
    assert "cannot be read as labels" in caplog.text


def test_labels_that_are_no_classes_are_damage(built):
    features = built / "features.json"
    features.write_text(features.read_text().replace('"1000"', '"1"'))
    (built / "label.labels.txt").write_text("n01440764\n")
    with pytest.raises(Damaged, match=r"record \d of (train|validation) has the label \d+, and"):
        verify.verify(built)


def test_a_fifo_in_the_place_of_a_description_is_refused_at_once(built):
    (built / "dataset_info.json").unlink()
    os.mkfifo(built / "dataset_info.json")
    assert "is no regular file" in refused("imagenet2012", built.parents[1])


def test_a_folder_without_its_description_is_damaged(built):
    (built / "dataset_info.json").unlink()
    assert "is damaged" in refused("imagenet2012", built.parents[1])


def test_another_format_is_left_alone(built):
    info = json.loads((built / "dataset_info.json").read_text())
    (built / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    assert "as tfrecord, and training reads array_record" in refused(
        "imagenet2012", built.parents[1]
    )


def test_images_without_a_header_are_counted_and_named(tmp_path, tensorflow, capsys):
    images = validation_members(image=jpeg())
    images[0] = (images[0][0], b"no image")
    tars = write_tars(tmp_path / "tars", train_members(image=b""), images)
    data = tmp_path / "data"
    cli.main(["prepare", "imagenet2012", "--manual-dir", str(tars), "--data-dir", str(data)])
    out = capsys.readouterr().out
    assert "6 of them cannot be read as images (records 0, 1, 2, 3, 4, ...)" in out
    builder = stand_in.TFDS_BUILDER("imagenet2012", data_dir=data)
    source = builder.as_data_source("validation", decoders={"image": tfds.decode.SkipDecoding()})
    (bad,) = (index for index, row in enumerate(source) if row["image"] == b"no image")
    assert f"1 of them cannot be read as images (records {bad});" in out


@pytest.mark.parametrize("count", [1, RECORDS_AT_ONCE, RECORDS_AT_ONCE + 1])
def test_records_are_read_in_order_whatever_their_number(tmp_path, tensorflow, count):
    tars = write_tars(tmp_path / "tars", validation=validation_members(count, jpeg()))
    prepared = prepare.prepare("imagenet2012", tmp_path / "data", tars)
    source = stand_in.TFDS_BUILDER("imagenet2012", data_dir=tmp_path / "data").as_data_source(
        "validation", decoders={"image": tfds.decode.SkipDecoding()}
    )
    (validation,) = (split for split in prepared.splits if split.name == "validation")
    assert validation.labels.tolist() == [row["label"] for row in source]
    assert len(validation.labels) == count


def test_several_shards_are_one_split(built):
    info = json.loads((built / "dataset_info.json").read_text())
    (shard,) = built.glob("*-train.array_record*")
    records = array_record_module.ArrayRecordReader(str(shard)).read_all()
    for number, part in enumerate((records[:4], records[4:])):
        name = shard.name.replace("00000-of-00001", f"0000{number}-of-00002")
        writer = array_record_module.ArrayRecordWriter(str(built / name), "group_size:1")
        for row in part:
            writer.write(row)
        writer.close()
    info["splits"][0]["shardLengths"] = ["4", "2"]
    (built / "dataset_info.json").write_text(json.dumps(info))
    kept = np.load(label_file(built, "train"))
    assert verify.verify(built)[0].labels.tolist() == kept.tolist()


def test_labels_that_are_not_those_of_the_archives_are_refused(
    tmp_path, tars, tensorflow, monkeypatch
):
    original = stand_in.Imagenet2012._train

    def wrong(self, folder):
        for key, row in original(self, folder):
            yield key, row | {"label": SYNSETS[0]}

    monkeypatch.setattr(stand_in.Imagenet2012, "_train", wrong)
    said = refused("imagenet2012", tmp_path / "data", tars)
    assert "train has 6 images of label 0, where the archives have 3" in said
    assert not (tmp_path / "data" / "imagenet2012").exists()


def test_a_split_that_tfds_leaves_out_is_missed(tmp_path, tars, tensorflow, monkeypatch):
    monkeypatch.setattr(
        stand_in.Imagenet2012,
        "_split_generators",
        lambda self, manager: {"train": self._train(Path(manager.manual_dir))},
    )
    said = refused("imagenet2012", tmp_path / "data", tars)
    assert "its splits are train, where train, validation, test belong" in said


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("write() failed: No space left on device; writing x"),
    ],
)
def test_a_full_disk_is_said_and_what_was_there_stays(
    tmp_path, tars, tensorflow, monkeypatch, error
):
    other = tmp_path / "data" / "imagenet2012" / "5.0.0" / "dataset_info.json"
    other.parent.mkdir(parents=True)
    other.write_text("another version")

    def fail(path, iterator):
        Path(path).write_bytes(next(iter(iterator))[1])
        raise error

    monkeypatch.setattr(file_adapters.ArrayRecordFileAdapter, "write_examples", fail)
    before = files(tmp_path)
    said = refused("imagenet2012", tmp_path / "data", tars)
    assert "the disk is full, make room" in said
    assert files(tmp_path) == before


def test_a_disk_that_is_too_small_is_said_before(tmp_path, tars, tensorflow, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=30_000))
    said = refused("imagenet2012", tmp_path / "data", tars)
    assert "make room or choose another with --data-dir" in said
    assert not (tmp_path / "data").exists()


def test_a_place_that_cannot_be_written_is_said(tmp_path, tars, tensorflow):
    (tmp_path / "file").write_text("")
    said = refused("imagenet2012", tmp_path / "file" / "data", tars)
    assert said.endswith("file is no folder: give another name.")


def test_killed_at_any_moment_the_same_command_ends_well(tmp_path, tars, tensorflow, caplog):
    code = (
        "import sys; from unittest import mock; from tests.data import stand_in as s\n"
        "with mock.patch('tensorflow_datasets.builder', s.builder), "
        "mock.patch('importlib.util.find_spec', s.find_spec), "
        "mock.patch.object(*s.KILLS[sys.argv[1]]):\n"
        "    from senet_jax.cli import main; main(sys.argv[2:])"
    )
    processes = {}
    for moment in stand_in.KILLS:
        arguments = ["imagenet2012", "--data-dir", str(tmp_path / moment), "--manual-dir", tars]
        processes[moment] = subprocess.Popen(
            [sys.executable, "-c", code, moment, "prepare", *arguments],
            cwd=Path(__file__).parents[3],
            stderr=subprocess.DEVNULL,
        )
    for moment, process in processes.items():
        assert process.wait() == -signal.SIGKILL
        data = tmp_path / moment
        folder = data / "imagenet2012" / "5.1.0"
        assert folder.exists() == (moment == "tidying")
        assert list(folder.parent.glob("incomplete*"))
        done = prepare.prepare("imagenet2012", data, tars)
        assert done.how.startswith("was there" if moment == "tidying" else "built")
        assert [len(split.labels) for split in done.splits] == [6, 5, 1]
        assert [path.name for path in data.iterdir()] == ["imagenet2012"]
        assert [path.name for path in folder.parent.iterdir()] == ["5.1.0"]
    assert "removing what an interrupted build left" in caplog.text


def test_two_at_the_same_time_do_not_harm_each_other(tmp_path, tars, tensorflow):
    folder = tmp_path / "data" / "imagenet2012"
    place = folder / "incomplete.prepare_5.1.0"
    place.mkdir(parents=True)
    (place / "half").write_text("of the other")
    with (folder / "incomplete.prepare_5.1.0.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another `senet-jax prepare` is at work" in refused(
            "imagenet2012", tmp_path / "data", tars
        )
        assert (place / "half").read_text() == "of the other"
    prepare.prepare("imagenet2012", tmp_path / "data", tars)
    assert not place.exists()


def test_bad_tars_are_found_before_tensorflow_is_missed(tmp_path, tars, no_tensorflow):
    with pytest.raises(UsageError, match=r"pip install .*'\.\[prepare\]'"):
        prepare.prepare("imagenet2012", tmp_path / "data", tars)
    (tars / "ILSVRC2012_img_val.tar").write_bytes(pack(validation_members()[1:]))
    with pytest.raises(UsageError, match=r"ILSVRC2012_val_00000002\.JPEG but goes on"):
        prepare.prepare("imagenet2012", tmp_path / "data", tars)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar11", "did you mean cifar10"),
        ("imagenet_resized/33x33", "did you mean 32x32"),
        ("imdb_reviews", "imdb_reviews is no image classification set"),
        ("imagenet2012_real", "is no image classification set"),
        ("cifar10:1.0.0", "only: 3.0.2"),
        ("cifar10", "pip install -c constraints.txt -e '.[prepare]'"),
        ("coco", "pip install -c constraints.txt -e '.[prepare]'"),
        ("imagenet2012", "ILSVRC2012_img_train.tar"),
        ("resisc45", "name the folder of its files with --manual-dir"),
    ],
)
def test_what_cannot_be_prepared_is_said_in_one_sentence(tmp_path, no_tensorflow, name, message):
    assert message in refused(name, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cifar100", "imagenette", "places365_small", "mnist", "food101"])
def test_any_image_classification_set_is_taken(tmp_path, no_tensorflow, name):
    assert "pip install" in refused(name, tmp_path)


def test_the_folder_is_the_flag_or_the_environments(tmp_path, tars, tensorflow, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "environment"))
    folder = prepare.prepare("imagenet2012", None, tars).folder
    assert folder == tmp_path / "environment" / "imagenet2012" / "5.1.0"
    folder = prepare.prepare("imagenet2012", tmp_path / "flag", tars).folder
    assert folder == tmp_path / "flag" / "imagenet2012" / "5.1.0"
    monkeypatch.setenv("TFDS_DATA_DIR", "")
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(tmp_path / "default"))
    manual = tmp_path / "default" / "downloads" / "manual"
    manual.parent.mkdir(parents=True)
    tars.rename(manual)
    folder = prepare.prepare("imagenet2012").folder
    assert folder == tmp_path / "default" / "imagenet2012" / "5.1.0"
    assert manual.is_dir()
