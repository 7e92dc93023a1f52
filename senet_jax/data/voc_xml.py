"""PASCAL VOC's XML: the boxes of a split, translated to COCO's format."""

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from senet_jax.data.scene_folders import by_key, read_list, stem
from senet_jax.errors import UsageError
from senet_jax.files import read_text
from senet_jax.text import printable

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""The classes of PASCAL VOC, in their order."""


def read_voc(root: Path, split: str, names: Sequence[str] | None) -> dict[str, Any]:
    """Reads the annotations of a split.

    Pixels are counted from 1, and both corners belong to a box. An object that is marked as
    difficult is neither learnt nor counted as missed, as a crowd is in COCO's format.

    Args:
        root: Has ``Annotations``, ``JPEGImages`` and ``ImageSets/Main``.
        split: A list of names in ``ImageSets/Main``.
        names: Names of the classes; None takes those that the objects have, sorted.

    Returns:
        What a JSON file in COCO's format holds; the classes have numbers from 1.

    Raises:
        UsageError: A list or file is not there, is no such XML, or has a class without a name in
            ``names``.
    """
    listed = read_list(root / "ImageSets" / "Main" / f"{split}.txt", "the images of a split")
    # Lists of one class have a second column.
    stems = [line.split()[0] for line in listed]
    files = by_key(root, "JPEGImages", stem)
    missing = [name for name in stems if name not in files]
    if missing:
        raise UsageError(
            f"{printable(str(root))} lacks {len(missing):,} of the {len(stems):,} images of the "
            f"split {split}, such as JPEGImages/{printable(missing[0])}.jpg."
        )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = list(pool.map(lambda name: _read(root / "Annotations" / f"{name}.xml"), stems))
    if names is None:
        names = sorted({kind for _, objects in read for kind, _, _ in objects})
    numbers = {name: number for number, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, ((height, width), objects)) in enumerate(zip(stems, read, strict=True), 1):
        file = files[name].removeprefix("JPEGImages/")
        images.append({"id": image_id, "file_name": file, "height": height, "width": width})
        for kind, (x, y, across, down), difficult in objects:
            if kind not in numbers:
                raise UsageError(
                    f"{printable(str(root / 'Annotations' / f'{name}.xml'))} has the class "
                    f"{printable(repr(kind))}, and the classes are {', '.join(names)}."
                )
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": numbers[kind],
                    "bbox": [x, y, across, down],
                    "area": across * down,
                    "iscrowd": difficult,
                }
            )
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


_Object = tuple[str, tuple[float, float, float, float], int]
"""Class, box as x, y, width and height, and 1 if it is difficult."""


def _read(file: Path) -> tuple[tuple[int, int], list[_Object]]:
    """Height and width of an image, and its objects."""
    text = read_text(file, "the boxes of an image")
    try:
        tree = ElementTree.fromstring(text)
        size = _number(tree, "size/height"), _number(tree, "size/width")
        if min(size) < 1:
            raise ValueError("the size of the image is not above 0")
        objects = [_object(each) for each in tree.iter("object")]
    except (ElementTree.ParseError, ValueError) as error:
        raise UsageError(
            f"{printable(str(file))} is no annotation of PASCAL VOC: {printable(str(error))}."
        ) from error
    return (round(size[0]), round(size[1])), objects


def _object(node: ElementTree.Element) -> _Object:
    kind = (node.findtext("name") or "").strip()
    if not kind:
        raise ValueError("an object has no name")
    x1, y1, x2, y2 = (_number(node, f"bndbox/{each}") for each in ("xmin", "ymin", "xmax", "ymax"))
    # A box whose corners are one point is an error of the annotator's, not a pixel.
    across = x2 - x1 + 1 if x2 > x1 else 0.0
    down = y2 - y1 + 1 if y2 > y1 else 0.0
    difficult = (node.findtext("difficult") or "0").strip()
    return kind, (x1 - 1, y1 - 1, across, down), int(difficult == "1")


def _number(node: ElementTree.Element, path: str) -> float:
    text = node.findtext(path)
    if text is None:
        raise ValueError(f"it has no {path}")
    number = float(text)
    if not abs(number) < 1e6:
        raise ValueError(f"{path} is {text}")
    return number
