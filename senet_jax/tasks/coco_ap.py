"""COCO's protocol for boxes and masks, by pycocotools: twelve numbers, and AP by class."""

import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from senet_jax.data.pictures import run_lengths
from senet_jax.errors import UsageError
from senet_jax.files import read_json_object

Kind = Literal["bbox", "segm"]

NUMBERS = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR1", "AR10", "ARmax", "ARs", "ARm", "ARl"),
)
"""The names of COCO's twelve numbers, in their order."""

MAX_DETECTIONS = 100
"""Detections of an image that COCO counts, of all classes together those with the best scores."""


@dataclasses.dataclass(frozen=True)
class CocoScores:
    """Average precision and recall, in [0, 1]; NaN where the ground truth has no object of a kind.

    Where no threshold is named, it is the mean over the IoU thresholds 0.5, 0.55, ..., 0.95.
    """

    numbers: dict[str, float]
    """COCO's twelve: "AP", "AP50", "AP75", "APs", "APm", "APl" (areas below 32^2, to 96^2 and
    above), "AR1", "AR10", "ARmax" (for so many detections an image), "ARs", "ARm", "ARl"."""
    by_class: dict[str, float]
    """AP of each class."""
    warnings: tuple[str, ...] = ()


def results_of_image(
    image_id: int,
    boxes: np.ndarray,
    category_ids: np.ndarray,
    scores: np.ndarray,
    masks: Sequence[np.ndarray] | np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Detections of one image in COCO's results format, which JSON can hold.

    Args:
        image_id: The id in the file of annotations.
        boxes: (k, 4) x1, y1, x2, y2 in pixels of the original image.
        category_ids: (k,) of the file of annotations.
        scores: (k,).
        masks: k times (height, width) bool, of the original image. If None, there are boxes alone.
    """
    found: list[dict[str, Any]] = []
    for number, (box, category, score) in enumerate(zip(boxes, category_ids, scores, strict=True)):
        row = result(image_id, category, box, score)
        if masks is not None:
            row["segmentation"] = run_lengths(masks[number])
        found.append(row)
    return found


def result(image_id: int, category_id: int, box: np.ndarray, score: float) -> dict[str, Any]:
    """A detection without a mask in COCO's results format.

    Args:
        image_id: The id in the file of annotations.
        category_id: The id in the file of annotations.
        box: (4,) x1, y1, x2, y2 in pixels of the original image.
        score: 0 to 1.
    """
    x1, y1, x2, y2 = map(float, box)
    return {
        "image_id": int(image_id),
        "category_id": int(category_id),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": float(score),
    }


def coco_scores(
    annotations: Path | Mapping[str, Any],
    results: Sequence[dict[str, Any]],
    kind: Kind,
    max_detections: int = MAX_DETECTIONS,
) -> CocoScores:
    """Scores detections of all images of a file by COCO's protocol.

    Args:
        annotations: A JSON file in COCO's format, or what it holds. Crowd regions are neither
            found nor missed.
        results: Detections in COCO's results format; images without one count as missed.
        kind: Compare boxes, or masks.
        max_detections: Detections of an image, at least 10.

    Raises:
        UsageError: The file is no such JSON, fewer detections than 10, results of images or
            categories that the file lacks, or, for masks, without masks.
    """
    if max_detections < 10:
        raise UsageError(f"max_detections must be at least 10, not {max_detections}.")
    if isinstance(annotations, Path):
        data = read_json_object(annotations, "annotations in COCO's format")
        place = str(annotations)
    else:
        data, place = dict(annotations), "the annotations"
    truth = _coco({**data, "annotations": _comparable(data["annotations"], kind)})
    _check(place, truth, results, kind)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        # Without results there is nothing to load.
        found = (
            truth.loadRes(list(results)) if results else _coco({**truth.dataset, "annotations": []})
        )
        evaluation = COCOeval(truth, found, kind)
        evaluation.params.maxDets = [1, 10, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    # Thresholds, recalls, categories, areas, numbers of detections.
    numbers = {"AP": _mean(precision[..., 0, -1])}
    numbers |= {name: _mean(precision[row, ..., 0, -1]) for name, row in (("AP50", 0), ("AP75", 5))}
    areas = list(zip("sml", (1, 2, 3), strict=True))
    numbers |= {f"AP{name}": _mean(precision[..., area, -1]) for name, area in areas}
    counts = zip(("1", "10", "max"), range(3), strict=True)
    numbers |= {f"AR{name}": _mean(recall[..., 0, count]) for name, count in counts}
    numbers |= {f"AR{name}": _mean(recall[..., area, -1]) for name, area in areas}
    by_class = {
        truth.cats[category]["name"]: _mean(precision[:, :, place, 0, -1])
        for place, category in enumerate(evaluation.params.catIds)
    }
    return CocoScores(numbers, by_class, _crowded(truth, max_detections))


def _coco(data: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _comparable(annotations: Sequence[dict[str, Any]], kind: Kind) -> list[dict[str, Any]]:
    """The annotations that can be compared, with the values that files may leave out."""
    return [
        {"iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3], **row}
        for row in annotations
        if kind == "bbox" or row.get("segmentation")
    ]


def _mean(values: np.ndarray) -> float:
    """Mean over what there is ground truth for; pycocotools marks the rest by -1."""
    there = values[values > -1]
    return float(there.mean()) if there.size else float("nan")


def _check(place: str, truth: COCO, results: Sequence[dict[str, Any]], kind: Kind) -> None:
    for field, known in (("image_id", truth.imgs), ("category_id", truth.cats)):
        if strange := sorted({row[field] for row in results} - set(known)):
            raise UsageError(
                f"{len(strange)} values of {field} in the results are not in {place}, such as "
                f"{strange[0]}: evaluate on the annotations of the images that were detected."
            )
    if kind == "segm" and any("segmentation" not in row for row in results):
        raise UsageError("results without masks can be scored as boxes alone: ask for bbox.")


def _crowded(truth: COCO, most: int) -> tuple[str, ...]:
    counts = {
        image: sum(not each.get("iscrowd") for each in objects)
        for image, objects in truth.imgToAnns.items()
    }
    crowded = {image: count for image, count in counts.items() if count > most}
    if not crowded:
        return ()
    return (
        f"{len(crowded)} images have more objects than the {most} detections that count, at most "
        f"{max(crowded.values())}: the others count as missed; raise the detections per image.",
    )
