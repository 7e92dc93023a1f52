"""`senet-jax predict` for a run of detection."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_jax.command_line.drawn_images import names_of_pictures, read_image
from senet_jax.errors import ExitCode, UsageError
from senet_jax.files import make_folder, write_text
from senet_jax.text import printable

if TYPE_CHECKING:
    from senet_jax.inference.objects import Found, ObjectDetector

DETECTIONS = "detections.json"
"""The file of all detections in COCO's results format."""


def predict_objects(options: argparse.Namespace) -> int:
    """Draws the objects of images, and writes them in COCO's results format.

    Args:
        options: Those of the command, of which one run is given.

    Returns:
        The exit code.

    Raises:
        UsageError: The run cannot be read, or two images have one name.
    """
    from senet_jax.analysis.found import draw_objects, enlargement, write_objects
    from senet_jax.data.image_files import ImageFiles
    from senet_jax.inference.objects import ObjectDetector

    (run,) = options.runs
    images = ImageFiles(options.image)
    folder = Path() if options.out is None else options.out
    stems = names_of_pictures(images)
    numbers = _image_ids(stems)
    network = ObjectDetector(Path(run), options.which)
    turned = options.exif_orientation or network.exif_orientation
    least = 0.5 if options.min_score is None else options.min_score
    results: list[dict[str, Any]] = []
    code = 0
    for index, stem in enumerate(stems):
        file = folder / f"{stem}.objects.png"
        image = read_image(images, index, turned)
        if image is None:
            code = ExitCode.BAD_INPUT
            continue
        try:
            found = network(image, least)
        except UsageError as error:
            print(printable(f"senet-jax: {images.name(index)}: {error}"), file=sys.stderr)
            code = ExitCode.BAD_INPUT
            continue
        names = [network.classes[label] for label in found.labels]
        texts = [
            f"{name} {score:.2f}" for name, score in zip(names, found.scores.tolist(), strict=True)
        ]
        scale = enlargement(image.shape)
        write_objects(
            file, draw_objects(image, found.boxes, found.labels, texts, found.masks, scale)
        )
        rows = _results(found, names, numbers[index], images.name(index), network)
        results += rows
        _print(images.name(index), rows, file, options.json)
    make_folder(folder)
    write_text(folder / DETECTIONS, json.dumps(results) + "\n")
    if not options.json:
        print(f"{folder / DETECTIONS}: {len(results):,} objects in COCO's results format")
    return code


def _results(
    found: "Found", names: list[str], image_id: int, file: str, network: "ObjectDetector"
) -> list[dict[str, Any]]:
    """The objects of an image in COCO's results format, with the names beside the numbers."""
    import numpy as np

    from senet_jax.tasks.coco_ap import results_of_image

    ids = np.array(network.category_ids)[found.labels]
    rows = results_of_image(image_id, found.boxes, ids, found.scores, found.masks)
    return [
        {"file_name": file, **row, "category_name": name}
        for row, name in zip(rows, names, strict=True)
    ]


def _image_ids(stems: list[str]) -> list[int]:
    """The numbers of images: those that their names are, as of COCO's, or 1, 2, 3, ..."""
    if all(stem.isascii() and stem.isdigit() for stem in stems):
        return [int(stem) for stem in stems]
    return list(range(1, len(stems) + 1))


def _print(image: str, rows: list[dict[str, Any]], drawn: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"image": image, "objects": rows, "drawn": str(drawn)}))
        return
    print(printable(f"{image}: {drawn}"))
    for row in rows:
        x, y, width, height = row["bbox"]
        print(
            f"  {row['score']:8.2%}  {printable(row['category_name'])}  "
            f"{width:.0f}x{height:.0f} at ({x:.0f}, {y:.0f})"
        )
