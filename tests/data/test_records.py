"""Data sets in memory and in folders need no packages for records; damaged records are named."""

import os
import subprocess
import sys

import pytest

from senet_jax.data.sources import RecordSource
from senet_jax.data.tfds_pictures import ImagesInRecords
from senet_jax.errors import UsageError


def test_the_sources_of_images_import_no_package_for_records():
    code = "import sys, senet_jax.tasks.classification; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"tensorflow_datasets", "array_record", "grain"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: None, r"images\.array_record is missing"),
        (os.mkfifo, r"images\.array_record is no regular file"),
        (lambda file: file.write_bytes(b"no records"), r"\(.+\): prepare it again"),
    ],
)
@pytest.mark.parametrize("opened", [ImagesInRecords, lambda files: RecordSource(files, "train")])
def test_files_that_hold_no_records_are_named(tmp_path, opened, make, reason):
    file = tmp_path / "images.array_record"
    make(file)
    with pytest.raises(UsageError, match=f"{tmp_path} is not whole .*{reason}"):
        opened([file])
