"""Finds the pairs of images and labels below the folder of a set."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from senet_jax.data.image_search import LeftOut, find_images, is_folder
from senet_jax.data.scene_files import NAMED, Pair
from senet_jax.errors import UsageError, choose
from senet_jax.files import read_text
from senet_jax.text import printable

Key = Callable[[str], str | None]
"""From the path of a file below its folder to what image and label have in common; None of a file
that is neither."""


def stem(path: str) -> str | None:
    """The path without its suffix: ``a/b.jpg`` and ``a/b.png`` belong together."""
    return str(PurePosixPath(path).with_suffix(""))


def ending(end: str) -> Key:
    """The paths that end so, without that end; Cityscapes has several files a scene."""

    def key(path: str) -> str | None:
        return path.removesuffix(end) if path.endswith(end) else None

    return key


def pairs_of_folders(
    root: Path, images: str, labels: str, image_key: Key = stem, label_key: Key = stem
) -> tuple[Pair, ...]:
    """The pairs of two folders, and of the folders in them, by their names; sorted.

    Args:
        root: The folder of the set.
        images: The folder of the images, below it.
        labels: The folder of the labels, below it.
        image_key: The part of an image's name that its label has, too.
        label_key: The part of a label's name that its image has, too.

    Raises:
        UsageError: A folder is not there or has no images, an image has no label, or a label no
            image; the message names the first of them.
    """
    found = by_key(root, images, image_key), by_key(root, labels, label_key)
    return match(*found, root, images, labels)


def by_key(root: Path, folder: str, key: Key) -> dict[str, str]:
    """The image files in a folder and the folders in it, by what their names say.

    Raises:
        UsageError: There is no such folder, or two files have the same key.
    """
    if not is_folder(root / folder):
        raise UsageError(f"there is no folder {printable(str(root / folder))}.")
    files: dict[str, str] = {}
    for path in find_images(root / folder, LeftOut()):
        name = key(path)
        if name is None:
            continue
        if name in files:
            both = " and ".join(printable(each) for each in (files[name], f"{folder}/{path}"))
            raise UsageError(
                f"{printable(str(root))} has two files for one scene, {both}: remove one."
            )
        files[name] = f"{folder}/{path}"
    return files


def match(
    images: Mapping[str, str], labels: Mapping[str, str], root: Path, of: str, to: str
) -> tuple[Pair, ...]:
    """Pairs images and labels of the same keys, sorted by them.

    Args:
        images: Paths of the images by their keys.
        labels: Paths of the labels by theirs.
        root: The folder of the set, for the message.
        of: The folder of the images, for the message.
        to: That of the labels.

    Raises:
        UsageError: One is left without the other, or there is none.
    """
    without_label = [images[key] for key in sorted(images.keys() - labels.keys())]
    without_image = [labels[key] for key in sorted(labels.keys() - images.keys())]
    faults = []
    if without_label:
        faults.append(
            f"{_count(without_label, 'image')} without a label in {to} ({_some(without_label)})"
        )
    if without_image:
        faults.append(
            f"{_count(without_image, 'label')} without an image in {of} ({_some(without_image)})"
        )
    where = printable(str(root))
    if faults:
        raise UsageError(f"{where} has {' and '.join(faults)}: add what is missing or remove them.")
    if not images:
        raise UsageError(f"{where} has no images in {of} with labels in {to}.")
    return tuple(Pair(images[key], labels[key]) for key in sorted(images, key=_by_parts))


def read_list(file: Path, kind: str) -> list[str]:
    """The names in a list, one a line; empty lines are left out.

    Args:
        file: The list.
        kind: The things that it lists, for the message: "the images of a split", ...

    Raises:
        UsageError: It cannot be read, is empty, or has a name twice.
    """
    names = [line.strip() for line in read_text(file, kind).splitlines() if line.strip()]
    if not names:
        raise UsageError(f"{printable(str(file))} is empty: it must have {kind}, one a line.")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"{printable(str(file))} has {printable(name)} twice: remove one.")
        seen.add(name)
    return names


def listed_pairs(
    root: Path, names: Iterable[str], images: Mapping[str, str], labels: Mapping[str, str], to: str
) -> tuple[Pair, ...]:
    """The pairs of some names, in their order.

    Args:
        root: The folder of the set, for the message.
        names: Names in a list: keys, or paths of images below their folder.
        images: Paths of the images by their keys.
        labels: Paths of the labels by theirs.
        to: The folder of the labels, for the message.

    Raises:
        UsageError: A name has no image or no label; the message names the first of them.
    """
    wanted = [name if name in images else stem(name) or name for name in names]
    no_image = [key for key in wanted if key not in images]
    no_label = [key for key in wanted if key in images and key not in labels]
    faults = []
    if no_image:
        faults.append(
            f"{_count(no_image, 'name')} of its list without an image ({_some(no_image)})"
        )
    if no_label:
        faults.append(f"{_count(no_label, 'image')} without a label in {to} ({_some(no_label)})")
    if faults:
        raise UsageError(
            f"{printable(str(root))} has {' and '.join(faults)}: add what is missing or take the "
            "names out of the list."
        )
    return tuple(Pair(images[key], labels[key]) for key in wanted)


def find_root(directory: Path, places: Iterable[str], wanted: str, name: str) -> Path:
    """The folder below a directory that has what a set needs.

    Args:
        directory: The one that the user names.
        places: Its possible folders below that, such as "VOCdevkit/VOC2012"; "" is the directory.
        wanted: A folder that it has.
        name: The name of the set, for the message.

    Raises:
        UsageError: It is in none of the places.
    """
    for place in places:
        if is_folder(directory / place / wanted):
            return directory / place
    raise UsageError(
        f"there is no {name} in {printable(str(directory))}: it has no folder "
        f"{' or '.join(str(PurePosixPath(place) / wanted) for place in places)}."
    )


def choose_split(asked: str | None, usual: str, there: Iterable[str]) -> str:
    """The held-out split.

    Raises:
        UsageError: The set has no such split.
    """
    return choose("split", asked or usual, there)


def _by_parts(key: str) -> list[str]:
    return key.split("/")


def _count(names: list[str], noun: str) -> str:
    return f"{len(names):,} {noun}{'s' * (len(names) > 1)}"


def _some(names: list[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:NAMED])
    return f"{shown}, ..." if len(names) > NAMED else shown
