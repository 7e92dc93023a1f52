"""Pictures: transforms with masks, targets, buckets and shapes of evaluation."""

from pathlib import Path

import numpy as np
import pytest

from senet_jax.data.coco_index import CocoIndex
from senet_jax.data.coco_json import pack_coco
from senet_jax.data.config import AugmentConfig, CropConfig, ObjectsConfig
from senet_jax.data.examples import Draws
from senet_jax.data.loader import Host, TrainBatches
from senet_jax.data.order import GroupedOrder
from senet_jax.data.picture_examples import (
    TrainPictures,
    buckets,
    evaluated_size,
    evaluation_pictures,
)
from senet_jax.data.picture_transforms import (
    PictureTransform,
    Placed,
    fitted_size,
    mask_cells,
    mask_in_image,
    mask_region,
)
from senet_jax.data.pictures import ImagesInMemory, Picture, Pictures, coco_data, run_lengths
from senet_jax.errors import UsageError


def disc(size, centre, radius):
    """The pixels of a disc, and its tight box."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    mask = (rows + 0.5 - centre[0]) ** 2 + (columns + 0.5 - centre[1]) ** 2 < radius**2
    down, across = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask, [across[0], down[0], across[-1] + 1, down[-1] + 1]


def picture(size=(60, 80)):
    """Two discs, white on black, whose masks are where the image is white."""
    found = [disc(size, (20, 25), 13.3), disc(size, (42, 60), 9.1)]
    masks = np.stack([mask for mask, _ in found])
    image = np.repeat((masks.any(0) * 255).astype(np.uint8)[..., None], 3, 2)
    boxes = np.array([box for _, box in found], np.float32)
    return Picture(image, boxes, np.array([0, 1], np.int32), np.zeros(2, bool), masks)


def pictures(sizes, objects=()):
    """A split whose images have the sizes, and whose objects are (image, box, crowd)."""
    data = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": int(h), "width": int(w)}
            for i, (h, w) in enumerate(sizes)
        ],
        "categories": [{"id": 5, "name": "disc"}],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": 5,
                "bbox": list(box),
                "iscrowd": int(crowd),
            }
            for number, (image, box, crowd) in enumerate(objects)
        ],
    }
    images = np.zeros((len(sizes), *sizes[0], 3), np.uint8)

    return Pictures(ImagesInMemory(images), CocoIndex(pack_coco(data, Path("x.json"))))


def iou(left, right):
    return (left & right).sum() / (left | right).sum()


@pytest.mark.parametrize(
    ("objects", "crop"),
    [
        (ObjectsConfig(), CropConfig()),
        (ObjectsConfig(short=(45, 150), long=190), CropConfig()),
        (ObjectsConfig(), CropConfig(size=(50, 64), scale=(0.6, 2.0))),
    ],
)
def test_image_boxes_and_masks_change_together(objects, crop):
    view = PictureTransform(objects, crop, AugmentConfig(flip=True))
    flips = 0
    for seed in range(12):
        original = picture()
        changed, placed = view(original, np.random.default_rng(seed))
        flips += placed.flipped
        shape = changed.image.shape[:2]
        seen = np.zeros(shape, bool)
        for box, mask in zip(changed.boxes.astype(float), changed.masks, strict=True):
            region = mask_region(box, 64)
            cells = mask_cells(mask, placed.back(region[None])[0], 64)
            cells = cells[:, ::-1] if placed.flipped else cells
            own = mask_in_image(cells, region, shape)
            # The box is the tight one of what is seen, to a pixel of the original.
            slack = max(1.0, placed.scaled[0] / placed.size[0]) + 0.6
            rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
            tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(box - tight).max() <= slack
            seen |= own
        # The white pixels are those of the masks.
        assert iou(seen, changed.image[..., 0] > 127) > 0.93
        again, _ = view(picture(), np.random.default_rng(seed))
        assert np.array_equal(again.image, changed.image)
        assert np.array_equal(again.boxes, changed.boxes)
    assert 0 < flips < 12


def test_an_object_of_which_a_crop_leaves_nothing_is_left_out():
    view = PictureTransform(ObjectsConfig(), CropConfig(size=(12, 12)), AugmentConfig())
    counts = {len(view(picture(), np.random.default_rng(seed))[0].boxes) for seed in range(20)}
    assert {0, 1} <= counts


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [
        # torchvision: floor(side * min(800 / shorter, 1333 / longer)).
        ((427, 640), 800, 1333, (800, 1199)),
        ((480, 640), 800, 1333, (800, 1066)),
        ((200, 640), 800, 1333, (416, 1333)),
        ((1, 10_000), 800, 1333, (1, 1333)),
        ((1, 1), 800, 1333, (800, 800)),
        ((10_000, 10_000), 800, 1333, (800, 800)),
        ((31, 77), None, None, (31, 77)),
    ],
)
def test_sides_are_fitted_as_torchvision_rounds_them(size, short, long, expected):
    assert fitted_size(size, short, long) == expected


def test_an_image_that_scaling_makes_too_long_is_refused():
    thin = (1, 10_000)
    with pytest.raises(UsageError, match="1x10,000 pixels would be shown with 64x640,000, more"):
        evaluated_size(thin, ObjectsConfig(short=(64,)))
    assert evaluated_size(thin, ObjectsConfig(short=(64,), long=128)) == (1, 128)
    assert evaluated_size((10_000, 10_000), ObjectsConfig()) == (10_000, 10_000)


def test_boxes_go_there_and_back():
    placed = Placed((60, 80), (90, 100), (10, 20), (64, 72), flipped=True)
    boxes = np.array([[30.0, 20, 50, 40]])
    there = placed.boxes(boxes)
    # 1.25 and 1.5 times as large, less the corner, mirrored.
    assert there.tolist() == [[72 - (62.5 - 20), 20, 72 - (37.5 - 20), 50]]
    assert np.allclose(placed.back(there), boxes)


def test_a_cell_is_of_the_object_if_half_of_it_is():
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:5] = True
    # Cells of two pixels: columns 2-3 are full, 4-5 half.
    cells = mask_cells(mask, np.array([0.0, 0, 8, 8]), 4)
    assert cells.tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    # Beyond the image there is nothing.
    assert mask_cells(np.ones((4, 4), bool), np.array([-4.0, 0, 4, 8]), 4).tolist() == [
        [0, 0, 1, 1],
        [0, 0, 1, 1],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_crowds_come_last_and_the_largest_objects_stay():
    boxes = [(0, 0, 10, 10), (2, 2, 20, 20), (5, 5, 4, 4), (1, 1, 30, 30)]
    split = pictures([(40, 40)], [(0, box, index == 3) for index, box in enumerate(boxes)])
    view = PictureTransform(ObjectsConfig(most=2), CropConfig(), AugmentConfig())
    batch, failed = TrainPictures(split, view, (64, 64), masks=False).read(
        np.array([0]), [Draws(0)]
    )
    assert not failed
    assert batch["boxes"][0].tolist() == [[0, 0, 10, 10], [2, 2, 22, 22]]
    assert batch["labels"][0].tolist() == [1, 1]
    assert batch["size"][0].tolist() == [40, 40]
    view = PictureTransform(ObjectsConfig(most=6), CropConfig(), AugmentConfig())
    batch, _ = TrainPictures(split, view, (64, 64), masks=False).read(np.array([0]), [Draws(0)])
    assert batch["valid"][0].tolist() == [True] * 4 + [False] * 2
    assert batch["crowd"][0].tolist() == [False] * 3 + [True] + [False] * 2
    assert split.counts.tolist() == [3]


def test_buckets_are_of_landscape_and_portrait():
    sizes = np.array([(480, 640), (640, 480), (427, 640), (500, 500), (640, 427)])
    objects = ObjectsConfig(short=(640, 800), long=1333)
    landscape, portrait = buckets(sizes, objects, CropConfig(), 2)
    assert landscape.shape == (800, 1216)
    assert portrait.shape == (1216, 800)
    assert landscape.indices.tolist() == [0, 2, 3]
    assert portrait.indices.tolist() == [1, 4]
    # Two portraits fill no batch of three.
    (one,) = buckets(sizes, objects, CropConfig(), 3)
    assert one.shape == (1216, 1216)
    assert one.indices.tolist() == [0, 1, 2, 3, 4]
    (jittered,) = buckets(sizes, ObjectsConfig(), CropConfig(size=(100,)), 2)
    assert jittered.shape == (128, 128)
    with pytest.raises(UsageError, match="have 5 sizes, such as 427x640 and 640x480 pixels"):
        buckets(sizes, ObjectsConfig(), CropConfig(), 2)


def test_batches_have_one_format_and_the_same_on_all_hosts():
    groups = np.arange(0, 13), np.arange(13, 20)
    order = GroupedOrder(groups, 4, seed=3)
    for epoch in range(5):
        of_group, batches = order(epoch)
        assert np.bincount(of_group).tolist() == [3, 1]
        assert all(
            set(batch) <= set(groups[g].tolist())
            for g, batch in zip(of_group, batches, strict=True)
        )
        assert len(set(batches.ravel().tolist())) == 16
    assert not np.array_equal(order(0)[1], order(1)[1])
    again = GroupedOrder(groups, 4, seed=3)
    assert np.array_equal(again(4)[1], order(4)[1])
    # Every image comes in some epoch.
    assert len({int(i) for epoch in range(30) for i in order(epoch)[1].ravel()}) == 20


def test_any_step_host_and_worker_give_the_same_rows():
    sizes = [(40, 40)] * 20
    split = pictures(sizes, [(i, (i, 2, 15, 12), 0) for i in range(20)])
    view = PictureTransform(ObjectsConfig(most=3), CropConfig(), AugmentConfig(flip=True))
    forms = [TrainPictures(split, view, shape, False) for shape in ((64, 40), (40, 64))]
    groups = np.arange(0, 13), np.arange(13, 20)
    whole = TrainBatches(forms, 4, 7, 12, groups=groups)
    assert whole.steps_per_epoch == 4
    shapes = {whole[step][0]["image"].shape for step in range(4)}
    assert shapes == {(4, 64, 40, 3), (4, 40, 64, 3)}
    parts = [TrainBatches(forms, 4, 7, 12, groups=groups, host=Host(i, 2)) for i in range(2)]
    for step in (0, 3, 7):
        for name, values in whole[step][0].items():
            rows = [part[step][0][name] for part in parts]
            assert np.array_equal(np.concatenate(rows), values)
    for step, batch in zip(range(5, 12), whole.prefetch(5), strict=True):
        assert all(np.array_equal(batch[name], whole[step][0][name]) for name in batch)


def test_evaluation_has_each_picture_once_and_no_larger_shape():
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 90, (30, 2))
    objects = ObjectsConfig(short=(50,), long=120)
    groups = evaluation_pictures(pictures(sizes.tolist()), objects, 3)
    assert len(groups) == 3
    seen = np.concatenate([group.indices for group in groups])
    assert sorted(seen.tolist()) == list(range(30))
    for group in groups:
        assert all(side % 32 == 0 for side in group.shape)
        for index in group.indices:
            scaled = evaluated_size(sizes[index], objects)
            assert scaled[0] <= group.shape[0]
            assert scaled[1] <= group.shape[1]


def test_what_an_index_holds_becomes_annotations_again():
    mask, (x1, y1, x2, y2) = disc((30, 40), (12, 14), 8)
    data = {
        "images": [{"id": 3, "file_name": "a.png", "height": 30, "width": 40}],
        "categories": [{"id": 9, "name": "disc"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 3,
                "category_id": 9,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(mask.sum()),
                "iscrowd": 0,
                "segmentation": run_lengths(mask),
            }
        ],
    }
    data = {name: [dict(row) for row in rows] for name, rows in data.items()}
    data["annotations"][0]["bbox"] = [float(each) for each in data["annotations"][0]["bbox"]]

    assert coco_data(CocoIndex(pack_coco(data, Path("x.json")))) == data
