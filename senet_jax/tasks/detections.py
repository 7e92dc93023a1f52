"""The detections of a split, brought to the original images, and COCO's numbers of them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from senet_jax.data.pictures import Truth, run_lengths
from senet_jax.ops.masks import PasteStyle, paste_masks
from senet_jax.tasks.coco_ap import CocoScores, Kind, coco_scores, result

LOGGER = logging.getLogger(__name__)

KINDS: dict[Kind, tuple[str, str]] = {"bbox": ("", "ap/"), "segm": ("mask_", "mask_ap/")}
"""Boxes and masks: what their metrics, and those of their classes, begin with."""


def on_original(
    boxes: Float[np.ndarray, "k 4"], size: Int[np.ndarray, " 2"], original: Int[np.ndarray, " 2"]
) -> Float[np.ndarray, "k 4"]:
    """Boxes in the image as it was before it was scaled.

    Args:
        boxes: x1, y1, x2, y2 in pixels of the scaled image.
        size: Its height and width.
        original: Those of the image.
    """
    down, across = np.asarray(original, np.float64) / np.asarray(size, np.float64)
    height, width = map(float, original)
    scaled = np.asarray(boxes, np.float64) * [across, down, across, down]
    return np.clip(scaled, 0, [width, height, width, height])


class Detections:
    """An accumulator (``tasks.base.Accumulator``) of detections.

    It takes the rows ``boxes``, ``labels``, ``scores``, ``valid`` and maybe ``masks`` as networks
    of detection give them, and ``size``, ``original`` and ``place`` as ``EvalPictures`` does. What
    hosts tell each other are boxes and run-length codes of masks.

    Args:
        truth: Returns the annotations.
        image_id: From the place of an image in its split to its number in the annotations.
        category_ids: The number of each class in the annotations.
        paste: The rule by which masks are pasted into images.
    """

    def __init__(
        self,
        truth: Callable[[], Truth],
        image_id: Callable[[int], int],
        category_ids: Sequence[int],
        paste: PasteStyle = "torchvision",
    ) -> None:
        self._paste: PasteStyle = paste
        self._truth, self._image_id, self._category_ids = truth, image_id, category_ids
        self._rows: dict[str, list[Any]] = {
            name: [] for name in ("place", "label", "score", "box", "side", "length")
        }
        self._codes: list[bytes] = []
        self._most = 0
        self._masked = False

    def add(self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """As ``Accumulator.add``."""
        self._most = rows["boxes"].shape[1]
        self._masked = "masks" in rows
        for image, place in enumerate(rows["place"].tolist()):
            original = rows["original"][image]
            boxes = on_original(rows["boxes"][image], rows["size"][image], original)
            for row in np.flatnonzero(rows["valid"][image]):
                kept = self._rows
                kept["place"].append(place)
                kept["label"].append(int(rows["labels"][image, row]))
                kept["score"].append(float(rows["scores"][image, row]))
                kept["box"].append(boxes[row])
                code = b""
                if self._masked:
                    # One at a time: all of them at the size of the image would take much memory.
                    grid, box = rows["masks"][image, row, None], boxes[row, None]
                    height, width = map(int, original)
                    (mask,) = paste_masks(grid, box, height, width, self._paste)
                    code = run_lengths(mask)["counts"].encode("ascii")
                kept["side"].append(original)
                kept["length"].append(len(code))
                self._codes.append(code)

    def part(self) -> Mapping[str, np.ndarray]:
        """As ``Accumulator.part``."""
        rows = self._rows
        return {
            "place": np.array(rows["place"], np.int32),
            "label": np.array(rows["label"], np.int32),
            "score": np.array(rows["score"], np.float32),
            "box": np.array(rows["box"], np.float64).reshape(-1, 4),
            "side": np.array(rows["side"], np.int32).reshape(-1, 2),
            "length": np.array(rows["length"], np.int32),
            "codes": np.frombuffer(b"".join(self._codes), np.uint8),
            # A host without an image knows neither.
            "facts": np.array([[self._most, self._masked]], np.int32),
        }

    def results(self, parts: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
        """The detections of all hosts in COCO's results format, in the order of the images.

        Args:
            parts: ``part`` of each host.
        """
        masked = any(part["facts"][:, 1].any() for part in parts)
        found: list[tuple[int, dict[str, Any]]] = []
        for part in parts:
            codes, ends = part["codes"].tobytes(), np.cumsum(part["length"])
            for row, (place, label) in enumerate(
                zip(part["place"].tolist(), part["label"].tolist(), strict=True)
            ):
                category_id = self._category_ids[label - 1]
                image_id, score = self._image_id(place), part["score"][row]
                detection = result(image_id, category_id, part["box"][row], score)
                if masked:
                    code = codes[ends[row] - part["length"][row] : ends[row]].decode("ascii")
                    detection["segmentation"] = {
                        "size": part["side"][row].tolist(),
                        "counts": code,
                    }
                found.append((place, detection))
        return [detection for _, detection in sorted(found, key=lambda each: each[0])]

    def named_results(
        self, parts: Sequence[Mapping[str, np.ndarray]], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        """The same, with the names of the classes beside their numbers.

        Args:
            parts: ``part`` of each host.
            names: Names of the classes.
        """
        named = dict(zip(self._category_ids, names, strict=True))
        return [{**row, "category_name": named[row["category_id"]]} for row in self.results(parts)]

    def summary(self, parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
        """COCO's twelve numbers, and AP by class, of boxes and of masks if there are.

        What the annotations have no object for is left out. ``error`` is 1 less the AP of boxes.
        """
        results, truth = self.results(parts), self._truth()
        most = max(int(part["facts"][:, 0].max(initial=0)) for part in parts)
        masked = any(part["facts"][:, 1].any() for part in parts)
        metrics: dict[str, float] = {}
        for kind, (start, of_class) in KINDS.items():
            if kind == "segm" and not masked:
                continue
            scores = coco_scores(truth, results, kind, max(most, LEAST_DETECTIONS))
            if kind == "bbox":
                for warning in scores.warnings:
                    LOGGER.warning("%s", warning)
            metrics |= {f"{start}{name}": value for name, value in scores.numbers.items()}
            metrics |= _of_classes(scores, of_class)
        metrics["error"] = 1 - metrics["AP"]
        return {name: value for name, value in metrics.items() if not np.isnan(value)}


LEAST_DETECTIONS = 10
"""COCO's numbers need as many detections of an image; fewer than these are all counted."""


def _of_classes(scores: CocoScores, start: str) -> dict[str, float]:
    return {f"{start}{name}": value for name, value in scores.by_class.items()}
