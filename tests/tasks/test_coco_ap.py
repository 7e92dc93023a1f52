"""COCO's numbers against cases whose result can be counted, and COCO's own example."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from senet_jax import UsageError
from senet_jax.tasks.coco_ap import coco_scores, results_of_image

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "ARmax", "ARs", "ARm", "ARl"]


def annotation(number, image, category, box, crowd=0):
    x1, y1, x2, y2 = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": crowd,
        "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
    }


@pytest.fixture
def truth(tmp_path):
    """Two images; the categories 3 and 7."""

    def write(objects):
        path = tmp_path / "truth.json"
        images = [{"id": i, "file_name": f"{i}.png", "height": 60, "width": 80} for i in (5, 9)]
        categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "bird"}]
        data = {"images": images, "annotations": objects, "categories": categories}
        path.write_text(json.dumps(data))
        return path

    return write


BIRD, CAT = [10, 10, 30, 30], [40, 5, 75, 50]


def detection(image, category, box, score=0.9):
    (mask,) = masks(box)
    return results_of_image(
        image, np.array([box]), np.array([category]), np.array([score]), mask[None]
    )


def masks(box):
    x1, y1, x2, y2 = box
    mask = np.zeros((1, 60, 80), bool)
    mask[0, y1:y2, x1:x2] = True
    return mask


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_perfect_detections_have_an_ap_of_one(truth, kind):
    path = truth([annotation(1, 5, 3, BIRD), annotation(2, 9, 7, CAT)])
    found = coco_scores(path, detection(5, 3, BIRD) + detection(9, 7, CAT), kind)
    assert list(found.numbers) == NAMES
    assert found.numbers["AP"] == pytest.approx(1)
    assert found.numbers["ARmax"] == pytest.approx(1)
    assert found.by_class == {"bird": pytest.approx(1), "cat": pytest.approx(1)}
    assert math.isnan(found.numbers["APl"])
    assert found.numbers["APs"] == pytest.approx(1)
    assert found.numbers["APm"] == pytest.approx(1)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_an_overlap_of_two_thirds_counts_at_four_thresholds(truth, kind):
    path = truth([annotation(1, 5, 3, [10, 10, 40, 40])])
    # 0.5, 0.55, 0.6 and 0.65 of ten thresholds.
    found = coco_scores(path, detection(5, 3, [10, 10, 40, 30]), kind).numbers
    assert found["AP"] == pytest.approx(0.4)
    assert (found["AP50"], found["AP75"]) == (pytest.approx(1), 0)


def test_a_wrong_detection_of_a_higher_score_halves_precision(truth):
    path = truth([annotation(1, 5, 3, BIRD)])
    wrong = detection(9, 3, BIRD, 0.95)
    assert coco_scores(path, detection(5, 3, BIRD) + wrong, "bbox").numbers["AP"] == pytest.approx(
        0.5
    )


def test_no_detections_score_zero(truth):
    found = coco_scores(truth([annotation(1, 5, 3, BIRD)]), [], "bbox")
    assert found.numbers["AP"] == found.numbers["AR1"] == 0
    assert math.isnan(found.by_class["cat"])


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong(truth):
    path = truth([annotation(1, 5, 3, BIRD), annotation(2, 5, 3, CAT, crowd=1)])
    inside = detection(5, 3, [45, 10, 60, 20], 0.99)
    assert coco_scores(path, detection(5, 3, BIRD) + inside, "bbox").numbers["AP"] == pytest.approx(
        1
    )


def test_detections_beyond_the_limit_are_missed_with_a_warning(truth):
    boxes = [[x, y, x + 6, y + 6] for x in range(0, 72, 8) for y in range(0, 48, 8)]
    path = truth([annotation(i + 1, 5, 3, box) for i, box in enumerate(boxes)])
    found = [row for box in boxes for row in detection(5, 3, box)]
    full, short = (coco_scores(path, found, "bbox", most) for most in (100, 10))
    assert full.numbers["ARmax"] == pytest.approx(1)
    assert short.numbers["ARmax"] == pytest.approx(10 / len(boxes))
    assert not full.warnings
    (warning,) = short.warnings
    assert "1 images have more objects than the 10 detections" in warning


def test_what_does_not_fit_the_annotations_is_refused(truth):
    path = truth([annotation(1, 5, 3, BIRD)])
    with pytest.raises(UsageError, match="1 values of image_id in the results are not in"):
        coco_scores(path, detection(6, 3, BIRD), "bbox")
    with pytest.raises(UsageError, match="1 values of category_id"):
        coco_scores(path, detection(5, 4, BIRD), "bbox")
    with pytest.raises(UsageError, match="at least 10, not 5"):
        coco_scores(path, [], "bbox", 5)
    boxes_alone = results_of_image(5, np.array([BIRD]), np.array([3]), np.array([0.5]))
    with pytest.raises(UsageError, match="without masks"):
        coco_scores(path, boxes_alone, "segm")
    assert json.loads(json.dumps(boxes_alone))[0]["bbox"] == [10, 10, 20, 20]


EXAMPLE = os.environ.get("COCOAPI_EXAMPLE")
PUBLISHED = {
    "bbox": "0.505 0.697 0.573 0.586 0.519 0.501 0.387 0.594 0.595 0.640 0.566 0.564",
    "segm": "0.320 0.562 0.299 0.387 0.310 0.327 0.268 0.415 0.417 0.469 0.377 0.381",
}


@pytest.mark.slow
@pytest.mark.skipif(not EXAMPLE, reason="needs COCOAPI_EXAMPLE, the folder of cocoapi's results")
@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_example_of_cocoapi_has_its_published_numbers(kind):
    folder = Path(EXAMPLE)
    results = json.loads((folder / f"instances_val2014_fake{kind}100_results.json").read_text())
    found = coco_scores(folder / "instances_val2014_100.json", results, kind)
    assert " ".join(f"{number:.3f}" for number in found.numbers.values()) == PUBLISHED[kind]
