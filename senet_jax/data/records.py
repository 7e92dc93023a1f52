"""Records of TensorFlow Datasets: files of ArrayRecord that hold examples of TensorFlow.

The packages are imported where they are used: together they take most of a second, which data sets
of other kinds need not wait for, and a machine that reads none need not have them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_records(files: Sequence[Path]) -> Any:
    """The records of a split, as a sequence of bytes.

    Args:
        files: The files, in order.

    Raises:
        Exception: A file is damaged; the errors of array_record have no common base.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource([str(file) for file in files])


def features_of(record: bytes) -> Any:
    """The features of a record, by name: messages of tf.train.Feature.

    Raises:
        Exception: The record is damaged; the errors of protobuf have no common base.
    """
    from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

    return tf_example.Example.FromString(record).features.feature
