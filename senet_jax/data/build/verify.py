"""A check that a data set on the disk is complete: each record is read once, its label kept."""

import contextlib
import dataclasses
import functools
import logging
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32
from tqdm import tqdm

from senet_jax.data.decode import Unreadable, read_size
from senet_jax.data.stored_labels import Damaged, label_file, stored_labels
from senet_jax.data.tfds_folder import open_prepared
from senet_jax.files import write_whole

LOGGER = logging.getLogger(__name__)

RECORDS_AT_ONCE = 64
"""The records that a thread holds in memory."""


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of which every record has been read."""

    name: str
    labels: Int32[np.ndarray, " n"]
    """Label of every record, in their order; -1 for none."""
    classes: int
    """The number of classes of the data set."""
    unreadable: tuple[int, ...] = ()
    """Records whose image has no readable header; not known of a set that was verified before."""

    def __str__(self) -> str:
        summary = f"{self.name}: {len(self.labels):,} images"
        images = np.bincount(self.labels[self.labels >= 0], minlength=self.classes)
        images = images[images > 0]
        if not len(images):
            return f"{summary} without labels"
        summary += f" in {len(images):,} of {self.classes:,} classes, {images.min():,}"
        if images.min() == images.max():
            return f"{summary} each"
        return f"{summary} to {images.max():,} each, {np.median(images):,.0f} in the median"


def verify(folder: Path, expected: Mapping[str, Counter[int]] | None = None) -> list[Split]:
    """Reads every record of a data set, and the header of its image.

    Args:
        folder: The folder of a set that TFDS has written as ``array_record``.
        expected: The images of each label that each split should have; None means that nothing is
            known but what ``dataset_info.json`` says.

    Raises:
        Damaged: A file is missing or truncated, a record cannot be read, or the labels are others
            or no classes.
        UsageError: What TFDS wrote beside the records is damaged.
    """
    import tensorflow_datasets as tfds

    info = open_prepared(folder).info
    decoders = {"image": tfds.decode.SkipDecoding()}
    shards = _shards(folder, info)
    bar = tqdm(
        desc="Reading every record",
        total=sum(length for *_, length in shards),
        unit=" records",
        disable=None,
        leave=False,
    )
    lock = threading.Lock()

    def read(shard: tuple[str, Path, int]) -> list[tuple[int, bool]]:
        """Label of every record of a shard, and whether its image has a header."""
        _, file, length = shard
        found = []
        with contextlib.closing(_open(file, length)) as reader:
            for start in range(0, length, RECORDS_AT_ONCE):
                stop = min(start + RECORDS_AT_ONCE, length)
                try:
                    rows = [
                        info.features.deserialize_example_np(data, decoders=decoders)
                        for data in reader.read(start, stop)
                    ]
                except Exception as error:
                    # Riegeli and protobuf raise classes of their own.
                    raise Damaged(
                        f"{file.name}: of the records {start:,} to {stop - 1:,} one cannot be read "
                        f"({error})"
                    ) from error
                found += [(int(row["label"]), _has_header(row["image"])) for row in rows]
                with lock:
                    bar.update(stop - start)
        return found

    splits: dict[str, list[tuple[int, bool]]] = {name: [] for name in info.splits}
    with ThreadPoolExecutor() as pool, bar:
        for (name, *_), found in zip(shards, pool.map(read, shards), strict=True):
            splits[name] += found
    if expected is not None:
        _compare(splits, expected)
    classes = info.features["label"].num_classes
    for name, found in splits.items():
        for index, (label, _) in enumerate(found):
            if not -1 <= label < classes:
                raise Damaged(
                    f"record {index:,} of {name} has the label {label}, and features.json and "
                    f"label.labels.txt name {classes} classes"
                )
    return [
        Split(
            name,
            np.array([label for label, _ in found], np.int32),
            classes,
            tuple(index for index, (_, intact) in enumerate(found) if not intact),
        )
        for name, found in splits.items()
    ]


def keep_labels(folder: Path, splits: list[Split]) -> None:
    """Writes the labels of each split beside its records, atomically.

    Raises:
        UsageError: A file cannot be written.
    """
    for split in splits:
        encoded = BytesIO()
        np.save(encoded, split.labels)
        write_whole(label_file(folder, split.name), functools.partial(_write, encoded.getvalue()))


def _write(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def verified(folder: Path) -> list[Split] | None:
    """The findings of an earlier :func:`verify`, after a look at the end of each file.

    Returns:
        The splits; None if the labels that would prove it have not been kept.

    Raises:
        Damaged: A file is missing or truncated.
        UsageError: What TFDS wrote beside the records is damaged.
    """
    info = open_prepared(folder).info
    for _, file, length in _shards(folder, info):
        _open(file, length).close()
    splits = []
    for name, split in info.splits.items():
        classes = info.features["label"].num_classes
        try:
            labels = stored_labels(folder, name)
        except Damaged as error:
            LOGGER.warning("%s: every record is read again", error)
            return None
        if labels is None or len(labels) != split.num_examples:
            return None
        if labels.size and not -1 <= labels.min() <= labels.max() < classes:
            return None
        splits.append(Split(name, labels, classes))
    return splits


def _shards(folder: Path, info: Any) -> list[tuple[str, Path, int]]:
    """Split, file and number of records of every shard, in order."""
    shards = [
        (name, folder / file, length)
        for name, split in info.splits.items()
        for file, length in zip(split.filenames, split.shard_lengths, strict=True)
    ]
    if not shards:
        raise Damaged("dataset_info.json names no splits")
    return shards


def _open(file: Path, length: int) -> Any:
    from array_record.python import array_record_module

    if not file.is_file():
        raise Damaged(f"{file.name} is missing")
    reader = array_record_module.ArrayRecordReader(str(file))
    # A file that is cut off opens without an error, and has no records.
    if reader.num_records() != length:
        raise Damaged(f"{file.name} has {reader.num_records():,} records where {length:,} belong")
    return reader


def _has_header(data: bytes) -> bool:
    try:
        return min(read_size(data)) > 0
    except Unreadable:
        return False


def _compare(
    splits: Mapping[str, list[tuple[int, bool]]], expected: Mapping[str, Counter[int]]
) -> None:
    if splits.keys() != expected.keys():
        raise Damaged(f"its splits are {', '.join(splits)}, where {', '.join(expected)} belong")
    for name, labels in expected.items():
        found = Counter(label for label, _ in splits[name])
        for label in sorted(labels | found):
            if labels[label] != found[label]:
                raise Damaged(
                    f"{name} has {found[label]:,} images of label {label}, where the archives have "
                    f"{labels[label]:,}"
                )
