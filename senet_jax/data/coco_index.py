"""The index of a file in COCO's format: built once, stored as arrays, mapped by every process."""

import dataclasses
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from senet_jax.data.coco_json import CocoArrays, read_coco, runs_of_text
from senet_jax.errors import UsageError
from senet_jax.files import make_folder, os_reason, read_bytes

VERSION = 2
"""Version of the stored arrays; an index of another version is built anew."""


@dataclasses.dataclass(frozen=True)
class CocoObjects:
    """The objects of one image."""

    ids: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray


class CocoIndex:
    """Images and objects of a file of annotations, by the position of the image.

    Args:
        arrays: The arrays.
        folder: Their folder; None if they are in memory alone.
    """

    def __init__(self, arrays: CocoArrays, folder: Path | None = None) -> None:
        self.arrays, self._folder = arrays, folder

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the same files; a pickle of the arrays would be a copy of them.
        if self._folder is None:
            return CocoIndex, (self.arrays,)
        return _mapped, (self._folder,)

    def __len__(self) -> int:
        return len(self.arrays.image_ids)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels, which is that of the category ids."""
        return tuple(map(str, self.arrays.category_names))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was left out."""
        return tuple(map(str, self.arrays.notes))

    def objects(self, image: int) -> CocoObjects:
        """The objects of an image, crowd regions among them.

        Args:
            image: Position of the image, from 0.
        """
        arrays, rows = self.arrays, self._rows(image)
        return CocoObjects(
            arrays.ids[rows],
            arrays.boxes[rows],
            arrays.areas[rows],
            arrays.labels[rows],
            arrays.crowd[rows],
        )

    def masks(self, image: int) -> np.ndarray:
        """The masks (objects, height, width) of an image, bool; those without polygons are empty.

        Args:
            image: Position of the image, from 0.
        """
        height, width = map(int, self.arrays.sizes[image])
        rows = self._rows(image)
        masks = np.zeros((rows.stop - rows.start, height, width), bool)
        for mask, row in zip(masks, range(rows.start, rows.stop), strict=True):
            parts = [self._part(part) for part in range(*self.arrays.first_part[row : row + 2])]
            if parts:
                mask[:] = _decoded(parts, bool(self.arrays.is_runs[row]), height, width)
        return masks

    def check_files(self, folder: Path) -> None:
        """Checks that the images of the file are there.

        Args:
            folder: Their folder.

        Raises:
            UsageError: Some are not there.
        """
        there = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
        names = [str(name) for name in self.arrays.file_names]
        missing = [name for name in names if name not in there and not (folder / name).is_file()]
        if missing:
            raise UsageError(
                f"{folder} lacks {len(missing)} of the {len(names)} images that the annotations "
                f"name, such as {missing[0]}: give the folder in which they lie."
            )

    def _rows(self, image: int) -> slice:
        return slice(int(self.arrays.first[image]), int(self.arrays.first[image + 1]))

    def _part(self, number: int) -> np.ndarray:
        return self.arrays.values[slice(*self.arrays.first_value[number : number + 2])]


def _decoded(parts: list[np.ndarray], runs: bool, height: int, width: int) -> np.ndarray:
    """The pixels of a mask."""
    if runs:
        lengths = parts[0].astype(np.int64)
    else:
        codes = coco_mask.frPyObjects([part.tolist() for part in parts], height, width)
        text = coco_mask.merge(codes)["counts"].decode("ascii")
        lengths = np.array(runs_of_text(text), np.int64)
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape(width, height).T


def open_coco(path: Path, cache: Path | None = None) -> CocoIndex:
    """Opens the index of a file of annotations, and builds it where it is not stored yet.

    The arrays are mapped into memory, so that processes share them. They are stored under the hash
    of the file: a file that was changed is read anew.

    Args:
        path: A JSON file in COCO's format.
        cache: Folder of the indices of any number of files; None means one below the user's folder
            of caches.

    Raises:
        UsageError: The file is refused, see ``read_coco``, or the folder cannot be written.
    """
    try:
        digest = hashlib.blake2b(read_bytes(path), digest_size=16).hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {os_reason(error)}.") from error
    return stored_index(digest, lambda: read_coco(path), cache)


def stored_index(
    digest: str, build: Callable[[], CocoArrays], cache: Path | None = None
) -> CocoIndex:
    """The index that is stored under the hash of what it is made of, and built where it is not.

    Args:
        digest: The hash.
        build: Makes the arrays.
        cache: Folder of all indices; None means one below the user's folder of caches.

    Raises:
        UsageError: As ``build``, or the folder cannot be written or is damaged.
    """
    folder = (cache or index_folder()) / f"{digest}-{VERSION}"
    if not folder.is_dir():
        _store(build(), folder)
    return _mapped(folder)


def index_folder() -> Path:
    """The folder of the indices, below the user's folder of caches (``XDG_CACHE_HOME``)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "senet_jax" / "coco"


def _mapped(folder: Path) -> CocoIndex:
    """The index that is stored in a folder."""
    names = [field.name for field in dataclasses.fields(CocoArrays)]
    try:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(
            f"the index {folder} is damaged: remove it, and it is built anew."
        ) from error
    return CocoIndex(CocoArrays(**arrays), folder)


def _store(arrays: CocoArrays, folder: Path) -> None:
    """Writes a folder that appears whole or not at all, whichever process is first."""
    make_folder(folder.parent)
    partial = folder.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir()
        for field in dataclasses.fields(arrays):
            np.save(partial / f"{field.name}.npy", getattr(arrays, field.name))
        partial.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # no other process was faster
            raise UsageError(f"{folder} cannot be written: {os_reason(error)}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
