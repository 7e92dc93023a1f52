"""Pictures: images with the boxes, classes and masks of the objects in them, for detection."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from pycocotools import mask as coco_mask

from senet_jax.data.coco_index import CocoIndex
from senet_jax.data.coco_json import CocoArrays
from senet_jax.data.datasets import Dataset
from senet_jax.data.decode import decode
from senet_jax.data.set_files import read_set_file
from senet_jax.errors import UsageError
from senet_jax.files import read_json_object
from senet_jax.text import printable

Truth = Mapping[str, Any]
"""The contents of a JSON file of annotations in COCO's format."""


class Picture(NamedTuple):
    """An image with ``k`` objects."""

    image: UInt8[np.ndarray, "h w 3"]
    """RGB."""
    boxes: Float[np.ndarray, "k 4"]
    """x1, y1, x2, y2 in pixels."""
    labels: Int[np.ndarray, " k"]
    """Classes, from 0."""
    crowd: Bool[np.ndarray, " k"]
    """The object is neither learnt nor counted as missed: a region with many of them, or one that
    is hard to tell."""
    masks: Bool[np.ndarray, "k h w"] | None = None
    """The pixels of each object, those of one without a mask all False."""


class Images(Protocol):
    """The images of a split, in random access; they can be pickled."""

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels of images in memory; None of those that are read later."""

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Reads an image.

        Raises:
            Unreadable: This image cannot be read.
            UsageError: None can, because the data set is gone.
        """

    def name(self, index: int) -> str:
        """Names an image, for a person."""


@dataclasses.dataclass(frozen=True)
class ImagesInMemory:
    """Images of one size that lie in memory."""

    images: UInt8[np.ndarray, "n h w 3"]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """As ``Images.image_shape``."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return self.images[index]

    def name(self, index: int) -> str:
        """The place of an image: it has no other name."""
        return f"picture {index}"


@dataclasses.dataclass(frozen=True)
class ImagesInFiles:
    """Images that are files below a folder."""

    folder: Path
    index: CocoIndex
    """Has the names of the files."""
    exif_orientation: bool = False
    """Turn images as their EXIF says."""

    @property
    def image_shape(self) -> None:
        """None: images are read when asked for."""

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        data = read_set_file(Path(self.name(index)), self.folder)
        return decode(data, self.exif_orientation)

    def name(self, index: int) -> str:
        """The path of an image."""
        return str(self.folder / str(self.index.arrays.file_names[index]))


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A split of pictures; it can be pickled."""

    images: Images
    index: CocoIndex
    """Their sizes and objects."""
    annotations: Path | None = None
    """The file in COCO's format that is evaluated against; if None, what the index holds is."""
    rows: Int[np.ndarray, " n"] | None = None
    """The pictures among those of the index; None means all."""

    def __len__(self) -> int:
        return len(self.index) if self.rows is None else len(self.rows)

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """As ``Images.image_shape``."""
        return self.images.image_shape

    @property
    def sizes(self) -> Int[np.ndarray, "n 2"]:
        """Height and width of each picture, pixels."""
        return self.index.arrays.sizes[self._places]

    @property
    def _places(self) -> slice | Int[np.ndarray, " n"]:
        return slice(None) if self.rows is None else self.rows

    def _place(self, index: int) -> int:
        return index if self.rows is None else int(self.rows[index])

    def taken(self, indices: Int[np.ndarray, " n"]) -> "Pictures":
        """The pictures at some places, in this order."""
        rows = np.arange(len(self.index))[self._places][indices]
        return dataclasses.replace(self, rows=rows)

    def name(self, index: int) -> str:
        """Names a picture, for a person."""
        return self.images.name(self._place(index))

    def image_id(self, index: int) -> int:
        """The number of a picture in the annotations."""
        return int(self.index.arrays.image_ids[self._place(index)])

    def picture(self, index: int, masks: bool) -> Picture:
        """Reads a picture.

        Args:
            index: Its place.
            masks: Read the masks of its objects, too.

        Raises:
            Unreadable: This picture cannot be read.
            UsageError: None can, because the data set is gone, or its size is another one than the
                annotations say.
        """
        place = self._place(index)
        image = self.images[place]
        height, width = map(int, self.index.arrays.sizes[place])
        if image.shape[:2] != (height, width):
            turned = image.shape[:2] == (width, height)
            hint = " (turned by its EXIF? --data.exif-orientation)" if turned else ""
            raise UsageError(
                f"{printable(self.name(index))} has {image.shape[0]}x{image.shape[1]} pixels, and "
                f"its annotations say {height}x{width}{hint}."
            )
        found = self.index.objects(place)
        return Picture(
            image,
            np.array(found.boxes, np.float32),
            np.array(found.labels, np.int32),
            np.array(found.crowd),
            self.index.masks(place) if masks else None,
        )

    def learnt_boxes(self, index: int) -> Float[np.ndarray, "k 4"]:
        """The boxes of a picture without crowds, in pixels of the image."""
        found = self.index.objects(self._place(index))
        return np.array(found.boxes[~found.crowd])

    @functools.cached_property
    def counts(self) -> Int[np.ndarray, " n"]:
        """Objects of each picture that are learnt: those that are no crowd."""
        learnt = np.concatenate([[0], np.cumsum(~np.asarray(self.index.arrays.crowd))])
        return np.diff(learnt[np.asarray(self.index.arrays.first)])[self._places]

    def truth(self) -> Truth:
        """The annotations that detections in all pictures are evaluated against.

        Raises:
            UsageError: Their file is gone.
        """
        if self.annotations is not None:
            return read_json_object(self.annotations, "annotations in COCO's format")
        return coco_data(self.index)


def coco_data(index: CocoIndex) -> dict[str, Any]:
    """The contents of an index, as a file in COCO's format has them."""
    arrays, objects = index.arrays, []
    masked = has_masks(index)
    for place, image_id in enumerate(arrays.image_ids.tolist()):
        found = index.objects(place)
        masks = index.masks(place) if masked and len(found.ids) else None
        for row, number in enumerate(found.ids.tolist()):
            x1, y1, x2, y2 = found.boxes[row].tolist()
            each = {
                "id": number,
                "image_id": image_id,
                "category_id": int(arrays.category_ids[found.labels[row]]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(found.areas[row]),
                "iscrowd": int(found.crowd[row]),
            }
            if masks is not None:
                each["segmentation"] = run_lengths(masks[row])
            objects.append(each)
    images = [
        {"id": number, "file_name": name, "height": height, "width": width}
        for number, name, (height, width) in zip(
            *(arrays.image_ids.tolist(), arrays.file_names.tolist(), arrays.sizes.tolist()),
            strict=True,
        )
    ]
    categories = [
        {"id": number, "name": name}
        for number, name in zip(
            arrays.category_ids.tolist(), arrays.category_names.tolist(), strict=True
        )
    ]
    return {"images": images, "annotations": objects, "categories": categories}


def run_lengths(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """A mask as COCO's format has it: a run-length code, which JSON can hold."""
    code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}


def has_masks(index: CocoIndex) -> bool:
    """Says if an object has a mask."""
    return bool(index.arrays.first_part[-1])


@dataclasses.dataclass(frozen=True)
class PictureDataset(Dataset):
    """A data set of pictures, opened."""

    # Another task's images have one class each, and pictures are no ``Source`` of those.
    train: Pictures  # type: ignore[assignment]
    val: Pictures  # type: ignore[assignment]
    category_ids: tuple[int, ...] = ()
    """The number of each class in the annotations."""
    masks: bool = False
    """The objects have masks."""
    frame: tuple[int, int] = (0, 0)
    """Height and width of what a network is trained on, pixels."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what a network is trained on, padding included."""
        return (*self.frame, 3)


@dataclasses.dataclass(frozen=True)
class _Absent:
    """Images that are not there."""

    image_shape: tuple[int, int, int] | None

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        raise UsageError("the images of the data set are not there.")

    def name(self, index: int) -> str:
        return f"image {index}"


def absent_pictures(
    count: int, size: tuple[int, int], in_memory: bool, category_ids: tuple[int, ...]
) -> Pictures:
    """A split of which only the number of its pictures is known.

    Args:
        count: Their number.
        size: Height and width that all are taken to have, pixels.
        in_memory: The images were in memory.
        category_ids: The number of each class in the annotations.
    """
    fields: dict[str, Callable[[], np.ndarray]] = {
        "image_ids": lambda: np.arange(count),
        "file_names": lambda: np.broadcast_to(np.array(""), count),
        "sizes": lambda: np.broadcast_to(np.array(size, np.int32), (count, 2)),
        "first": lambda: np.broadcast_to(np.int64(0), count + 1),
        "boxes": lambda: np.zeros((0, 4), np.float32),
        "crowd": lambda: np.zeros(0, bool),
        "labels": lambda: np.zeros(0, np.int32),
        "first_part": lambda: np.zeros(1, np.int64),
        "first_value": lambda: np.zeros(1, np.int64),
        "category_ids": lambda: np.array(category_ids, np.int64),
    }
    arrays = {
        field.name: fields.get(field.name, lambda: np.zeros(0))()
        for field in dataclasses.fields(CocoArrays)
    }
    shape = (*size, 3) if in_memory else None
    return Pictures(_Absent(shape), CocoIndex(CocoArrays(**arrays)))
