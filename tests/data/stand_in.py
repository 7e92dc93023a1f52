"""A stand-in for TFDS's `imagenet2012`, whose building needs TensorFlow: same tars and labels."""

import importlib.util
import os
import signal
import tarfile
from io import BytesIO
from pathlib import Path
from unittest import mock

import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters

from senet_jax.data.build import prepare

TFDS_BUILDER = tfds.builder
FIND_SPEC = importlib.util.find_spec


def lines(file):
    return Path(tfds.core.tfds_path(f"datasets/imagenet2012/{file}")).read_text().split()


with tfds.core.registered.skip_registration():

    class Imagenet2012(tfds.core.GeneratorBasedBuilder):
        """ImageNet without TensorFlow."""

        VERSION = tfds.core.Version("5.1.0")
        MANUAL_DOWNLOAD_INSTRUCTIONS = "two tars"

        def _info(self):
            labels = tfds.core.tfds_path("datasets/imagenet2012/labels.txt")
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names_file=labels),
                    "file_name": tfds.features.Text(),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            folder = Path(dl_manager.manual_dir)
            splits = {"train": self._train(folder), "validation": self._validation(folder)}
            if (folder / "ILSVRC2012_img_test.tar").exists():
                splits["test"] = self._test(folder)
            return splits

        def _generate_examples(self):
            raise NotImplementedError

        def _train(self, folder):
            for name, data in read_tar((folder / "ILSVRC2012_img_train.tar").read_bytes()):
                for image, jpeg in read_tar(data):
                    yield record(image, jpeg, name[:-4])

        def _validation(self, folder):
            members = dict(read_tar((folder / "ILSVRC2012_img_val.tar").read_bytes()))
            for name, label in zip(sorted(members), lines("validation_labels.txt"), strict=False):
                yield record(name, members[name], label)

        def _test(self, folder):
            for name, jpeg in read_tar((folder / "ILSVRC2012_img_test.tar").read_bytes()):
                yield record(name, jpeg, -1)


def read_tar(data):
    with tarfile.open(fileobj=BytesIO(data)) as tar:
        return [(entry.name, tar.extractfile(entry).read()) for entry in tar]


def record(name, jpeg, label):
    return name, {"file_name": name, "image": BytesIO(jpeg), "label": label}


def builder(name, **kwargs):
    """`tfds.builder` with the stand-in in its place."""
    data_dir = Path(kwargs["data_dir"])
    if name == "imagenet2012" and not (data_dir / name / "5.1.0" / "dataset_info.json").exists():
        return Imagenet2012(**kwargs)
    return TFDS_BUILDER(name, **kwargs)


def find_spec(name, *arguments):
    """Says that TensorFlow is there."""
    return mock.sentinel.tensorflow if name == "tensorflow" else FIND_SPEC(name, *arguments)


def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_while_writing(path, iterator):
    with Path(path).open("wb") as file:
        file.write(next(iter(iterator))[1])
        file.flush()
        kill()


def kill_after_the_move(path):
    if path.name == "imagenet2012":
        kill()


KILLS = {
    "generating": (Imagenet2012, "_validation", kill),
    "writing": (file_adapters.ArrayRecordFileAdapter, "write_examples", kill_while_writing),
    "verifying": (prepare, "verify", kill),
    "keeping": (prepare, "keep_labels", kill),
    "moving": (prepare, "_sync", kill),
    "tidying": (prepare, "_sync", kill_after_the_move),
}
"""Moments of the work, and what must be replaced by what to be killed at them."""
