"""Sets of TensorFlow Datasets whose own files are damaged, missing, or say something else."""

import json
import os
import shutil
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from senet_jax.data.build import prepare
from senet_jax.data.datasets import open_dataset
from senet_jax.data.loader import EvalBatches, TrainBatches
from senet_jax.data.tfds_folder import find_prepared
from senet_jax.errors import UsageError
from senet_jax.tasks.classification import Classification

with tfds.core.registered.skip_registration():

    class Shades(tfds.core.GeneratorBasedBuilder):
        """Twelve grey images of 8x8 pixels, each of one shade, in three classes."""

        VERSION = tfds.core.Version("1.2.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(names=["dark", "grey", "light"]),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(12), "test": self._generate_examples(3)}

        def _generate_examples(self, count):
            for index in range(count):
                png = BytesIO()
                Image.new("L", (8, 8), 20 * index).save(png, "png")
                png.seek(0)
                yield index, {"image": png, "label": index % 3}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    Shades(data_dir=root, file_format="array_record").download_and_prepare()
    return root


@pytest.fixture
def shades(original, tmp_path):
    """A copy of the set; returns the folder of its version."""
    shutil.copytree(original, tmp_path / "data")
    return tmp_path / "data" / "shades" / "1.2.0"


def opened(folder):
    return open_dataset("shades", folder.parents[1])


def test_the_newest_version_is_found_or_the_one_that_is_named(shades):
    root = shades.parents[1]
    shutil.copytree(shades, shades.with_name("1.10.0"))
    shades.with_name("2.0.0").mkdir()  # without the files of a set
    assert find_prepared("shades", root) == shades.with_name("1.10.0")
    assert find_prepared("shades:1.2.0", root) == shades
    assert find_prepared("shades:1.2.*", root) == shades
    for name in ("shades:3.0.0", "shades:new", "shades/large", "cifar10", "none"):
        assert find_prepared(name, root) is None


@pytest.mark.parametrize("directory", ["x" * 300, "/dev/null", "a\0b", "~no_such_user/data"])
@pytest.mark.parametrize("name", ["folder", "cifar10", "shades", "x" * 300, "../etc"])
def test_a_place_that_cannot_be_is_refused(name, directory):
    with pytest.raises(UsageError):
        open_dataset(name, Path(directory))


def test_a_version_may_be_named(shades):
    assert open_dataset("shades:1.2.0", shades.parents[1]).classes == ["dark", "grey", "light"]


def test_small_images_of_one_channel_are_read(shades):
    dataset = opened(shades)
    assert dataset.image_shape == (8, 8, 1)
    assert dataset.classes == ["dark", "grey", "light"]
    assert sorted(dataset.train.images[:, 0, 0, 0].tolist()) == list(range(0, 240, 20))
    assert dataset.mean == pytest.approx((110 / 255,))


def change(folder, **values):
    file = folder / "dataset_info.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def features(folder, old, new):
    file = folder / "features.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def pipe(file):
    file.unlink()
    os.mkfifo(file)


CONTENTS = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "null": lambda file: file.write_text("null"),
    "a list": lambda file: file.write_text("[]"),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-40]),
    "not UTF-8": lambda file: file.write_bytes(b"\xff\xfe{}"),
    "too deep": lambda file: file.write_text("[" * 100_000),
    "another's": lambda file: file.write_text('{"version": 3, "splits": {"train": 1}}'),
    "an empty object": lambda file: file.write_text("{}"),
    "a FIFO": pipe,
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_damaged_descriptions_are_said_in_one_sentence(shades, name, content):
    CONTENTS[content](shades / name)
    with pytest.raises(UsageError, match=r"^[^\n]*shades[^\n]*\.$"):
        opened(shades)


OTHERS = {
    "two names": (
        lambda folder: (folder / "label.labels.txt").write_text("dark\ngrey\n"),
        "is damaged .*2 names where features.json says 3 classes",
    ),
    "two classes": (
        lambda folder: (
            (folder / "label.labels.txt").write_text("dark\ngrey\n"),
            features(folder, '"3"', '"2"'),
        ),
        "has the label 2, and the data set names 2 classes, 0 to 1",
    ),
    "names that are not UTF-8": (
        lambda folder: (folder / "label.labels.txt").write_bytes(b"\xff\n\xfe\n\xfd\n"),
        "labels.txt cannot be read",
    ),
    "a FIFO of names": (lambda folder: pipe(folder / "label.labels.txt"), "no regular file"),
    "names that look alike": (
        lambda folder: (folder / "label.labels.txt").write_text("caf\u00e9\ncafe\u0301\nx\n"),
        "classes that look alike",
    ),
    "no validation": (
        lambda folder: change(
            folder, splits=json.loads((folder / "dataset_info.json").read_text())["splits"][:1]
        ),
        "no records of the split test",
    ),
    "another format": (lambda folder: change(folder, fileFormat="tfrecord"), "as tfrecord"),
    "floats": (lambda folder: features(folder, '"uint8"', '"float32"'), "images of float32"),
    "two channels": (lambda folder: features(folder, '"1"', '"2"'), "with 2 channels"),
    "no classes": (
        lambda folder: features(folder, '"numClasses": "3"', '"numClasses": "0"'),
        "damaged|no image classification",
    ),
    "no image": (lambda folder: features(folder, '"image": {', '"photo": {'), "damaged|no image"),
    "other keys": (
        lambda folder: change(
            folder,
            supervisedKeys={"tuple": {"items": [{"featureKey": "x"}, {"featureKey": "label"}]}},
        ),
        "damaged|no image classification",
    ),
    "too many records": (
        lambda folder: change(
            folder,
            splits=json.loads((folder / "dataset_info.json").read_text().replace('"12"', '"13"'))[
                "splits"
            ],
        ),
        "has 12 records of train where 13 belong",
    ),
    "a template that is none": (
        lambda folder: (folder / "dataset_info.json").write_text(
            (folder / "dataset_info.json").read_text().replace("{SPLIT}", "{SPLIT}}")
        ),
        "is damaged",
    ),
    "a record file less": (
        lambda folder: next(folder.glob("*train*")).unlink(),
        "is missing",
    ),
    "a FIFO of records": (lambda folder: pipe(next(folder.glob("*test*"))), "no regular file"),
}


@pytest.mark.parametrize("fault", OTHERS)
def test_what_does_not_fit_together_is_said(shades, fault):
    harm, message = OTHERS[fault]
    harm(shades)
    with pytest.raises(UsageError, match=message) as raised:
        opened(shades)
    assert "\n" not in str(raised.value)


def test_a_byte_order_mark_is_no_part_of_a_name(shades):
    (shades / "label.labels.txt").write_text("dark\ngrey\nlight\n", encoding="utf-8-sig")
    assert opened(shades).classes == ["dark", "grey", "light"]


def test_opening_and_preparing_leave_no_temporary_folder(shades, tmp_path, monkeypatch):
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    opened(shades)
    for name in ("cifar10", "imagenet2012"):
        with pytest.raises(UsageError, match=f"senet-jax prepare {name}"):
            open_dataset(name, tmp_path)
        with pytest.raises(UsageError, match=r"TensorFlow|manual-dir"):
            prepare.prepare(name, tmp_path / "data", tmp_path)
    assert list(place.iterdir()) == []
    assert tempfile.tempdir == str(place)


def rewrite(folder, split, change_image):
    """Writes the records of a split again, their images changed."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

    (file,) = folder.glob(f"*-{split}.*")
    with ArrayRecordDataSource([str(file)]) as source:
        examples = [tf_example.Example.FromString(source[index]) for index in range(len(source))]
    writer = ArrayRecordWriter(str(file), "group_size:1")
    for index, example in enumerate(examples):
        image = example.features.feature["image"].bytes_list
        image.value[0] = change_image(index, image.value[0])
        writer.write(example.SerializeToString())
    writer.close()


def large(data):
    out = BytesIO()
    Image.open(BytesIO(data)).resize((9, 8)).save(out, "PNG")
    return out.getvalue()


def test_broken_images_in_memory_are_replaced_and_not_counted(shades, caplog):
    rewrite(shades, "train", lambda index, data: data[:50] if index in (2, 7) else data)
    rewrite(shades, "test", lambda index, data: large(data) if index == 1 else data)
    dataset = opened(shades)
    assert list(dataset.train.broken) == [2, 7]
    assert "shape is (8, 9, 1) and not (8, 8, 1)" in dataset.val.broken[1]
    intact = np.delete(dataset.train.images[:, 0, 0, 0], [2, 7]) / 255
    assert dataset.mean == pytest.approx((intact.mean(),))
    assert dataset.std == pytest.approx((intact.std(),))

    task = Classification()
    run = TrainBatches(task.examples(dataset, "train"), 4, seed=0, steps=12)
    batches = list(run.prefetch(0))
    shades_of = {
        int(x): int(y)
        for x, y in zip(intact * 255 + 0.5, np.delete(dataset.train.labels, [2, 7]), strict=True)
    }
    for step, batch in enumerate(batches):
        assert batch["image"].tobytes() == run[step][0]["image"].tobytes()
        assert all(
            shades_of[int(image[0, 0, 0])] == label
            for image, label in zip(batch["image"], batch["label"], strict=True)
        )
    lines = [r.getMessage() for r in caplog.records if "is replaced by another" in r.getMessage()]
    assert len(lines) == 2
    (batch,) = EvalBatches(*task.examples(dataset, "val"), 4).read()
    assert batch.arrays["weight"].tolist() == [1, 0, 1, 0]
    assert batch.errors[1].startswith("record 1 of test")


def test_a_set_that_is_broken_throughout_is_refused(shades):
    rewrite(shades, "train", lambda index, data: b"")
    with pytest.raises(UsageError, match="not one training image can be read"):
        opened(shades)


def test_a_channel_of_one_value_has_the_deviation_one(shades, caplog):
    first = []
    rewrite(shades, "train", lambda index, data: first.append(data) or first[0])
    dataset = opened(shades)
    value = int(dataset.train.images[0, 0, 0, 0])
    assert dataset.mean == pytest.approx((value / 255,))
    assert dataset.std == (1.0,)
    assert f"channel 1 of all training images is {value}" in caplog.text
