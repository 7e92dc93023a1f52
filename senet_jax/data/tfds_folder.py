"""Data sets that TensorFlow Datasets has prepared, found and opened from their files alone.

``tfds.builder`` is not used to read: for a set that is not there it asks a server and leaves a
folder in the place for temporary files behind.
"""

import re
from pathlib import Path
from typing import Any

from senet_jax.data.image_search import is_folder
from senet_jax.errors import UsageError
from senet_jax.files import os_reason, read_json_object, read_text
from senet_jax.text import printable

INFO, FEATURES = "dataset_info.json", "features.json"
"""The files that TFDS writes beside the records."""


def expanded(path: Path) -> Path:
    """A path with "~" replaced by the home of a user.

    Raises:
        UsageError: There is no such user.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path} names the home of a user who is not known: {error}") from error


def find_prepared(name: str, root: Path) -> Path | None:
    """Finds the folder of a prepared set, the newest version if none is named; None without one.

    Args:
        name: As TFDS writes it: "cifar10", "cifar10:3.0.2", "imagenet_resized/64x64", ...
        root: The data directory of TFDS.
    """
    from tensorflow_datasets.core.utils.version import list_all_versions

    path, _, wanted = name.partition(":")
    if wanted and not _VERSION.fullmatch(wanted):
        return None
    base, _, config = path.partition("/")
    if not is_folder(root / base):
        return None
    configs = [config] if config else ["", _default_config(base)]
    for place in (root / base / config for config in configs if config is not None):
        versions = [
            version
            for version in list_all_versions(place)
            if any((place / str(version) / file).exists() for file in (INFO, FEATURES))
            and (not wanted or version.match(wanted))
        ]
        if versions:
            return place / str(versions[-1])
    return None


_VERSION = re.compile(r"(\d+|\*)(\.(\d+|\*)){2}")
"""A version, of which "*" stands for any part: "3.*.*"."""


def _default_config(base: str) -> str | None:
    """The config that TFDS takes where none is named; None of a set that has none or is unknown."""
    import tensorflow_datasets as tfds

    if base not in tfds.list_builders(with_community_datasets=False):
        return None
    config = tfds.builder_cls(base).default_builder_config
    return None if config is None else str(config.name)


def open_prepared(folder: Path) -> Any:
    """Opens a prepared set: the builder of TFDS, which needs no TensorFlow.

    Args:
        folder: The folder of one version of a set.

    Raises:
        UsageError: What TFDS wrote beside the records is missing, damaged or no regular file.
    """
    import tensorflow_datasets as tfds

    try:
        _check_metadata(folder)
        builder = tfds.builder_from_directory(folder)
        # TFDS reads some of it when it is asked.
        for read in ("features", "splits", "supervised_keys", "file_format"):
            getattr(builder.info, read)
        for split in builder.info.splits.values():
            _ = split.filepaths, split.num_examples
        _check_names(builder.info.features)
        return builder
    # TFDS, protobuf and JSON raise errors without a common base for files that do not fit.
    except Exception as error:
        why = printable(" ".join(str(error).split())[:300].rstrip("."))
        raise UsageError(
            f"the data set in {folder} is damaged ({why}): if the disk is well, delete that folder "
            "and prepare it again."
        ) from error


def _check_names(features: Any) -> None:
    """Checks that there are as many names as classes: TFDS reads fewer or more without a word."""
    import tensorflow_datasets as tfds

    top = features.items() if isinstance(features, tfds.features.FeaturesDict) else ()
    for name, feature in top:
        if isinstance(feature, tfds.features.ClassLabel) and feature.num_classes is not None:
            names = len(feature.names)
            if names != feature.num_classes:
                raise UsageError(
                    f"{name}.labels.txt has {names} names where {FEATURES} says "
                    f"{feature.num_classes} classes"
                )


def check_regular(base: Path) -> None:
    """Checks that TFDS can open its own files in the folders of a set without waiting for ever.

    Args:
        base: The folder of all versions of the set; it need not exist.

    Raises:
        UsageError: One of them is a FIFO, a broken link or the like.
    """
    for kind in ("*.json", "*.txt"):
        for path in base.rglob(kind):
            if not (path.is_file() or path.is_dir()):
                raise UsageError(f"{path} is no regular file: delete it and prepare the set again.")


def _check_metadata(folder: Path) -> None:
    """Checks that TFDS can read its own files, which it opens without a look at what they are."""
    for name in (INFO, FEATURES):
        read_json_object(folder / name, "what TFDS knows of a data set")
    try:
        others = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".txt"))
    except OSError as error:
        raise UsageError(f"{folder} cannot be listed: {os_reason(error)}") from error
    for path in others:
        read_text(path, "what TFDS knows of a data set")
