"""Records of TensorFlow Datasets: files of ArrayRecord that hold examples of TensorFlow.

The packages are imported where they are used: together they take most of a second, which data sets
of other kinds need not wait for, and a machine that reads none need not have them.
"""

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from senet_jax.errors import UsageError


def read_records(files: Sequence[Path]) -> Any:
    """The records of a split, as a sequence of bytes.

    Args:
        files: The files, in order. They stay open.

    Raises:
        UsageError: A file is missing, no regular file or damaged.
        ImportError: The package that reads them is not there.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    folder = files[0].parent
    _allow_open_files(len(files))
    for file in files:
        if not file.is_file():
            why = "is no regular file" if file.exists() else "is missing"
            raise UsageError(f"{folder} is not whole ({file.name} {why}): prepare it again.")
    try:
        return ArrayRecordDataSource([str(file) for file in files])
    # The errors of array_record for damaged files have no common base.
    except Exception as error:
        raise UsageError(f"{folder} is not whole ({error}): prepare it again.") from error


def features_of(record: bytes) -> Any:
    """The features of a record, by name: messages of tf.train.Feature.

    Raises:
        Exception: The record is damaged; the errors of protobuf have no common base.
    """
    from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

    return tf_example.Example.FromString(record).features.feature


def _allow_open_files(more: int) -> None:
    """Raises the number of files that this process and its workers may have open, if it must.

    Each file of a split stays open, ImageNet has 1,024 of them, and so many are the usual limit.
    """
    wanted = len(list(Path("/dev/fd").iterdir())) + more + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


SPARE_FILES = 512
"""Files that are opened later, for checkpoints and the like, at the most."""
