"""Detectors: their outputs, fields, losses, frozen parts, and what they cost on a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from senet_jax import SqueezeExciteConfig, UsageError, create_model, list_models
from senet_jax.config import ModelConfig, TrainConfig
from senet_jax.data.config import DataConfig
from senet_jax.models.detection.coverage import covered_share
from senet_jax.models.detection.mask_rcnn import MaskRCNN
from senet_jax.models.detection.objects import Objects, mask_targets
from senet_jax.models.zoo import find
from senet_jax.ops import boxes as box_ops
from senet_jax.planning.collectives import by_kind, read_collectives
from senet_jax.tasks.classification import Classification
from senet_jax.training.distributed import mesh as meshes

KEY = jax.random.key(0)
SMALL = {
    "blocks": (1, 1, 1, 1),
    "widths": (4, 4, 4, 8),
    "stem_width": 4,
    "num_classes": 4,
    "pyramid_width": 4,
    "box_width": 8,
    "anchor_sizes": (8, 16, 24, 32, 48),
    **dict.fromkeys(("pre_nms_train", "pre_nms_test"), 20),
    **dict.fromkeys(("post_nms_train", "post_nms_test"), 24),
    "box_samples": 16,
    "rpn_samples": 32,
    "detections": 6,
}
LOSSES = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}


def network(head="maskrcnn", backbone="resnet18", version="", **fields):
    masks = {"mask_width": 4} if head == "maskrcnn" else {}
    return create_model(f"{head}_{backbone}_fpn{version}", **{**SMALL, **masks, **fields})


SIZES = np.array([(64, 40), (50, 64)], np.int32)


def images(n=2, dtype=np.float32):
    """Normalized images of 64x64 pixels with padding."""
    x = np.random.default_rng(n).standard_normal((n, 64, 64, 3))
    for image, (height, width) in zip(x, np.resize(SIZES, (n, 2)), strict=True):
        image[height:], image[:, width:] = 0, 0
    return x.astype(dtype)


def objects(n=2, g=3, side=64):
    """Two objects in every image but the last, which has none, and padding."""
    boxes = np.zeros((n, g, 4), np.float32)
    boxes[:-1, 0], boxes[:-1, 2] = (5, 6, 25, 30), (10, 20, 38, 48)
    masks = np.zeros((n, g, side, side), np.uint8)
    for image in range(n - 1):
        for index in (0, 2):
            x1, y1, x2, y2 = boxes[image, index].astype(int) * side // 64
            masks[image, index, y1:y2, x1 : (x1 + x2) // 2] = 1
    labels = np.where(boxes.any(-1), [1, 0, 3], 0).astype(np.int32)
    return {"boxes": boxes, "labels": labels, "valid": labels > 0, "masks": masks}


@functools.cache
def shapes(model, n=2):
    x = jax.ShapeDtypeStruct((n, 64, 64, 3), jnp.float32)
    return jax.eval_shape(functools.partial(model.init_with_output, train=False), KEY, x)


def training(model, variables, x, sizes, targets, key=KEY, **arguments):
    """The losses, and the updated statistics."""
    return model.apply(
        variables,
        x,
        sizes,
        targets,
        train=True,
        rngs={"dropout": key, "sampling": key},
        mutable=["batch_stats", "intermediates"],
        **arguments,
    )


@pytest.mark.parametrize(("head", "version"), [("fasterrcnn", ""), ("maskrcnn", "_v2")])
def test_the_outputs_have_the_promised_shapes(head, version):
    expected = {
        "boxes": ((2, 6, 4), "float32"),
        "labels": ((2, 6), "int32"),
        "scores": ((2, 6), "float32"),
        "valid": ((2, 6), "bool"),
    }
    if head == "maskrcnn":
        expected["masks"] = ((2, 6, 28, 28), "float32")
    model = network(head, version=version, dtype=jnp.bfloat16)
    outputs, variables = shapes(model)
    assert {key: (y.shape, str(y.dtype)) for key, y in outputs.items()} == expected
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    run = functools.partial(training, model)
    targets = objects()
    if head == "fasterrcnn":
        del targets["masks"]
    losses, _ = jax.eval_shape(run, variables, images(), SIZES, targets)
    names = LOSSES | ({"loss_mask"} if head == "maskrcnn" else set())
    assert {key: (y.shape, str(y.dtype)) for key, y in losses.items()} == dict.fromkeys(
        names, ((), "float32")
    )


def test_the_second_version_has_norms_and_the_first_has_none():
    for version, convs in (("", 1), ("_v2", 2)):
        _, variables = shapes(network(version=version))
        params = variables["params"]
        for module in ("pyramid", "box_head", "mask_head"):
            paths = ["/".join(path) for path in flatten_dict(params[module])]
            assert any("bn/scale" in path for path in paths) == (version == "_v2"), module
        assert {f"conv{index}" for index in range(1, convs + 1)} < params["rpn"].keys()
        assert f"conv{convs + 1}" not in params["rpn"]


def test_published_names_are_listed_and_the_others_built():
    assert list_models("fasterrcnn*") == ["fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"]
    assert list_models("maskrcnn*") == ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"]
    model = create_model("maskrcnn_resnest50d_fpn_v2", num_classes=7, pyramid_norm=False)
    assert isinstance(model, MaskRCNN)
    assert (model.box_convs, model.mask_norm, model.pyramid_norm) == (4, True, False)
    assert model.attention is not None
    assert create_model("fasterrcnn_resnet50_fpn").num_classes == 91
    assert find("fasterrcnn_resnet18_fpn").input_size == 800
    assert create_model("fasterrcnn_resnet50_fpn") == create_model("fasterrcnn_resnet50_fpn")


def test_fields_reach_the_heads_and_the_backbone():
    se = SqueezeExciteConfig(gate="tanh")
    fields = {"attention": se, "output_stride": 16, "dtype": jnp.bfloat16}
    model = create_model("fasterrcnn_resnest50d_fpn", detections=7, **fields)
    assert model.detections == 7
    backbone = model.backbone
    assert (backbone.attention, backbone.output_stride, backbone.dtype) == (se, 16, jnp.bfloat16)


@pytest.mark.parametrize(
    "backbone",
    [
        "mobilenet_v1",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("vgg11_bn", "densenet121")),
    ],
)
def test_other_families_are_backbones(backbone):
    heads = {name: SMALL[name] for name in SMALL if name not in ("blocks", "widths", "stem_width")}
    model = create_model(f"fasterrcnn_{backbone}_fpn", **heads)
    assert shapes(model, 1)[0]["boxes"].shape == (1, 6, 4)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("maskrcnn_resnet5O_fpn", {}, "unknown backbone of maskrcnn 'resnet5O': did you mean res"),
        ("maskrcnn_resnet50", {}, "unknown model 'maskrcnn_resnet50': did you mean maskrcnn_resn"),
        ("fasterrcnn_cifar_resnet8_fpn", {}, "needs a backbone with the stages 2 to 5, and ResNet"),
        ("fasterrcnn_shufflenet_v1_fpn", {}, "ShuffleNetV1 has the stages 2, 3, 4 here"),
        ("fasterrcnn_resnet18_fpn", {"mask_bins": 7}, "unknown field of fasterrcnn_resnet18_fpn"),
        ("fasterrcnn_resnet18_fpn", {"backbone": None}, "unknown field of fasterrcnn_resnet18"),
        ("fasterrcnn_resnet18_fpn", {"num_classes": 1}, "so it must be at least 2"),
        ("fasterrcnn_resnet18_fpn", {"rpn_low": 0.8}, "rpn_low must be at most rpn_high"),
        ("fasterrcnn_resnet18_fpn", {"anchor_sizes": (8,) * 7}, "as many for each of the 5 levels"),
        ("fasterrcnn_resnet18_fpn", {"frozen_norms": (6,)}, "stage 6 does not exist"),
        ("fasterrcnn_resnet18_fpn", {"frozen_stages": 9}, "stage 9 does not exist"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_model_is_made(name, fields, message):
    with pytest.raises(UsageError, match=message):
        create_model(name, **fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": None}, "lack 'boxes'"),
        ({"masks": None}, "lack 'masks'"),
        ({"extra": np.zeros(2)}, "have no 'extra'"),
        ({"labels": np.zeros((2, 4))}, "labels must have a row for each box"),
        ({"masks": np.zeros((2, 3, 9))}, "masks must have a row for each box"),
        ({"boxes": np.zeros((2, 3, 5))}, r"must be \(2, g, 4\)"),
        (None, "needs targets in training"),
    ],
)
def test_targets_that_do_not_fit_are_refused(change, message):
    model = network()
    targets = None if change is None else {**objects(), **change}
    if targets:
        targets = {name: array for name, array in targets.items() if array is not None}
    with pytest.raises(UsageError, match=message):
        training(model, {"params": {}}, images(), SIZES, targets)


def test_classification_does_not_take_them():
    config = TrainConfig(
        model=ModelConfig(name="fasterrcnn_resnet18_fpn"), data=DataConfig(name="digits")
    )
    with pytest.raises(UsageError, match=r"finds objects.* a network such as resnet18"):
        Classification.open(config)


@functools.cache
def trained(version="", **fields):
    """A model, its variables, and a jitted function of losses, gradients and statistics."""
    model = network(version=version, **fields)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.6, 1.4, leaf.shape).astype(np.float32)
        fan_in = max(1, np.prod(leaf.shape[:-1]))
        return (rng.standard_normal(leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes(model)[1])

    @jax.jit
    def run(variables, x, sizes, targets, key):
        def loss(params):
            found, state = training(model, {**variables, "params": params}, x, sizes, targets, key)
            return sum(found.values()), (found, state["batch_stats"])

        gradients, (losses, statistics) = jax.grad(loss, has_aux=True)(variables["params"])
        return losses, gradients, statistics

    return model, variables, run


@pytest.mark.slow
def test_frozen_parts_stay_as_they_are():
    model, variables, run = trained("_v2", frozen_stages=2, frozen_norms=(3, 4))
    _, gradients, statistics = run(variables, images(), SIZES, objects(), KEY)
    for path, gradient in flatten_dict(gradients).items():
        assert np.isfinite(gradient).all(), path
        assert np.any(gradient != 0) != model.is_frozen(path), path
    frozen = {path for path in flatten_dict(variables["params"]) if model.is_frozen(path)}
    assert ("backbone", "stage2", "block1", "conv1", "kernel") in frozen
    assert ("backbone", "stage3", "block1", "bn1", "bias") in frozen
    assert ("backbone", "stage3", "block1", "conv1", "kernel") not in frozen
    for path, leaf in flatten_dict(statistics).items():
        stage = model.backbone.stage_of(path[1]) if path[0] == "backbone" else 9
        same = np.array_equal(leaf, flatten_dict(variables["batch_stats"])[path])
        assert same == (stage <= 4), path


def test_losses_do_not_know_padding_and_know_objects():
    _, variables, run = trained(rpn_samples=10**6, box_samples=10**6, box_positive=1.0)
    losses, gradients, _ = run(variables, images(), SIZES, objects(), KEY)
    for path, gradient in flatten_dict(gradients).items():
        assert np.isfinite(gradient).all(), path
        assert np.any(gradient != 0), path
    # Padding is anything.
    own = objects()
    padding = ~own["valid"]
    own["boxes"][padding], own["labels"][padding], own["masks"][padding] = (3, 2, 60, 61), 3, 1
    same, _, _ = run(variables, images(), SIZES, own, jax.random.key(1))
    for name, loss in losses.items():
        np.testing.assert_allclose(same[name], loss, rtol=1e-5)
    own = {**own, "valid": np.zeros_like(own["valid"])}
    none, gradients, _ = run(variables, images(), SIZES, own, KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    for name in ("loss_rpn_box_reg", "loss_box_reg", "loss_mask"):
        assert losses[name] > 0
        assert none[name] == 0
    assert none["loss_objectness"] > 0


@pytest.mark.slow
def test_every_image_draws_with_a_key_of_its_own():
    model = network("fasterrcnn", rpn_samples=32)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes(model)[1])
    own = {name: np.repeat(array[:1], 2, 0) for name, array in objects().items()}
    x = np.zeros((2, 64, 64, 3), np.float32)
    run = jax.jit(functools.partial(training, model))
    drawn = []
    for seed in (0, 0, 1):
        _, state = run(variables, x, SIZES, own, jax.random.key(seed))
        (samples,) = state["intermediates"]["rpn_samples"]
        drawn.append([frozenset(each) for each in samples.drawn.tolist()])
    assert drawn[0] == drawn[1]
    assert len({each for pair in (drawn[0], drawn[2]) for each in pair}) == 4


@pytest.mark.slow
def test_what_lies_in_a_crowd_is_no_background():
    model = network("fasterrcnn", rpn_samples=10**6, rpn_positive=1.0)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes(model)[1])
    own = objects()
    own["boxes"][:, 1] = (20, 0, 64, 40)
    own["labels"][:, 1], own["valid"][:, 1] = 1, True
    own["crowd"] = np.zeros((2, 3), bool)
    own["crowd"][:, 1] = True
    _, state = jax.jit(functools.partial(training, model))(variables, images(), SIZES, own)
    (samples,) = state["intermediates"]["rpn_samples"]
    levels = [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    anchors = np.concatenate(model.anchors((64, 64), levels))
    for image in range(2):
        valid = np.asarray(samples.valid[image])
        drawn = np.asarray(samples.drawn[image])[valid]
        positive = np.asarray(samples.positive[image])[valid]
        assert (np.asarray(samples.object[image])[valid][positive] != 1).all()
        inside = np.asarray(box_ops.covered(own["boxes"][image, 1:2], anchors))[0] >= 0.7
        assert inside.any()
        assert not inside[drawn[~positive]].any()
        # Anchors between the thresholds are ignored, too.
        overlaps = np.asarray(box_ops.iou(own["boxes"][image, [0, 2]], anchors)).max(0)
        assert set(drawn[~positive]) == set(np.flatnonzero((overlaps < 0.3) & ~inside)) - set(
            drawn[positive]
        )


@pytest.mark.slow
@pytest.mark.parametrize("version", ["", "_v2"])
def test_devices_meet_for_sums_alone(version):
    """Evaluation needs no other device; training sums losses, counts, norms and gradients."""
    model = network(version=version, norm_group=1 if version else None)
    mesh = meshes.make_mesh(8)
    whole, divided = meshes.replicated(mesh), meshes.over_batch(mesh)
    sizes = np.resize(SIZES, (8, 2))

    def compiled(step, *inputs):
        def on_mesh(*inputs):
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return step(*inputs)

        shardings = (whole, *(divided for _ in inputs[1:]))
        return jax.jit(on_mesh, in_shardings=shardings).lower(*inputs).compile()

    variables = shapes(model)[1]
    detect = functools.partial(model.apply, train=False)
    found = compiled(detect, variables, images(8), sizes)
    assert by_kind(read_collectives(found.as_text())) == {}

    def losses(variables, x, sizes, targets):
        parts = model.apply(
            variables,
            x,
            sizes,
            targets,
            method="loss_parts",
            rngs={"dropout": KEY, "sampling": KEY},
            mutable=["batch_stats"],
        )[0]
        return {name: part.mean for name, part in parts.items()}

    found = compiled(losses, variables, images(8), sizes, objects(8))
    collectives = read_collectives(found.as_text())
    assert by_kind(collectives).keys() == {"all-reduce"}


def test_the_share_that_anchors_cover_is_that_of_all_anchors():
    model = network("fasterrcnn", anchor_ratios=(0.5, 2.0))
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 50, (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 40, (300, 2))], 1).astype("f4")
    grids = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    anchors = np.concatenate(model.anchors((64, 96), grids))
    best = np.asarray(box_ops.iou(boxes, anchors)).max(1)
    assert 0.1 < (best >= 0.5).mean() < 0.9
    for overlap in (0.3, 0.5, 0.7):
        assert covered_share(model, boxes, (64, 96), overlap) == (best >= overlap).mean()
    assert np.isnan(covered_share(model, boxes[:0], (64, 96)))


def test_a_mask_of_a_region_is_that_of_the_image():
    rng = np.random.default_rng(0)
    masks = (rng.random((2, 64, 96)) < 0.5).astype(np.uint8)
    regions = np.array([(10, 20, 50, 60), (0, 0, 96, 64)], "f4")
    crops = np.stack([masks[0, 20:60, 10:50], masks[1][:40, :40]])
    crops[1] = 0
    boxes = np.array([(14, 26, 43, 51), (20.5, 24.25, 40, 40)], "f4")
    own = jnp.zeros(2, jnp.int32)

    def targets(masks, regions, binary=False):
        found = Objects(*([None] * 4), jnp.asarray(masks), regions)
        return mask_targets(found, jnp.asarray(boxes), own, 7, (64, 96), binary)

    whole = targets(masks, None)
    assert 0.1 < whole.mean() < 0.9
    np.testing.assert_allclose(targets(crops, jnp.asarray(regions)), whole, atol=1e-5)
    # Twice as many pixels of the same region.
    fine = np.repeat(np.repeat(masks, 2, 1), 2, 2)
    aligned = targets(masks, None, binary=True)
    assert set(np.unique(aligned)) == {0, 1}
    assert (targets(fine, None, binary=True) == aligned).mean() > 0.8


@pytest.mark.slow
def test_conventions_of_detectron2_change_the_program():
    """Each field of them is used; the anchors are constants, which no text of a program shows."""
    changes = {
        "roi_aligned": True,
        "roi_samples": 0,
        "level_style": "detectron2",
        "background": "last",
        "box_outputs": "agnostic",
        "box_beta": 0.0,
        "rpn_normalizer": "fixed",
        "mask_targets": "binary",
    }

    def trace(**fields):
        model = network(**fields)
        run = functools.partial(training, model)
        return str(jax.make_jaxpr(run)(shapes(model)[1], images(), SIZES, objects()))

    plain = trace()
    model = network("fasterrcnn", anchor_style="detectron2")
    assert model.anchors((64, 64), [(2, 2)] * 5)[0][0].tolist() != [-6, -3, 6, 3]
    for field, value in changes.items():
        assert trace(**{field: value}) != plain, field
