import json
import os

import numpy as np
import pytest

from senet_jax.data.relabel import read_labels
from senet_jax.errors import UsageError

CLASSES = ["ant", "bee", "cat", "dog"]


@pytest.fixture
def labels(tmp_path):
    def read(values, names, classes=CLASSES):
        file = tmp_path / "labels.json"
        file.write_text(json.dumps(values))
        return read_labels(file, names, classes)

    return read


def validation(*numbers):
    return [f"ILSVRC2012_val_{number:08d}.JPEG" for number in numbers]


def test_validation_images_are_found_by_number_in_any_order(labels):
    real = [[0], [1, 3], [], [2]]
    valid = labels(real, validation(2, 4, 1, 3))
    np.testing.assert_array_equal(valid, [[1, 3], [2, -1], [0, -1], [-1, -1]])
    # A part of the images, in a folder of classes.
    valid = labels(real, [f"n01440764/{name}" for name in validation(4, 2)])
    np.testing.assert_array_equal(valid, [[2, -1], [1, 3]])


def test_other_lists_are_by_position_and_classes_may_be_named(labels):
    np.testing.assert_array_equal(labels([2, "dog", ["bee", 0]], list("xyz"))[:, 0], [2, 3, 1])


def test_objects_are_by_name_with_or_without_folders(labels):
    names = ["a/1.png", "b/2.png"]
    np.testing.assert_array_equal(labels({"2.png": 3, "1.png": "cat"}, names), [[2], [3]])
    np.testing.assert_array_equal(labels({"b/2.png": 3, "a/1.png": 1}, names), [[1], [3]])
    with pytest.raises(UsageError, match=r"no label of the image a/1\.png"):
        labels({"1.png": 0}, ["a/1.png", "b/1.png"])


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [
        ([0, 1, 2], ["x", "y"], "labels of 3 images, and the split has 2"),
        ([0, 1, 2], validation(2, 7), "labels of 3 images, and the split has image number 7"),
        ({"x": 0}, ["x", "y"], "no label of the image y"),
        ([0, 4], ["x", "y"], "unknown label 4 of the image y: labels are 0 to 3"),
        ([0, -1], ["x", "y"], "unknown label -1"),
        ([0, "cow"], ["x", "y"], "unknown label 'cow'"),
        ([0, True], ["x", "y"], "unknown label True"),
        ([0, 1.0], ["x", "y"], "unknown label 1.0"),
        ("ant", ["x"], "a list or an object of labels, not str"),
    ],
)
def test_what_are_no_labels_of_the_split_is_said(labels, values, names, message):
    with pytest.raises(UsageError, match=message):
        labels(values, names)


@pytest.mark.parametrize("content", [b"[1, 2", b"\xff\xfe"])
def test_a_file_that_is_no_json_is_refused(tmp_path, content):
    file = tmp_path / "labels.json"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read as labels in JSON"):
        read_labels(file, ["x"], CLASSES)
    with pytest.raises(UsageError, match="No such file"):
        read_labels(tmp_path / "none.json", ["x"], CLASSES)


def test_a_fifo_of_labels_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "labels.json")
    with pytest.raises(UsageError, match="no regular file"):
        read_labels(tmp_path / "labels.json", ["x"], CLASSES)


def test_labels_may_begin_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "labels.json"
    file.write_text('{"x": "bee"}', encoding="utf-8-sig")
    assert read_labels(file, ["x"], CLASSES).tolist() == [[1]]


@pytest.mark.parametrize("content", ["", "null", "7", "[" * 100_000, f"[{'9' * 5000}]", "[NaN]"])
def test_odd_json_is_refused_in_one_sentence(tmp_path, content):
    file = tmp_path / "labels.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=r"^[^\n]{1,400}\.$"):
        read_labels(file, ["x"], CLASSES)


def test_names_that_look_alike_are_said(labels):
    nfc, nfd = "caf\u00e9", "cafe\u0301"
    with pytest.raises(UsageError, match=r"composed otherwise .*\('cafe\\u0301.jpg' and 'caf\\xe9"):
        labels({f"{nfc}.jpg": 0}, [f"a/{nfd}.jpg"])
    assert labels({nfc: 0}, [nfc]).tolist() == [[0]]
    with pytest.raises(UsageError, match="unknown label 'café' of the image x, but one that looks"):
        labels({"x": nfc}, ["x"], [nfd])
