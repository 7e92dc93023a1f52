"""A folder of images with a folder for each class, and the names of the classes."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from senet_jax.data.image_search import (
    OUTSIDE,
    SEARCHED,
    LeftOut,
    find_images,
    identities,
    identity,
    is_folder,
    list_entries,
)
from senet_jax.data.look_alikes import look_alike, look_alikes, spelled
from senet_jax.data.set_files import read_set_file
from senet_jax.data.sources import EncodedSource
from senet_jax.errors import UsageError
from senet_jax.text import printable

LOGGER = logging.getLogger(__name__)


class FolderSource(EncodedSource):
    """Images in ``folder/<class>/<file>`` and in the folders of a class.

    Args:
        folder: A folder of one split, with a folder a class.
        classes: The names of the classes, in the order of their labels.

    Raises:
        UsageError: The folder has no images, a folder of a class has none, or there is a class
            that is not among ``classes``.
    """

    def __init__(self, folder: Path, classes: list[str]) -> None:
        left_out = LeftOut()
        own = class_names(folder, left_out)
        _check_known(folder, own, classes)
        self._folder = folder
        self._files: list[str] = []
        labels: list[int] = []
        empty: list[str] = []
        for label, name in enumerate(classes):
            if name not in own:
                continue
            files = find_images(folder / name, left_out, f"{name}/")
            if not files:
                empty.append(name)
            self._files += files
            labels += [label] * len(files)
        if not self._files:
            raise UsageError(
                f"{printable(str(folder))} has no images in folders of classes{left_out.clause()}."
            )
        if empty:
            raise UsageError(
                f"{printable(str(folder))} has no images of {_some(empty)}: add some, or remove "
                f"the empty {'folder' if len(empty) == 1 else 'folders'}{left_out.clause()}."
            )
        self._labels = np.array(labels, np.int32)
        self._tell(left_out, [name for name in classes if name not in own])

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        """Class of every image, in order."""
        return self._labels

    def _tell(self, left_out: LeftOut, absent: list[str]) -> None:
        """Says what a user may not expect of the folder."""
        if sentence := left_out.sentence(self._folder):
            LOGGER.warning("%s", sentence)
        if absent:
            where = printable(str(self._folder))
            LOGGER.warning("%s has no folder of the class %s", where, _some(absent))
        if alike := look_alikes(self._files):
            LOGGER.warning(
                "%s: %d names of images look like others, composed and decomposed in Unicode "
                "(%s): are they copies?",
                *(printable(str(self._folder)), len(alike), spelled(alike[0])),
            )

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        file = self._folder / self._files[index]
        return read_set_file(file, self._folder), int(self._labels[index])

    def name(self, index: int) -> str:
        return str(self._folder / self._files[index])


def _check_known(folder: Path, own: list[str], classes: list[str]) -> None:
    unknown = [name for name in own if name not in set(classes)]
    if not unknown:
        return
    for name in unknown:
        if alike := look_alike(name, classes):
            raise UsageError(
                f"{printable(str(folder))} and the training split write the class "
                f"{printable(name)} differently in Unicode ({spelled([name, alike])}), composed "
                "and decomposed: rename one of the folders."
            )
    raise UsageError(
        f"{printable(str(folder))} has classes that the training split lacks: {_some(unknown)}."
    )


def _some(names: list[str]) -> str:
    """The first names, safe to print."""
    shown = ", ".join(printable(name) for name in names[:NAMED])
    return f"{shown} and {len(names) - NAMED:,} more" if len(names) > NAMED else shown


NAMED = 10
"""Classes that a message names at most."""


def class_names(folder: Path, left_out: LeftOut | None = None) -> list[str]:
    """Names of the classes of a folder: its folders, sorted, without the hidden ones.

    Args:
        folder: A folder of one split.
        left_out: Counts the other entries.

    Raises:
        UsageError: There is no such folder, it cannot be listed, or two classes look alike.
    """
    if not is_folder(folder):
        raise UsageError(
            f"there is no folder {printable(str(folder))}: a folder of images is "
            "DIR/train/<class>/<image> and DIR/val/<class>/<image>; give DIR with --data.dir in "
            "training, with --data-dir elsewhere."
        )
    left_out = LeftOut() if left_out is None else left_out
    names = []
    known = identities(folder)
    for entry, may_be_class in list_entries(folder, left_out):
        if not may_be_class:
            left_out.add(OUTSIDE, entry.name)
        elif (found_again := identity(entry.path)) in known:
            left_out.add(SEARCHED, entry.name)
        else:
            known.add(found_again)
            names.append(entry.name)
    check_class_names(names, printable(str(folder)))
    return names


def check_class_names(names: Sequence[str], where: str) -> None:
    """Checks that a person can tell the names of classes from each other.

    Args:
        names: The names.
        where: Names the data set, for the message.

    Raises:
        UsageError: Two are the same but for how Unicode composes their letters.
    """
    for group in look_alikes(names):
        raise UsageError(
            f"{where} has classes that look alike, composed and decomposed in Unicode: "
            f"{spelled(group)}; give them one name."
        )
