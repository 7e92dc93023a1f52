"""The boxes of COCO and PASCAL VOC as TensorFlow Datasets prepares them; it keeps no masks."""

import hashlib
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from senet_jax.data.coco_index import stored_index
from senet_jax.data.coco_json import pack_coco
from senet_jax.data.datasets import tfds_dir
from senet_jax.data.decode import Unreadable, decode, read_size
from senet_jax.data.pictures import Pictures
from senet_jax.data.records import features_of, read_records
from senet_jax.data.tfds_folder import find_prepared, open_prepared
from senet_jax.errors import UsageError, choose
from senet_jax.text import printable

HELD_OUT = ("validation", "test")
"""Names of the held-out split, the first of which that is there is taken."""

IGNORED = ("objects/is_crowd", "objects/is_difficult")
"""Features of COCO and of VOC that say that an object is neither learnt nor counted as missed."""


class ImagesInRecords:
    """Images in the files of a split.

    Args:
        files: The files, in order.
        exif_orientation: Turn images as their EXIF says.

    Raises:
        UsageError: A file is missing or damaged.
    """

    image_shape: None = None
    """Images are read when asked for."""

    def __init__(self, files: list[Path], exif_orientation: bool = False) -> None:
        self._folder, self._exif = files[0].parent, exif_orientation
        self._records = read_records(files)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> UInt8[ndarray, "h w 3"]:
        return decode(self.encoded(index), self._exif)

    def name(self, index: int) -> str:
        """The place of a record."""
        return f"record {index} in {self._folder}"

    def features(self, index: int) -> Any:
        """The features of a record.

        Raises:
            Unreadable: The record is damaged.
        """
        try:
            return features_of(self._records[index])
        # As above, and what protobuf raises.
        except Exception as error:
            raise Unreadable(f"the record is damaged: {error}") from error

    def encoded(self, index: int) -> bytes:
        """The bytes of an image.

        Raises:
            Unreadable: The record is damaged.
        """
        values = self.features(index)["image"].bytes_list.value
        if not values:
            raise Unreadable("the record has no image")
        return bytes(values[0])


def open_records(
    name: str, directory: Path | None, val_split: str | None, exif_orientation: bool
) -> tuple[Pictures, Pictures]:
    """Opens the training and the held-out split of a set.

    All records are read once for their boxes, which are kept in the folder of caches.

    Args:
        name: As TFDS writes it: "coco/2017", "voc/2012".
        directory: Its folder; None means ``TFDS_DATA_DIR``, else TFDS's default.
        val_split: The held-out split; None means "validation", else "test".
        exif_orientation: Turn images as their EXIF says.

    Raises:
        UsageError: The set is not there, has no boxes, or cannot be read.
    """
    where = tfds_dir(directory)
    folder = find_prepared(name, where)
    if folder is None:
        raise UsageError(
            f"{name} is not in {where} as array_record: build it with TensorFlow Datasets, "
            f"`tfds build {name}` with the file format array_record, or set TFDS_DATA_DIR to where "
            "it is."
        )
    info = open_prepared(folder).info
    classes = _class_names(info, folder)
    held_out = next((split for split in HELD_OUT if split in info.splits), HELD_OUT[0])
    splits = ["train", choose("split", val_split or held_out, list(info.splits))]
    if "train" not in info.splits:
        raise UsageError(f"{folder} has no split train.")
    opened = []
    for split in splits:
        files = [Path(file) for file in info.splits[split].filepaths]
        images = ImagesInRecords(files, exif_orientation)
        status = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        stamp = repr((status, exif_orientation, classes))
        digest = hashlib.blake2b(stamp.encode(), digest_size=16).hexdigest()
        place = folder / split

        def build(images: ImagesInRecords = images, place: Path = place) -> Any:
            return pack_coco(_annotations(images, classes, exif_orientation, place), place)

        opened.append(Pictures(images, stored_index(digest, build)))
    return opened[0], opened[1]


def _class_names(info: Any, folder: Path) -> list[str]:
    """Names of the classes of the objects."""
    try:
        names = list(info.features["objects"].feature["label"].names)
        _ = info.features["objects"].feature["bbox"], info.features["image"]
    except (KeyError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{folder} has no objects with boxes and labels: choose coco or voc."
        ) from error
    return names


def _annotations(
    images: ImagesInRecords, classes: list[str], exif_orientation: bool, place: Path
) -> dict[str, Any]:
    """A split as a file in COCO's format would have it; the classes have numbers from 1."""
    pictures: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for index in range(len(images)):
        try:
            features = images.features(index)
            height, width = read_size(images.encoded(index), exif_orientation)
        except Unreadable as error:
            raise UsageError(
                f"{printable(images.name(index))} cannot be read ({error}): prepare the set again."
            ) from error
        row = {"id": index + 1, "file_name": f"record {index}", "height": height, "width": width}
        pictures.append(row)
        labels = list(features["objects/label"].int64_list.value)
        corners = list(features["objects/bbox"].float_list.value)
        ignored = [0] * len(labels)
        for key in IGNORED:
            if key in features:
                ignored = list(features[key].int64_list.value)
        if not len(corners) == 4 * len(labels) == 4 * len(ignored):
            raise UsageError(f"{printable(images.name(index))} has labels without boxes.")
        for number, label in enumerate(labels):
            y1, x1, y2, x2 = corners[4 * number : 4 * number + 4]
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": index + 1,
                    "category_id": int(label) + 1,
                    "bbox": [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height],
                    "iscrowd": int(bool(ignored[number])),
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    return {"images": pictures, "annotations": objects, "categories": categories}
