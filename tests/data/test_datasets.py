import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from senet_jax.data import datasets
from senet_jax.data.datasets import open_dataset
from senet_jax.errors import UsageError


def test_digits_are_all_there_split_by_a_fixed_seed():
    first, second = open_dataset("digits"), open_dataset("digits")
    assert (len(first.train.labels), len(first.val.labels)) == (1437, 360)
    assert first.image_shape == (8, 8, 1)
    assert np.array_equal(first.val.images, second.val.images)
    assert first.train.images.max() == 255
    # Stratified: every digit has its share of both splits.
    assert np.bincount(first.val.labels).min() >= 34
    train = first.train.images / 255
    assert first.mean[0] == pytest.approx(train.mean(), abs=5e-4)
    assert first.std[0] == pytest.approx(train.std(), abs=5e-4)


def test_the_splits_share_no_image():
    dataset = open_dataset("digits")
    train = {image.tobytes() for image in dataset.train.images}
    assert not train & {image.tobytes() for image in dataset.val.images}


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(UsageError, match="did you mean cifar10"):
        open_dataset("cifar-10")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_missing_set_names_the_command_that_prepares_it(name, tmp_path):
    with pytest.raises(UsageError, match=f"senet-jax prepare {name} --data-dir {tmp_path}"):
        open_dataset(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_taken_for_a_prepared_set_is_said(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"where there is a folder train: .*--data\.name folder"):
        open_dataset("cifar10", tmp_path)


with tfds.core.registered.skip_registration():

    class Cifar10(tfds.core.GeneratorBasedBuilder):
        """CIFAR-10 in miniature, written by TFDS; given PNG bytes, it needs no TensorFlow."""

        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(32, 32, 3)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(20), "test": self._generate_examples(5)}

        def _generate_examples(self, count):
            for index in range(count):
                png = BytesIO()
                Image.new("RGB", (32, 32), (index, index, index)).save(png, "png")
                png.seek(0)
                yield index, {"id": str(index), "image": png, "label": index % 10}


@pytest.fixture
def tiny_cifar(tmp_path, monkeypatch):
    builder = Cifar10(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


def test_tfds_sets_are_read_into_memory(tiny_cifar):
    dataset = open_dataset("cifar10")
    assert dataset.image_shape == (32, 32, 3)
    assert (len(dataset.train.labels), len(dataset.val.labels)) == (20, 5)
    read, broken = dataset.train.read(np.arange(20), ())
    assert not broken
    assert np.array_equal(read["image"][:, 0, 0, 0] % 10, dataset.train.labels)


def test_nothing_in_the_way_of_the_data_imports_tensorflow(tiny_cifar):
    code = (
        "import sys; from senet_jax.data.datasets import open_dataset; "
        "from senet_jax.data.loader import TrainBatches; open_dataset('cifar10'); "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_of_the_catalogue_opens_or_names_what_lacks(tmp_path):
    for name in datasets.DATASETS:
        if name == "digits":
            assert len(open_dataset(name).classes) == 10
            continue
        with pytest.raises(UsageError, match=str(tmp_path)):
            open_dataset(name, tmp_path / "none", 8)


with tfds.core.registered.skip_registration():

    class Kittens(tfds.core.GeneratorBasedBuilder):
        """Photographs of three sizes; a set of which senet_jax knows nothing."""

        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = (
            tfds.core.BuilderConfig(name="large", version="1.0.0"),
            tfds.core.BuilderConfig(name="small", version="1.0.0"),
        )

        def _info(self):
            large = self.builder_config.name == "large"
            features = tfds.features.FeaturesDict(
                {
                    "photo": tfds.features.Image(shape=(None, None, 3) if large else (8, 8, 3)),
                    "kind": tfds.features.ClassLabel(names=["tabby", "siamese"]),
                }
            )
            keys = ("photo", "kind")
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=keys)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(6), "validation": self._generate_examples(3)}

        def _generate_examples(self, count):
            for index in range(count):
                large = self.builder_config.name == "large"
                size = (30 + index, 20) if large else (8, 8)
                photo = BytesIO()
                Image.new("RGB", size, (50 * index, 0, 255)).save(photo, "png")
                photo.seek(0)
                yield index, {"photo": photo, "kind": index % 2}


def test_any_prepared_set_of_photographs_opens_by_its_name(tmp_path):
    Kittens(config="large", data_dir=tmp_path, file_format="array_record").download_and_prepare()
    dataset = open_dataset("kittens/large", tmp_path, 16)
    assert dataset.classes == ["tabby", "siamese"]
    assert dataset.image_shape == (16, 16, 3)
    assert (len(dataset.train), len(dataset.val)) == (6, 3)
    records = [dataset.train[index] for index in range(6)]
    sizes = [Image.open(BytesIO(data)).width for data, _ in records]
    assert sorted(sizes) == list(range(30, 36))
    assert [label for _, label in records] == [size % 2 for size in sizes]
    assert dataset.train.labels.tolist() == [label for _, label in records]


def test_small_images_are_in_memory_with_their_own_statistics(tmp_path):
    Kittens(config="small", data_dir=tmp_path, file_format="array_record").download_and_prepare()
    dataset = open_dataset("kittens/small", tmp_path)
    assert dataset.train.images.shape == (6, 8, 8, 3)
    assert sorted(dataset.train.images[:, 0, 0, 0].tolist()) == [0, 50, 100, 150, 200, 250]
    assert dataset.mean == pytest.approx((125 / 255, 0, 1))
    # Green and blue have one value each: a deviation of 1 leaves them 0 after normalization.
    assert dataset.std == pytest.approx((np.std([0, 50, 100, 150, 200, 250]) / 255, 1, 1))
