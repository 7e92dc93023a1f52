"""Detections brought to the original image and scored, without a network."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from senet_jax.tasks.detection import Detection
from senet_jax.tasks.detections import Detections, on_original


def outline(x, y, width, height):
    """A rectangle as a polygon."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def truth():
    """Two images of 40x60 pixels; of the second one object is a crowd."""
    boxes = [(5, 0, (10, 5, 20, 30), 0), (5, 1, (40, 5, 10, 10), 0), (9, 0, (0, 0, 30, 40), 1)]
    objects = [
        {
            "id": number,
            "image_id": image,
            "category_id": (3, 7)[label],
            "bbox": list(box),
            "area": box[2] * box[3],
            "iscrowd": crowd,
            "segmentation": [outline(*box)],
        }
        for number, (image, label, box, crowd) in enumerate(boxes, 1)
    ]
    images = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in (5, 9)]
    return {
        "images": images,
        "annotations": objects,
        "categories": [{"id": 3, "name": "bird"}, {"id": 7, "name": "cat"}],
    }


def rows(places, boxes, labels, scores):
    """The outputs of a network for images that were enlarged twice."""
    n, k = np.shape(scores)
    return {
        "boxes": 2 * np.array(boxes, np.float32).reshape(n, k, 4),
        "labels": np.array(labels),
        "scores": np.array(scores, np.float32),
        "valid": np.array(scores) > 0,
        "masks": np.ones((n, k, 28, 28), np.float32),
        "size": np.full((n, 2), (80, 120)),
        "original": np.full((n, 2), (40, 60)),
        "place": np.array(places),
    }


def accumulator(*paste):
    return Detections(truth, lambda place: (5, 9)[place], (3, 7), *paste)


FIRST = rows([0], [[(10, 5, 30, 35), (40, 5, 50, 15)]], [[1, 2]], [[0.9, 0.8]])
# Within the crowd, so neither right nor wrong; the second one is padding.
SECOND = rows([1], [[(1, 1, 20, 20), (0, 0, 0, 0)]], [[1, 0]], [[0.95, 0.0]])


def test_what_is_right_in_the_original_image_has_an_ap_of_one():
    found = accumulator()
    found.add({}, FIRST)
    found.add({}, SECOND)
    metrics = found.summary([found.part()])
    # A pasted mask may have a pixel more on each side than its box.
    for name in ("AP", "AP50", "ap/bird", "ap/cat", "mask_AP50"):
        assert metrics[name] == pytest.approx(1)
    assert 0.5 < metrics["mask_AP"] <= 1
    assert metrics["mask_ap/cat"] <= metrics["mask_ap/bird"]
    assert metrics["error"] == pytest.approx(0)
    assert not any(np.isnan(value) for value in metrics.values())
    bird, cat, _ = found.results([found.part()])
    assert (bird["image_id"], bird["category_id"], cat["category_id"]) == (5, 3, 7)
    assert bird["bbox"] == [10, 5, 20, 30]


def test_masks_are_pasted_by_the_rule_of_the_network():
    found = {paste: accumulator(paste) for paste in ("torchvision", "detectron2")}
    scores = {}
    for paste, each in found.items():
        each.add({}, FIRST)
        each.add({}, SECOND)
        scores[paste] = each.summary([each.part()])["mask_AP"]
    # At pixel centres, masks of ones have the pixels of their boxes and no others.
    assert scores["torchvision"] < scores["detectron2"] == pytest.approx(1)


def test_hosts_together_have_what_one_has():
    one, two = accumulator(), (accumulator(), accumulator())
    for host, batch in zip(two, (SECOND, FIRST), strict=True):
        host.add({}, batch)
    for batch in (FIRST, SECOND):
        one.add({}, batch)
    parts = [host.part() for host in two]
    assert one.results([one.part()]) == two[0].results(parts)
    assert one.summary([one.part()]) == two[1].summary(parts)
    # A host without an image has nothing to add.
    assert one.summary([accumulator().part(), *parts]) == one.summary(parts)


def test_nothing_found_is_no_error():
    nothing = rows([0, 1], np.zeros((2, 1, 4)), [[0], [0]], [[0.0], [0.0]])
    found = accumulator()
    found.add({}, nothing)
    assert found.summary([found.part()])["AP"] == 0


def test_more_objects_than_detections_are_warned_of(caplog):
    def many():
        data = truth()
        row = data["annotations"][0]
        data["annotations"] = [{**row, "id": number} for number in range(1, 15)]
        return data

    found = Detections(many, lambda place: (5, 9)[place], (3, 7))
    found.add({}, FIRST)
    found.summary([found.part()])
    assert "1 images have more objects than the 10 detections that count, at most 14" in caplog.text


def test_boxes_stay_in_the_image():
    boxes = on_original(np.array([[-2.0, 4, 130, 90]]), np.array([80, 120]), np.array([40, 60]))
    assert boxes.tolist() == [[0, 2, 60, 40]]


EXAMPLE = os.environ.get("COCOAPI_EXAMPLE")


@pytest.mark.slow
@pytest.mark.skipif(not EXAMPLE, reason="needs COCOAPI_EXAMPLE, the folder of cocoapi's results")
@pytest.mark.parametrize(
    ("kind", "start", "expected"), [("bbox", "", "AP 0.505"), ("segm", "mask_", "AP 0.320")]
)
def test_the_example_of_cocoapi_goes_through_hosts_and_lines(kind, start, expected):
    folder = Path(EXAMPLE)
    data = json.loads((folder / "instances_val2014_100.json").read_text())
    results = json.loads((folder / f"instances_val2014_fake{kind}100_results.json").read_text())
    ids = [image["id"] for image in data["images"]]
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    categories = sorted(category["id"] for category in data["categories"])
    parts = []
    for host in range(2):
        own = [row for row in results if ids.index(row["image_id"]) % 2 == host]
        codes = [row["segmentation"]["counts"] if kind == "segm" else "" for row in own]
        boxes = np.array([row.get("bbox", (0, 0, 1, 1)) for row in own], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        parts.append(
            {
                "place": np.array([ids.index(row["image_id"]) for row in own]),
                "label": np.array([categories.index(row["category_id"]) + 1 for row in own]),
                "score": np.array([row["score"] for row in own], np.float32),
                "box": boxes,
                "side": np.array([sizes[row["image_id"]] for row in own]),
                "length": np.array([len(code) for code in codes]),
                "codes": np.frombuffer("".join(codes).encode(), np.uint8),
                "facts": np.array([[100, kind == "segm"]]),
            }
        )
    metrics = Detections(lambda: data, ids.__getitem__, categories).summary(parts)
    lines = Detection.details({f"val/{name}": value for name, value in metrics.items()})
    what = "boxes" if kind == "bbox" else "masks"
    assert any(line.startswith(f"{what}: {expected}, AP50 ") for line in lines)
    assert sum(line.startswith("  ") for line in lines) >= 60
