"""Detectors against torchvision's: weights, detections, losses and gradients."""

import functools
import json

import jax
import numpy as np
import pytest
from dense import checksum
from detection_oracle import (
    FILE,
    NAMES,
    PROGRAM,
    SIZES,
    Detector,
    batch,
    direction,
    doubled,
    objects,
    of_all,
    targets_of,
    tiny,
)
from goldens import draw, goldens

from senet_jax import create_model
from senet_jax.interchange import MisfitError, from_torch, to_torch
from tests.ops.torchvision_oracle import needs_torchvision, torchvision

FIRST, *OTHERS = ("maskrcnn_resnet18_fpn", *(n for n in NAMES if n != "maskrcnn_resnet18_fpn"))
every_name = pytest.mark.parametrize(
    "name", [FIRST, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)


@functools.cache
def golden():
    return {each["name"]: each for each in json.loads(FILE.read_text())}


@functools.cache
def state_dict(name):
    """Weights drawn by rule, by the names that torchvision has."""
    own = tiny(name).all_fields
    model = create_model(name, **own)
    shapes = jax.eval_shape(
        lambda key: model.init(key, np.zeros((1, 64, 64, 3), "f4"), train=False), jax.random.key(0)
    )
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), dict(shapes))
    written = {key: array.shape for key, array in to_torch(name, zeros, **own).items()}
    assert (len(written), checksum(written)) == (
        golden()[name]["entries"],
        golden()[name]["sha256"],
    )
    return {key: draw(key, shape) for key, shape in written.items()}


def detections(own: Detector, state, images, sizes):
    """Detections of a detector with these weights, in float64 if the images are of that."""
    if images.dtype == np.float64:
        # jax would find a gather that another test traced with indices of 32 bits.
        jax.clear_caches()
        with jax.enable_x64(True):
            return _detections(own, state, images, sizes)
    return _detections(own, state, images, sizes)


def variables_of(own, state, images):
    """The weights in the precision of the images."""
    variables = from_torch(own.name, state, **own.all_fields)
    return doubled(variables) if images.dtype == np.float64 else variables


def _detections(own, state, images, sizes):
    variables = variables_of(own, state, images)
    model = create_model(own.name, **own.all_fields)
    apply = jax.jit(lambda v, x, s: model.apply(v, x, s, train=False))
    return jax.tree.map(np.asarray, apply(variables, images, sizes))


def losses_of(own: Detector, state, images, sizes, targets):
    """Losses, gradients and running statistics by PyTorch's names, and what was drawn.

    All is computed in float64 if the images are of float64.
    """
    if images.dtype == np.float64:
        # jax would find a gather that another test traced with indices of 32 bits.
        jax.clear_caches()
        with jax.enable_x64(True):
            return _losses_of(own, state, images, sizes, targets)
    return _losses_of(own, state, images, sizes, targets)


def _losses_of(own, state, images, sizes, targets):
    variables = variables_of(own, state, images)
    model = create_model(own.name, **own.all_fields)

    def loss(params):
        found, state = model.apply(
            {**variables, "params": params},
            images,
            sizes,
            targets,
            train=True,
            rngs={"dropout": jax.random.key(0), "sampling": jax.random.key(1)},
            mutable=["batch_stats", "intermediates"],
        )
        return sum(found.values()), (found, state)

    gradients, (losses, updated) = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    statistics = updated["batch_stats"]
    written = to_torch(own.name, {"params": gradients, "batch_stats": statistics}, **own.all_fields)
    return {key: float(loss) for key, loss in losses.items()}, written, updated["intermediates"]


def overlaps(box, boxes):
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    inner = (high - low).clip(0).prod(-1)
    area = (box[2:] - box[:2]).prod()
    return inner / (area + (boxes[:, 2:] - boxes[:, :2]).prod(-1) - inner)


def assert_same_detections(found, image, boxes, labels, scores):
    """One to one by class and IoU; gives the places of ours in the order of theirs."""
    valid = found["valid"][image]
    count = len(boxes)
    assert valid.tolist() == [True] * count + [False] * (len(valid) - count)
    places = []
    for box, label, score in zip(boxes, labels, scores, strict=True):
        iou = overlaps(box, found["boxes"][image])
        place = np.where((found["labels"][image] == label) & valid, iou, -1).argmax()
        np.testing.assert_allclose(found["boxes"][image, place], box, atol=0.05)
        np.testing.assert_allclose(found["scores"][image, place], score, atol=1e-3)
        places.append(place)
    assert sorted(places) == [*range(count)]
    return places


@every_name
def test_detections_are_those_of_torchvision(name):
    images, sizes = batch(SIZES)
    found = detections(tiny(name), state_dict(name), images, sizes)
    expected = golden()[name]["detections"]
    assert sum(len(each["scores"]) for each in expected) > 20
    for image, each in enumerate(expected):
        boxes = np.array(each["boxes"]).reshape(-1, 4)
        places = assert_same_detections(found, image, boxes, each["labels"], each["scores"])
        if "mask_means" in each:
            masks = found["masks"][image, places]
            np.testing.assert_allclose(masks.mean((1, 2)), each["mask_means"], atol=1e-3)
            np.testing.assert_allclose(masks[:, 27, 5], each["mask_pixels"], atol=1e-3)


EXACT = 1e-9
"""The relative error in float64."""


@every_name
def test_losses_are_those_of_torchvision(name):
    images, sizes = batch(SIZES)
    targets = objects(sizes, images.shape[1:3])
    losses, written, _ = losses_of(
        of_all(name), state_dict(name), doubled(images), sizes, doubled(targets)
    )
    expected = golden()[name]
    assert losses.keys() == expected["losses"].keys()
    for key, loss in expected["losses"].items():
        assert loss > 0
        assert losses[key] == pytest.approx(loss, rel=EXACT), key
    largest = max(norm for norm, _ in expected["gradients"].values())
    for key, (norm, part) in expected["gradients"].items():
        own = written[key]
        assert np.linalg.norm(own) == pytest.approx(norm, rel=EXACT, abs=1e-12 * largest), key
        component = np.sum(own * direction(key, own.shape))
        assert component == pytest.approx(part, rel=EXACT, abs=EXACT * norm), key
    for key, mean in expected["statistics"].items():
        if key.endswith("running_mean"):
            assert written[key].mean() == pytest.approx(mean, abs=EXACT), key


def tolerance(name, key):
    """The relative error of a gradient in float32.

    In the small networks of the second version a single ReLU that rounding turns on or off changes
    the gradients of all layers before it by a thousandth. The layers after the last one do not
    know it.
    """
    last = ("rpn.", "roi_heads.box_predictor.", "roi_heads.mask_predictor.")
    if key.startswith(last):
        return 1e-4
    return 1e-2 if name.endswith("_v2") else 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_float32_trains_on_the_same_losses(name):
    images, sizes = batch(SIZES)
    targets = objects(sizes, images.shape[1:3])
    losses, written, _ = losses_of(of_all(name), state_dict(name), images, sizes, targets)
    expected = golden()[name]
    for key, loss in expected["losses"].items():
        assert losses[key] == pytest.approx(loss, rel=1e-4), key
    largest = max(norm for norm, _ in expected["gradients"].values())
    for key, (norm, _) in expected["gradients"].items():
        own = np.linalg.norm(written[key])
        assert own == pytest.approx(norm, rel=tolerance(name, key), abs=1e-5 * largest), key


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_those_of_torchvision(name):
    state, own = state_dict(name), tiny(name).all_fields
    written = to_torch(name, from_torch(name, state, **own), **own)
    assert written.keys() == state.keys()
    for key, array in state.items():
        np.testing.assert_array_equal(written[key], array)


OLD = (
    ("backbone.fpn.inner_blocks.{}.0.", "backbone.fpn.inner_blocks.{}."),
    ("backbone.fpn.layer_blocks.{}.0.", "backbone.fpn.layer_blocks.{}."),
    ("roi_heads.mask_head.{}.0.", "roi_heads.mask_head.mask_fcn{}."),
    ("rpn.head.conv.{}.0.", "rpn.head.conv."),
)
"""Starts of names of now, and what they are in the first files; masks count from 1 there."""


def in_first_files(key):
    for now, then in OLD:
        for index in range(4):
            if key.startswith(now.format(index)):
                old = then.format(index + ("mask" in then))
                return old + key.removeprefix(now.format(index))
    return key


def test_names_of_the_first_files_are_read():
    state, own = state_dict(FIRST), tiny(FIRST).all_fields
    old = {in_first_files(key): array for key, array in state.items()}
    assert {"backbone.fpn.inner_blocks.0.weight", "rpn.head.conv.weight"} < old.keys()
    assert "roi_heads.mask_head.mask_fcn4.bias" in old
    jax.tree.map(
        np.testing.assert_array_equal,
        from_torch(FIRST, old, **own),
        from_torch(FIRST, state, **own),
    )


def test_other_classes_start_fresh_outputs():
    state, own = state_dict(FIRST), tiny(FIRST).all_fields | {"num_classes": 3}
    with pytest.raises(MisfitError) as caught:
        from_torch(FIRST, state, **own)
    assert caught.value.head_classes == (5,)
    found = from_torch(FIRST, state, drop_head=True, **own)["params"]
    assert found["box_predictor"]["bbox_pred"]["kernel"].shape == (32, 12)
    assert found["mask_head"]["logits"]["kernel"].shape == (1, 1, 8, 3)
    kept = state["roi_heads.box_head.fc7.weight"].T
    np.testing.assert_array_equal(found["box_head"]["dense2"]["kernel"], kept)


@pytest.mark.slow
def test_weights_of_a_classifier_go_into_the_backbone():
    weights = goldens()["resnet18"].state_dict()
    found = from_torch("fasterrcnn_resnet18_fpn", weights, drop_head=True)
    expected = from_torch("resnet18", weights)
    for kind in ("params", "batch_stats"):
        for module, leaves in found[kind]["backbone"].items():
            jax.tree.map(np.testing.assert_array_equal, leaves, expected[kind][module])
    assert np.any(found["params"]["rpn"]["conv1"]["kernel"] != 0)
    with pytest.raises(MisfitError, match="have none of its heads"):
        from_torch("fasterrcnn_resnet18_fpn", weights)


ODD = [(161, 97), (130, 203), (77, 64)]


@pytest.mark.slow
@needs_torchvision
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bottleneck", [False, True])
def test_detections_are_those_of_torchvision_at_other_sizes(name, bottleneck):
    own = tiny(name)
    own.fields.update(
        bottleneck=bottleneck,
        blocks=(1, 2, 1, 1),
        num_classes=12,
        pyramid_width=24,
        anchor_sizes=(12, 20, 24, 40, 48, 80, 96, 160, 192, 300),
        anchor_ratios=(0.7, 1.4),
    )
    images, sizes = batch(ODD)
    entries, expected = torchvision(PROGRAM, "detect", own.spec(), images, sizes)
    state = {key: draw(key, tuple(shape)) for key, shape in entries}
    found = detections(own, state, images, sizes)
    for image, each in enumerate(map(dict, expected)):
        places = assert_same_detections(found, image, each["boxes"], each["labels"], each["scores"])
        if "masks" in each:
            masks = found["masks"][image, places]
            np.testing.assert_allclose(masks, each["masks"][:, 0], atol=1e-3)


FULL = Detector(
    "maskrcnn_resnet50_fpn",
    {
        "blocks": (3, 4, 6, 3),
        "bottleneck": True,
        "num_classes": 91,
        "pyramid_width": 256,
        "box_width": 1024,
        "mask_width": 256,
        "anchor_sizes": (32, 64, 128, 256, 512),
        "anchor_ratios": (0.5, 1.0, 2.0),
    },
)


@pytest.mark.slow
@needs_torchvision
def test_the_full_network_detects_as_torchvision_in_float64():
    # In float32 rounding moves thin boxes of random weights by tenths of a pixel, in both.
    images, sizes = batch([(796, 1060)])
    images = doubled(images)
    entries, (expected,) = torchvision(PROGRAM, "detect", FULL.spec(), images, sizes)
    state = {key: draw(key, tuple(shape)) for key, shape in entries}
    expected = dict(expected)
    count = len(expected["scores"])
    assert count > 50
    found = detections(FULL, state, images, sizes)
    assert found["valid"].sum() == count
    np.testing.assert_array_equal(found["labels"][0, :count], expected["labels"])
    np.testing.assert_allclose(found["scores"][0, :count], expected["scores"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found["boxes"][0, :count], expected["boxes"], rtol=0, atol=1e-7)
    masks = expected["masks"][:, 0]
    np.testing.assert_allclose(found["masks"][0, :count], masks, rtol=0, atol=1e-9)


@pytest.mark.slow
@needs_torchvision
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_torchvision_for_the_same_samples(name):
    own = tiny(name)
    few = {"rpn_samples": 60, "box_samples": 24, "box_positive": 0.5}
    own.ours.update(few)
    images, sizes = batch(ODD)
    images, targets = doubled(images), doubled(objects(sizes, images.shape[1:3]))
    masks = name.startswith("maskrcnn")
    state = state_dict(name)
    losses, written, drawn = losses_of(own, state, images, sizes, targets)

    def chosen(kind, index_of):
        (samples,) = drawn[kind]
        return [
            [
                index_of(image, np.asarray(samples.drawn[image])[np.asarray(which)])
                for which in (
                    samples.positive[image],
                    samples.valid[image] & ~samples.positive[image],
                )
            ]
            for image in range(len(sizes))
        ]

    limits = own.ours["post_nms_train"]
    expected = torchvision(
        PROGRAM, "losses", own.spec(), images, sizes, targets_of(targets, masks), []
    )
    counts = expected[-1]

    def of_proposals(image, index):
        """torchvision has the objects right after its proposals, and no padding."""
        rank = np.cumsum(targets["valid"][image]) - 1
        object_ = np.clip(index - limits, 0, None)
        return np.where(index < limits, index, counts[image] + rank[object_])

    pairs = [chosen("rpn_samples", lambda _, index: index), chosen("box_samples", of_proposals)]
    expected_losses, gradients, statistics, _ = torchvision(
        PROGRAM, "losses", own.spec(), images, sizes, targets_of(targets, masks), pairs
    )
    for key, loss in expected_losses:
        assert losses[key] == pytest.approx(loss, rel=EXACT), key
    largest = max(np.abs(x).max() for _, x in gradients)
    for key, gradient in gradients:
        error = np.abs(written[key] - gradient).max()
        assert error <= EXACT * max(np.abs(gradient).max(), 1e-3 * largest), key
    for key, statistic in statistics:
        # PyTorch keeps the unbiased variance of the batch, which has 147 pixels or more.
        rtol = EXACT if key.endswith("mean") else 1e-2
        np.testing.assert_allclose(written[key], statistic, rtol=rtol, atol=EXACT)
