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
    images, _ = dataset.train.read(np.arange(20))
    assert np.array_equal(images[:, 0, 0, 0] % 10, dataset.train.labels)


def test_nothing_in_the_way_of_the_data_imports_tensorflow(tiny_cifar):
    code = (
        "import sys; from senet_jax.data.datasets import open_dataset; "
        "from senet_jax.data.loader import TrainBatches; open_dataset('cifar10'); "
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_of_the_catalogue_opens_or_says_what_is_missing(tmp_path):
    for name in datasets.DATASETS:
        if name == "digits":
            assert len(open_dataset(name).classes) == 10
            continue
        with pytest.raises(UsageError, match=str(tmp_path)):
            open_dataset(name, tmp_path / "none", 8)
