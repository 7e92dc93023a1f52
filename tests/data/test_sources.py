import os
import pickle
import resource
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from photographs import CLASSES, write_photographs
from PIL import Image
from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

from senet_jax.data.class_folders import FolderSource
from senet_jax.data.datasets import open_dataset
from senet_jax.data.decode import Unreadable
from senet_jax.data.sources import RecordSource
from senet_jax.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    write_photographs(tmp_path / "train")
    write_photographs(tmp_path / "val", (1, 1, 1))
    (tmp_path / "train" / "dog" / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_is_a_data_set_with_the_folders_as_classes(folder):
    dataset = open_dataset("folder", folder, 8)
    assert dataset.classes == list(CLASSES)
    assert dataset.image_shape == (8, 8, 3)
    assert (len(dataset.train), len(dataset.val)) == (18, 3)
    assert dataset.train.labels.tolist() == [0] * 9 + [1] * 6 + [2] * 3
    for index in (0, 10, 17):
        data, label = dataset.train[index]
        assert label == dataset.train.labels[index]
        assert data == (folder / "train" / dataset.train.name(index)).read_bytes()


def test_what_is_missing_is_said(folder, tmp_path):
    with pytest.raises(UsageError, match=r"--data\.dir"):
        open_dataset("folder")
    with pytest.raises(UsageError, match="there is no folder"):
        open_dataset("folder", tmp_path / "nowhere", 8)
    (folder / "val" / "bird").mkdir()
    with pytest.raises(UsageError, match="bird"):
        open_dataset("folder", folder, 8)
    (tmp_path / "none" / "empty").mkdir(parents=True)
    with pytest.raises(UsageError, match="no images"):
        FolderSource(tmp_path / "none", ["empty"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_without_images_is_refused_by_name(folder, split):
    for file in (folder / split / "dog").glob("*.jpg"):
        file.rename(file.with_suffix(".psd"))
    with pytest.raises(UsageError, match=rf"{split} has no images of dog: .*dog/00\.psd"):
        open_dataset("folder", folder, 8)


def test_a_class_that_validation_lacks_is_said(folder, caplog):
    shutil.rmtree(folder / "val" / "dog")
    assert open_dataset("folder", folder, 8).val.labels.tolist() == [0, 2]
    assert "val has no folder of the class dog" in caplog.text


def test_images_in_folders_of_a_class_belong_to_it(folder, caplog):
    (folder / "train" / "dog" / "images").mkdir()
    (folder / "train" / "dog" / "05.jpg").rename(folder / "train" / "dog" / "images" / "x.JPE")
    train = open_dataset("folder", folder, 8).train
    assert train.labels.tolist() == [0] * 9 + [1] * 6 + [2] * 3
    assert train.name(14).endswith("train/dog/images/x.JPE")
    assert train[14][1] == 1
    assert [record.getMessage().partition("train: ")[2] for record in caplog.records] == [
        "1 entry is left out: 1 without the suffix of an image (dog/notes.txt)"
    ]


def test_hidden_folders_and_links_back_are_no_classes(folder, caplog):
    train = folder / "train"
    for name in (".ipynb_checkpoints", "__MACOSX"):
        shutil.copytree(train / "cat", train / name)
    (train / "kitty").symlink_to("cat")
    (train / "all").symlink_to(".")
    (train / "cat" / "all").symlink_to("..")
    (train / "stray.jpg").write_bytes(b"")
    os.mkfifo(train / "cat" / "pipe.jpg")
    dataset = open_dataset("folder", folder, 8)
    assert dataset.classes == list(CLASSES)
    assert len(dataset.train) == 18
    said = caplog.records[0].getMessage()
    assert said.startswith(f"{train}: 8 entries are left out: 2 hidden")
    assert "1 outside the folders of the classes (stray.jpg)" in said


NFC, NFD = "caf\u00e9", "cafe\u0301"


def test_classes_that_look_alike_are_refused(folder):
    (folder / "train" / "cat").rename(folder / "train" / NFC)
    (folder / "val" / "cat").rename(folder / "val" / NFD)
    both = r"'cafe\\u0301' and 'caf\\xe9'"
    with pytest.raises(UsageError, match=rf"write the class .* differently in Unicode \({both}\)"):
        open_dataset("folder", folder, 8)
    shutil.copytree(folder / "train" / NFC, folder / "train" / NFD)
    with pytest.raises(UsageError, match=rf"classes that look alike.*: {both}"):
        open_dataset("folder", folder, 8)


def test_images_whose_names_look_alike_are_said(folder, caplog):
    for name in (NFC, NFD):
        shutil.copy(folder / "train" / "cat" / "00.jpg", folder / "train" / "cat" / f"{name}.jpg")
    assert len(open_dataset("folder", folder, 8).train) == 20
    assert r"1 names of images look like others" in caplog.text
    assert r"'cat/cafe\u0301.jpg' and 'cat/caf\xe9.jpg'" in caplog.text


def test_a_fifo_instead_of_a_file_is_unreadable_at_once(folder):
    source = FolderSource(folder / "train", list(CLASSES))
    (folder / "train" / "cat" / "00.jpg").unlink()
    os.mkfifo(folder / "train" / "cat" / "00.jpg")
    with pytest.raises(Unreadable, match="no regular file"):
        source[0]


def test_a_lost_file_is_unreadable_and_a_lost_folder_is_an_end(folder):
    source = FolderSource(folder / "train", list(CLASSES))
    (folder / "train" / "cat" / "00.jpg").unlink()
    with pytest.raises(Unreadable, match="No such file"):
        source[0]
    shutil.rmtree(folder)
    with pytest.raises(UsageError, match="can no longer be read: bring it back"):
        source[1]


def jpeg(value):
    out = BytesIO()
    Image.new("RGB", (9, 7), (value, value, value)).save(out, "JPEG")
    return out.getvalue()


def write_records(file, values):
    writer = ArrayRecordWriter(str(file), "group_size:1,uncompressed")
    for value in values:
        example = tf_example.Example()
        example.features.feature["image"].bytes_list.value.append(jpeg(value))
        example.features.feature["label"].int64_list.value.append(value % 10)
        writer.write(example.SerializeToString())
    writer.close()


@pytest.fixture
def records(tmp_path):
    """Two files of three and four records."""
    files = [tmp_path / f"x-train.array_record-0000{part}-of-00002" for part in range(2)]
    write_records(files[0], [10, 21, 32])
    write_records(files[1], [43, 54, 65, 76])
    return files


def test_records_of_several_files_in_order(records):
    source = RecordSource(records, "train")
    assert len(source) == 7
    for index, value in enumerate([10, 21, 32, 43, 54, 65, 76]):
        assert source[index] == (jpeg(value), value % 10)
    assert pickle.loads(pickle.dumps(source))[5] == source[5]


def test_labels_come_from_their_file_or_else_from_the_records(records, caplog):
    folder = records[0].parent
    np.save(folder / "labels-train.npy", np.arange(7, dtype=np.int32))
    assert RecordSource(records, "train").labels.tolist() == list(range(7))
    assert not caplog.records
    # Labels of another data set.
    np.save(folder / "labels-train.npy", np.arange(6, dtype=np.int32))
    assert RecordSource(records, "train").labels.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert "read for their labels" in caplog.text


def test_labels_that_are_no_classes_are_refused(records):
    source = RecordSource(records, "train", classes=5)
    assert source[0] == (jpeg(10), 0)
    with pytest.raises(UsageError, match=r"record 6 of train .* label 6, .* names 5 classes, 0 to"):
        source[6]
    file = records[0].parent / "labels-train.npy"
    for labels in ([0, 1, 2, 3, 4, 5, 4], [0, -2, 0, 0, 0, 0, 0]):
        np.save(file, np.array(labels, np.int32))
        with pytest.raises(UsageError, match=r"labels-train.npy has the label (5|-2), and"):
            RecordSource(records, "train", classes=5)
    np.save(file, np.array([0, -1, 0, 0, 0, 0, 0], np.int32))
    assert RecordSource(records, "train", classes=5).labels[1] == -1


def test_a_damaged_file_of_labels_is_refused(records):
    file = records[0].parent / "labels-train.npy"
    for write in (
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(b"\x93NUMPY\x01\x00 no header"),
        lambda: np.save(file, np.zeros(7)),
        lambda: np.save(file, np.zeros((7, 1), int)),
        lambda: np.save(file, np.full(7, 2**40)),
        lambda: np.save(file, np.array([None] * 7), allow_pickle=True),
        lambda: (file.unlink(), os.mkfifo(file)),
    ):
        write()
        with pytest.raises(UsageError, match=r"labels-train.npy .*: delete it, it is made again"):
            RecordSource(records, "train")


def test_a_damaged_record_has_no_label_and_is_named(records, caplog):
    damaged = bytearray(records[1].read_bytes())
    damaged[damaged.index(jpeg(54)[-40:]) + 5] ^= 255
    records[1].write_bytes(damaged)
    assert RecordSource(records, "train").labels.tolist() == [0, 1, 2, 3, -1, 5, 6]
    assert f"record 4 of train in {records[0].parent} is left out" in caplog.text


def test_a_fifo_among_the_records_is_refused_at_once(records):
    records[1].unlink()
    os.mkfifo(records[1])
    with pytest.raises(UsageError, match="is no regular file"):
        RecordSource(records, "train")


def test_a_damaged_record_is_unreadable_and_no_other(records):
    damaged = bytearray(records[1].read_bytes())
    damaged[damaged.index(jpeg(54)[-40:]) + 5] ^= 255
    records[1].write_bytes(damaged)
    source = RecordSource(records, "train")
    with pytest.raises(Unreadable, match="damaged"):
        source[4]
    assert [source[index][1] for index in (0, 1, 2, 3, 5, 6)] == [0, 1, 2, 3, 5, 6]
    assert source.name(4) == f"record 4 of train in {records[0].parent}"


def test_records_that_are_gone_or_cut_short(records):
    source = pickle.dumps(RecordSource(records, "train"))
    whole = records[1].read_bytes()
    records[1].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="not whole"):
        RecordSource(records, "train")
    records[1].unlink()
    with pytest.raises(UsageError, match="not whole"):
        RecordSource(records, "train")
    with pytest.raises(UsageError, match="can no longer be read"):
        pickle.loads(source)[5]


def test_a_split_of_more_files_than_may_be_open_is_read(tmp_path):
    files = [tmp_path / f"x-{index:05}" for index in range(100)]
    for file in files:
        write_records(file, [1])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 50, hard)
        )
        source = RecordSource(files, "train")
        assert len([source[index] for index in range(100)]) == 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
