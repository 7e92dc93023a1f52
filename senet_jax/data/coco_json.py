"""Annotations in COCO's JSON format, checked and packed into arrays.

The JSON of COCO's training set has 448 MB and takes gigabytes as Python objects. It is parsed once,
by one process; the arrays are stored beside each other and mapped into the memory of all workers,
see ``coco_index``.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from senet_jax.errors import UsageError
from senet_jax.files import read_json_object

LEAST_SIDE = 1.0
"""Pixels of the shorter side of a box; smaller ones are left out."""
FARTHEST = 1e6
"""Greatest coordinate, in pixels; what is farther is an error of the file."""


@dataclasses.dataclass(frozen=True)
class CocoArrays:
    """Images and objects of a file; objects lie in the order of their images."""

    image_ids: np.ndarray
    file_names: np.ndarray
    sizes: np.ndarray
    """Height and width of each image."""
    first: np.ndarray
    """Number of the first object of each image, and how many there are."""
    ids: np.ndarray
    boxes: np.ndarray
    """x1, y1, x2, y2 in pixels, within the image, float32."""
    areas: np.ndarray
    """Areas of the masks, in square pixels, as the file has them."""
    labels: np.ndarray
    """Positions in ``category_ids``, from 0."""
    crowd: np.ndarray
    """The object is a region with many objects."""
    is_runs: np.ndarray
    """The mask is a run-length code, not polygons."""
    first_part: np.ndarray
    """Number of the first part of each mask: polygons, or one run-length code; and of all."""
    first_value: np.ndarray
    """Position of the first value of each part, and how many there are."""
    values: np.ndarray
    """x and y of polygons in turn, or lengths of runs down the columns, the first one outside."""
    category_ids: np.ndarray
    """Category ids of the file, sorted; there can be gaps."""
    category_names: np.ndarray
    notes: np.ndarray
    """Sentences about what was left out."""


def read_coco(path: Path) -> CocoArrays:
    """Reads and checks a file of annotations.

    Boxes are clipped to their images. Those with less than ``LEAST_SIDE`` pixels left are left out,
    and polygons of fewer than three points, with a note.

    Args:
        path: A JSON file with "images", "annotations" and "categories".

    Raises:
        UsageError: The file is no such JSON, ids are there twice, an object has an image or a
            category that is not there, or a size, a box or a mask is none.
    """
    return pack_coco(read_json_object(path, "annotations in COCO's format"), path)


def pack_coco(data: dict[str, Any], path: Path) -> CocoArrays:
    """Checks and packs what a file of annotations holds; as ``read_coco``.

    Args:
        data: The parsed file, or another format that was translated to it.
        path: The file, for messages.
    """
    images, objects, categories = (
        _table(data, name, path) for name in ("images", "annotations", "categories")
    )
    with _Place(path, "categories"):
        by_category = sorted((_whole(row, "id"), _text(row, "name")) for row in categories)
    with _Place(path, "images"):
        pictures = [
            (_whole(row, "id"), _text(row, "file_name"), _whole(row, "height", 1),
             _whole(row, "width", 1))
            for row in images
        ]  # fmt: skip
    image_ids = [row[0] for row in pictures]
    category_ids = [number for number, _ in by_category]
    with _Place(path, "annotations"):
        ids = [_whole(row, "id") for row in objects]
        of_image = [_whole(row, "image_id") for row in objects]
        of_category = [_whole(row, "category_id") for row in objects]
    for kind, numbers in (("image", image_ids), ("annotation", ids), ("category", category_ids)):
        _check_unique(numbers, kind, path)
    _check_known(of_image, image_ids, "image", path)
    _check_known(of_category, category_ids, "category", path)

    row_of_image = {number: row for row, number in enumerate(image_ids)}
    label_of = {number: label for label, number in enumerate(category_ids)}
    rows = [row_of_image[number] for number in of_image]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    packed = _Packed(path)
    for place in order:
        _, name, height, width = pictures[rows[place]]
        packed.add(objects[place], ids[place], rows[place], name, (height, width))
    labels = dict(zip(ids, (label_of[number] for number in of_category), strict=True))
    counts = np.bincount(np.array(packed.rows, int), minlength=len(images))
    return CocoArrays(
        image_ids=np.array(image_ids, np.int64),
        file_names=np.array([row[1] for row in pictures], str),
        sizes=np.array([row[2:] for row in pictures], np.int32).reshape(-1, 2),
        first=_starts(counts),
        ids=np.array(packed.ids, np.int64),
        boxes=np.array(packed.boxes, np.float32).reshape(-1, 4),
        areas=np.array(packed.areas, np.float32),
        labels=np.array([labels[number] for number in packed.ids], np.int32),
        crowd=np.array(packed.crowd, bool),
        is_runs=np.array(packed.is_runs, bool),
        first_part=_starts(packed.parts),
        first_value=_starts([len(part) for part in packed.values]),
        values=np.array(list(itertools.chain.from_iterable(packed.values)), np.float64),
        category_ids=np.array(category_ids, np.int64),
        category_names=np.array([name for _, name in by_category], str),
        notes=np.array(packed.notes(), str),
    )


def _starts(counts: Iterable[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.array(counts, np.int64))]).astype(np.int64)


class _Packed:
    """The objects of a file as lists, a value for each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[int] = []
        self.ids: list[int] = []
        self.boxes: list[list[float]] = []
        self.areas: list[float] = []
        self.crowd: list[bool] = []
        self.is_runs: list[bool] = []
        self.parts: list[int] = []
        self.values: list[list[float]] = []
        self._small: list[str] = []
        self._without_mask: list[str] = []

    def add(
        self, row: dict[str, Any], number: int, image: int, file: str, size: tuple[int, int]
    ) -> None:
        with _Place(self._path, f"annotation {number}"):
            x, y, width, height = _numbers(row.get("bbox"), "bbox", 4)
            box = [
                min(max(x, 0), size[1]),
                min(max(y, 0), size[0]),
                min(max(x + width, 0), size[1]),
                min(max(y + height, 0), size[0]),
            ]
            parts, is_runs = _mask(row.get("segmentation"), size)
            area = row.get("area", (box[2] - box[0]) * (box[3] - box[1]))
            (area,) = _numbers([area], "area", 1, math.inf)
            crowd = row.get("iscrowd", 0)
            if crowd not in (0, 1):
                raise ValueError(f"iscrowd must be 0 or 1, not {crowd!r}")
        if min(box[2] - box[0], box[3] - box[1]) < LEAST_SIDE:
            self._small.append(f"{number} of {file}")
            return
        if not parts and row.get("segmentation") is not None:
            self._without_mask.append(f"{number} of {file}")
        self.rows.append(image)
        self.ids.append(number)
        self.boxes.append(box)
        self.areas.append(area)
        self.crowd.append(bool(crowd))
        self.is_runs.append(is_runs)
        self.parts.append(len(parts))
        self.values += parts

    def notes(self) -> list[str]:
        notes = []
        if self._small:
            notes.append(
                f"{self._path.name}: boxes with less than {LEAST_SIDE:g} pixel within their image "
                f"are left out, {len(self._small)}: {_listed(self._small, 'annotation')}."
            )
        if self._without_mask:
            notes.append(
                f"{self._path.name}: objects without a polygon of three points have no mask, "
                f"{len(self._without_mask)}: {_listed(self._without_mask, 'annotation')}."
            )
        return notes


def _mask(segmentation: Any, size: tuple[int, int]) -> tuple[list[list[float]], bool]:
    """The parts of a mask, and whether they are a run-length code."""
    if segmentation is None:
        return [], False
    if isinstance(segmentation, list):
        parts = [_numbers(part, "a polygon", None) for part in segmentation]
        if any(len(part) % 2 for part in parts):
            raise ValueError("a polygon has an x without a y")
        return [part for part in parts if len(part) >= 6], False
    if not isinstance(segmentation, dict):
        raise ValueError("segmentation must be polygons or a run-length code")
    if segmentation.get("size") != list(size):
        raise ValueError(
            f"the mask has the size {segmentation.get('size')!r}, but the image {list(size)}"
        )
    counts = segmentation.get("counts")
    runs = (
        runs_of_text(counts)
        if isinstance(counts, str)
        else _numbers(counts, "counts", None, math.inf)
    )
    if any(run < 0 or run != int(run) for run in runs) or sum(runs) != size[0] * size[1]:
        raise ValueError("the runs of the mask do not add up to the pixels of the image")
    return [runs], True


def runs_of_text(text: str) -> list[float]:
    """Lengths of runs from COCO's text: five bits a character, least first, then differences."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("the text of a run-length code is damaged")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("the text of a run-length code is damaged")
    return [float(run) for run in runs]


class _Place:
    """Turns a ValueError about a value into a UsageError that names the file and the place."""

    def __init__(self, path: Path, place: str) -> None:
        self._path, self._place = path, place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            raise UsageError(f"{self._path}: {self._place}: {error}.") from error


def _table(data: dict[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    rows = data.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(
            f"{path} is no file of annotations in COCO's format: {name!r} must be a list of "
            f"objects."
        )
    return rows


def _whole(row: dict[str, Any], name: str, least: int | None = None) -> int:
    value = row.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise ValueError(f"{name!r} must be a whole number, not {value!r}")
    if least is not None and not least <= value < 2**31:
        raise ValueError(f"{name!r} must be at least {least}, not {value!r}")
    return value


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name!r} must be a text, not {value!r}")
    return value


def _numbers(values: Any, name: str, count: int | None, farthest: float = FARTHEST) -> list[float]:
    """Finite numbers, so many of them, or any number of them if None."""
    if (
        not isinstance(values, list)
        or count not in (None, len(values))
        or not all(isinstance(each, int | float) and abs(each) <= farthest for each in values)
        or math.inf in values
    ):
        raise ValueError(f"{name} must be a list of {count or 'finite'} numbers")
    return [float(each) for each in values]


def _listed(numbers: Sequence[object], kind: str) -> str:
    shown = ", ".join(str(number) for number in numbers[:5])
    return f"{kind} {shown}{', ...' if len(numbers) > 5 else ''}"


def _check_unique(numbers: list[int], kind: str, path: Path) -> None:
    if twice := [number for number, count in Counter(numbers).items() if count > 1]:
        ids = "1 id is" if len(twice) == 1 else f"{len(twice)} ids are"
        raise UsageError(f"{path}: {ids} there more than once: {_listed(twice, kind)}.")


def _check_known(numbers: list[int], known: list[int], kind: str, path: Path) -> None:
    there = set(known)
    if unknown := [number for number in dict.fromkeys(numbers) if number not in there]:
        ids = "an id that does" if len(unknown) == 1 else f"{len(unknown)} ids that do"
        raise UsageError(f"{path}: annotations name {ids} not exist: {_listed(unknown, kind)}.")
