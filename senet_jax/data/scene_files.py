"""Scenes in files: pairs of an image and a file of labels, and the check of all of them."""

import dataclasses
import functools
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int

from senet_jax.data.decode import Unreadable, decode, read_size
from senet_jax.data.label_files import BadValue, LabelMap, Labels, decode_label, label_size
from senet_jax.data.scenes import Scene, Survey
from senet_jax.data.set_files import read_set_file
from senet_jax.errors import UsageError
from senet_jax.files import make_folder, write_whole
from senet_jax.text import printable

LOGGER = logging.getLogger(__name__)

NAMED = 3
"""Files that a message names for each fault."""

MANY = 2000
"""From this number of scenes on, the log says that the labels are read to check them."""

Value = TypeVar("Value")


class Pair(NamedTuple):
    """A scene's files, as paths below the folder of the set."""

    image: str
    label: str


@dataclasses.dataclass(frozen=True)
class FileScenes:
    """Scenes whose images and labels are files below a folder."""

    folder: Path
    pairs: tuple[Pair, ...]
    numbers: LabelMap
    """The numbers that stand for the classes in the files."""
    exif_orientation: bool = False
    """Turn images, not labels, as their EXIF says."""

    image_shape = None

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The path of the image."""
        return str(self.folder / self.pairs[index].image)

    def taken(self, indices: Int[np.ndarray, " n"]) -> "FileScenes":
        """As ``Scenes.taken``."""
        pairs = tuple(self.pairs[index] for index in indices.tolist())
        return dataclasses.replace(self, pairs=pairs)

    def scene(self, index: int) -> Scene:
        """As ``Scenes.scene``."""
        pair = self.pairs[index]
        image = decode(self._read(pair.image), self.exif_orientation)
        label = self._label(pair)
        if image.shape[:2] != label.shape:
            raise UsageError(f"{self._sizes_differ(pair, image.shape, label.shape)}.")
        return Scene(image, label)

    @functools.cached_property
    def sizes(self) -> Int[np.ndarray, "n 2"]:
        """As ``Scenes.sizes``, from the headers of the labels; (1, 1) if one cannot be read."""
        return np.array(_on_all_cores(self._size, self.pairs), np.int32).reshape(-1, 2)

    def _size(self, pair: Pair) -> tuple[int, int]:
        try:
            size = label_size(self._read(pair.label))
            # A label of SBD does not say it so easily.
            return size or read_size(self._read(pair.image), self.exif_orientation)
        except Unreadable:
            return 1, 1

    def survey(self, classes: int) -> Survey:
        """Reads all labels and the size of every image.

        The facts are kept in a folder of the user (``XDG_CACHE_HOME``), and read the next time if
        no file has changed since. A broken image counts, since training replaces it by another.

        Args:
            classes: Number of classes, as many as ``numbers`` has.

        Raises:
            UsageError: A label cannot be read or has a value that is no class, or an image has
                another size than its label; the message names the first files and their values.
        """
        file = _cache_folder() / f"{self._fingerprint()}.npz"
        try:
            with np.load(file) as kept:
                return Survey(kept["sizes"], kept["pixels"])
        # Whatever a damaged file raises: it is made again.
        except Exception:
            LOGGER.debug("no facts are kept in %s", file)
        survey = self._survey(classes)
        _keep(file, survey)
        return survey

    def _survey(self, classes: int) -> Survey:
        if len(self) >= MANY:
            LOGGER.warning(
                "%s: all %s labels are read once, to check them",
                *(printable(str(self.folder)), f"{len(self):,}"),
            )
        faults: dict[str, list[str]] = {}

        def look(pair: Pair) -> tuple[tuple[int, int], Int[np.ndarray, " c"], str, str]:
            nothing = np.zeros(classes, np.int64)
            try:
                label = self._label(pair)
            except Unreadable as error:
                return (0, 0), nothing, _UNREADABLE, f"{printable(pair.label)} ({error})"
            except _BadLabel as error:
                return (0, 0), nothing, _BAD_VALUE, str(error)
            height, width = label.shape
            pixels = np.bincount(label.ravel(), minlength=classes)[:classes]
            try:
                size = read_size(self._read(pair.image), self.exif_orientation)
            except Unreadable:
                # Training replaces a broken image by another one.
                return (height, width), pixels, "", ""
            if size != (height, width):
                return (0, 0), nothing, _SIZES, self._sizes_differ(pair, size, label.shape)
            return (height, width), pixels, "", ""

        sizes, counts = [], []
        for size, pixels, kind, text in _on_all_cores(look, self.pairs):
            sizes.append(size)
            counts.append(pixels)
            if kind:
                faults.setdefault(kind, []).append(text)
        if faults:
            raise UsageError(self._list(faults))
        return Survey(np.array(sizes, np.int32), np.array(counts))

    def _list(self, faults: dict[str, list[str]]) -> str:
        """The sentence that names the first files of each fault."""
        parts = []
        for kind, texts in faults.items():
            more = f" and {len(texts) - NAMED:,} more" if len(texts) > NAMED else ""
            parts.append(f"{kind} ({len(texts):,}): {'; '.join(texts[:NAMED])}{more}")
        allowed = f"; {self.numbers}" if _BAD_VALUE in faults else ""
        return f"{printable(str(self.folder))} has {', and '.join(parts)}{allowed}."

    def _label(self, pair: Pair) -> Labels:
        stored = decode_label(self._read(pair.label))
        try:
            return self.numbers(stored)
        except BadValue as error:
            raise _BadLabel(
                f"{printable(pair.label)} has {error} ({error.pixels:,} "
                f"pixel{'s' * (error.pixels > 1)})"
            ) from error

    def _read(self, name: str) -> bytes:
        return read_set_file(self.folder / name, self.folder)

    def _sizes_differ(self, pair: Pair, image: Sequence[int], label: Sequence[int]) -> str:
        turned = tuple(image[:2]) == tuple(label[::-1]) and image[0] != image[1]
        hint = " (turned by its EXIF? --data.exif-orientation)" if turned else ""
        return (
            f"{printable(pair.image)} has {image[0]}x{image[1]} pixels and "
            f"{printable(pair.label)} {label[0]}x{label[1]}{hint}"
        )

    def _fingerprint(self) -> str:
        """A checksum of all that ``survey`` depends on: names, sizes and times of the files."""
        digest = hashlib.sha256(repr((_VERSION, self.numbers, self.exif_orientation)).encode())
        for stamp in _on_all_cores(self._stamp, self.pairs):
            digest.update(stamp)
        return digest.hexdigest()

    def _stamp(self, pair: Pair) -> bytes:
        facts: list[object] = [str(self.folder.absolute())]
        for name in pair:
            try:
                status = (self.folder / name).stat()
                facts += [name, status.st_size, status.st_mtime_ns]
            except OSError:
                facts += [name, None]
        return repr(facts).encode(errors="backslashreplace")


class _BadLabel(UsageError):
    """A label that is no class; the message names the file and the value."""


_UNREADABLE = "labels that cannot be read"
_BAD_VALUE = "labels with a value that is no class"
_SIZES = "images of another size than their label"
"""Faults, as the message has them before their number."""

_VERSION = 1
"""Changes with what ``Survey`` holds."""


def _on_all_cores(function: Callable[[Pair], Value], pairs: Iterable[Pair]) -> list[Value]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, pairs))


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "senet_jax" / "scenes"


def _keep(file: Path, survey: Survey) -> None:
    """Writes the facts; without a folder that can be written they are not kept."""

    def write(partial: Path) -> None:
        with partial.open("wb") as opened:
            np.savez_compressed(opened, sizes=survey.sizes, pixels=survey.pixels)

    try:
        make_folder(file.parent)
        write_whole(file, write)
    except UsageError as error:
        LOGGER.debug("the facts of the labels are not kept: %s", error)
