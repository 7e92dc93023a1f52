"""Other labels for the images of a split: ImageNet-ReaL's, and those of sets of one's own.

A label file is JSON, in one of two forms:

- a list: item i is for image i + 1 by number where the images are ImageNet's validation images,
  whose names end in their number (ILSVRC2012_val_00000123.JPEG), else for image i in the order of
  the split. This is the form of ImageNet-ReaL ("Are we done with ImageNet?", arXiv 2006.07159).
- an object: from the name of an image, with or without its folders, to what it shows.

What an image shows is a label (a whole number from 0), the name of a class, or a list of those,
each of which is right; images with an empty list are not counted.
"""

import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jaxtyping import Int

from senet_jax.data.look_alikes import look_alike, spelled
from senet_jax.errors import UsageError
from senet_jax.files import read_json
from senet_jax.text import printable

_NUMBERED = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.JPEG")


def read_labels(file: Path, names: list[str], classes: list[str]) -> Int[np.ndarray, "images most"]:
    """Reads the valid labels of the images of a split.

    TFDS shuffles the validation images, so that ImageNet's are found by their names.

    Args:
        file: A label file.
        names: Names of the images, in the order of the split.
        classes: Names of the classes, in the order of their labels.

    Returns:
        The valid labels of each image, filled up with -1.

    Raises:
        UsageError: A file that cannot be read as labels, is for another number of images, lacks
            one, or has a label or class that does not exist.
    """
    values = read_json(file, "labels in JSON")
    if isinstance(values, list):
        items = _by_position(file, values, names)
    elif isinstance(values, dict):
        items = _by_name(file, values, names)
    else:
        raise UsageError(
            f"{file} must hold a list or an object of labels, not {type(values).__name__}."
        )
    known = {name: label for label, name in enumerate(classes)}
    sets = [
        [_label(file, name, x, known) for x in (item if isinstance(item, list) else [item])]
        for name, item in zip(names, items, strict=True)
    ]
    valid = np.full((len(sets), max([1, *map(len, sets)])), -1, np.int32)
    for row, labels in zip(valid, sets, strict=True):
        row[: len(labels)] = labels
    return valid


def _by_position(file: Path, values: list[Any], names: list[str]) -> list[Any]:
    matches = [_NUMBERED.fullmatch(name) for name in names]
    if all(matches):
        places = [int(match[1]) - 1 for match in matches if match]
        # The numbers, not the count: of 50,000 labels a part of the images needs a part.
        if max(places) >= len(values) or min(places) < 0:
            raise UsageError(
                f"{file} has labels of {len(values):,} images, and the split has image number "
                f"{max(places) + 1:,}."
            )
        return [values[place] for place in places]
    if len(values) != len(names):
        raise UsageError(
            f"{file} has labels of {len(values):,} images, and the split has {len(names):,}."
        )
    return values


def _by_name(file: Path, values: dict[str, Any], names: list[str]) -> list[Any]:
    last = [PurePath(name).name for name in names]
    unique = len(set(last)) == len(last)
    items = []
    for name in names:
        parts = PurePath(name).parts
        # The whole name, then without one folder more and more; a bare file only if it is one.
        keys = [name, *("/".join(parts[start:]) for start in range(1, len(parts)))]
        keys = keys if unique or len(parts) == 1 else keys[:-1]
        key = next((key for key in keys if key in values), None)
        if key is None:
            raise UsageError(
                f"{file} has no label of the image {printable(name)}"
                f"{_composed_otherwise(name, keys, values)}."
            )
        items.append(values[key])
    return items


def _label(file: Path, name: str, value: Any, known: dict[str, int]) -> int:
    if isinstance(value, str) and value in known:
        return known[value]
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(known):
        return value
    hint = _composed_otherwise(value, [value], known) if isinstance(value, str) else ""
    shown = repr(value) if len(repr(value)) <= LONGEST else f"{repr(value)[:LONGEST]}..."
    raise UsageError(
        f"{file} has the unknown label {shown} of the image {printable(name)}{hint}: labels are 0 "
        f"to {len(known) - 1} or names of classes."
    )


def _composed_otherwise(name: str, keys: Iterable[str], known: Iterable[str]) -> str:
    """Says that a name that is looked for exists in another form of Unicode."""
    pairs = [(key, alike) for key in keys if (alike := look_alike(key, known))]
    if not pairs:
        return ""
    return (
        ", but one that looks the same and is composed otherwise in Unicode "
        f"({spelled(pairs[0])}): write it in one form"
    )


LONGEST = 80
"""Letters of a label that a message shows."""
