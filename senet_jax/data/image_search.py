"""Finds the image files in folders, and counts the entries that it leaves out.

One rule for the classes of a data set and for the folders of ``predict``: files with the suffix of
an image, in the folder and in its folders. Hidden entries are no data, only regular files and links
to them are taken, and a folder is searched once, however many links lead to it; a link to a folder
that it lies in itself is not followed.
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from senet_jax.data.formats import IMAGE_SUFFIXES
from senet_jax.errors import UsageError
from senet_jax.files import os_reason
from senet_jax.text import printable

HIDDEN = "hidden"
NO_SUFFIX = "without the suffix of an image"
NOT_REGULAR = "other than regular files"
SEARCHED = "leading to a folder above or to one that is searched already"
OUTSIDE = "outside the folders of the classes"
"""Reasons to leave an entry of a folder out."""

SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found")
"""Folders of operating systems and of archives, such as thumbnails, which count as hidden."""

NAMED = 3
"""Entries that are named for each reason."""


@dataclasses.dataclass
class LeftOut:
    """Counts the entries of folders that are not taken as images."""

    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    """Number of entries by reason."""
    names: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    """The first of them by reason."""

    def add(self, reason: str, name: str) -> None:
        """Counts an entry."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        names = self.names.setdefault(reason, [])
        if len(names) < NAMED:
            names.append(printable(name))

    def __str__(self) -> str:
        """A part of a sentence, such as "2 hidden (.a, .b), 1 without ... (notes.txt)"."""
        return ", ".join(
            f"{count:,} {reason} ({', '.join(self.names[reason])}"
            f"{', ...' if count > len(self.names[reason]) else ''})"
            for reason, count in self.counts.items()
        )

    def clause(self) -> str:
        """The end of a sentence that says what is missing; empty if nothing is left out."""
        return f"; left out are {self}" if self.counts else ""

    def sentence(self, folder: str | Path) -> str:
        """Says what is left out of a folder; empty if nothing is."""
        total = sum(self.counts.values())
        if not total:
            return ""
        are = "entry is" if total == 1 else "entries are"
        return f"{printable(str(folder))}: {total:,} {are} left out: {self}"


def find_images(folder: Path, left_out: LeftOut, prefix: str = "") -> list[str]:
    """Finds the images in a folder and its folders.

    Args:
        folder: The folder.
        left_out: Counts the other entries.
        prefix: Stands before the names in ``left_out`` and in the result, such as "cat/".

    Returns:
        The paths below the folder, sorted folder by folder.

    Raises:
        UsageError: A folder cannot be listed.
    """
    found: list[str] = []
    searched = identities(folder)
    waiting = [(folder, prefix)]
    while waiting:
        place, above = waiting.pop()
        for entry, leads_on in list_entries(place, left_out, above):
            name = above + entry.name
            if not leads_on:
                found.append(name)
            elif (found_again := identity(entry.path)) in searched:
                left_out.add(SEARCHED, name)
            else:
                searched.add(found_again)
                waiting.append((Path(entry.path), f"{name}/"))
    return sorted(found, key=lambda name: name.split("/"))


def list_entries(
    folder: Path, left_out: LeftOut, prefix: str = ""
) -> Iterator[tuple["os.DirEntry[str]", bool]]:
    """Yields the images and the folders in a folder, sorted, and whether each is a folder.

    Arguments and errors as ``find_images``.
    """
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(
            f"{printable(str(folder))} cannot be listed: {os_reason(error)}."
        ) from error
    for entry in entries:
        name = prefix + entry.name
        if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
            left_out.add(HIDDEN, name)
        elif (kind := _kind(entry)) == "folder":
            yield entry, True
        elif kind is None:
            left_out.add(NOT_REGULAR, name)
        elif os.path.splitext(entry.name)[1].lower() not in IMAGE_SUFFIXES:  # noqa: PTH122
            left_out.add(NO_SUFFIX, name)
        else:
            yield entry, False


def _kind(entry: "os.DirEntry[str]") -> str | None:
    """Returns "folder" or "file", through links; None for a FIFO, a broken link and the like."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() else None
    except OSError:  # a link that leads to itself
        return None


def is_folder(path: Path) -> bool:
    """Tells whether a path leads to a folder; False for one that the system refuses to look at."""
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def identities(folder: Path) -> set[tuple[int, int]]:
    """The identities of a folder and of those that it lies in, by its path and by its links.

    A link to one of them, from within, leads back to images that are not of this folder.
    """
    places = {*_with_parents(folder.absolute()), *_with_parents(folder.resolve())}
    return {identity(place) for place in places}


def _with_parents(folder: Path) -> tuple[Path, ...]:
    return folder, *folder.parents


def identity(folder: str | Path) -> tuple[int, int]:
    """Device and number of a folder, which are the same through every link to it."""
    try:
        status = os.stat(folder)  # noqa: PTH116
    except OSError as error:
        raise UsageError(
            f"{printable(str(folder))} cannot be listed: {os_reason(error)}."
        ) from error
    return status.st_dev, status.st_ino
