"""Cascades, and every detector by detectron2's conventions, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from numpy_detector import Detector
from test_detection import KEY, SIZES, images, network, objects, shapes

from senet_jax import UsageError, create_model
from senet_jax.config import ModelConfig
from senet_jax.interchange import from_torch, to_torch
from senet_jax.models.detection.cascade import (
    CascadeMaskRCNN,
    CascadeRCNN,
    scale_gradient,
    stage_weights,
)
from senet_jax.tasks.detection import Detection
from senet_jax.training.detection_presets import DETECTRON2, DETECTRON2_MASKS

FIELDS = {
    **DETECTRON2,
    "rpn_samples": 24,
    "rpn_positive": 0.5,
    "post_nms_train": 16,
    "box_samples": 12,
    "box_positive": 0.5,
    "box_convs": 1,
    "box_denses": 2,
    "box_norm": True,
    "detections": 12,
    "score_threshold": 0.1,
}
MASKS = {**DETECTRON2_MASKS, "mask_convs": 1, "mask_norm": True, "mask_width": 4, "mask_bins": 5}
HEADS = ("cascademaskrcnn", "cascadercnn", "maskrcnn", "fasterrcnn")
every_head = pytest.mark.parametrize(
    "head", [HEADS[0], *(pytest.param(head, marks=pytest.mark.slow) for head in HEADS[1:])]
)


def detector(head):
    """A small one by detectron2's conventions."""
    agnostic = {"box_outputs": "agnostic"} if head.startswith("cascade") else {}
    masks = MASKS if head.endswith("maskrcnn") else {}
    return network(head, **{**FIELDS, **agnostic, **masks})


def targets_of(head):
    own = objects()
    # An object that the proposals, which are few, do not all miss.
    own["boxes"][0, 2] = (8, 12, 36, 44)
    own["masks"][0, 2] = 0
    own["masks"][0, 2, 12:44, 8:22] = 1
    if not head.endswith("maskrcnn"):
        del own["masks"]
    return own


@functools.cache
def drawn_variables(head, moves=1.0, seed=1):
    """Variables whose boxes move by more or less."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.6, 1.4, leaf.shape).astype(np.float32)
        of_boxes = path[1].key.startswith("box_predictor") and path[2].key == "bbox_pred"
        scale = (moves if of_boxes else 1) / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return (scale * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(detector(head))[1])


STAY, LEAVE = (0.3, 2), (0.5, 3)
"""Moves and seeds of variables whose boxes stay with their objects, or leave them."""


def keeps_levels(module, method):
    return module.name == "pyramid"


@functools.cache
def step_of(head):
    """A compiled function of losses, gradients and what was drawn."""
    model = detector(head)

    def loss(params, variables):
        found, state = model.apply(
            {**variables, "params": params},
            images(),
            SIZES,
            targets_of(head),
            train=True,
            rngs={"dropout": KEY, "sampling": KEY},
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=keeps_levels,
        )
        return sum(found.values()), (found, state["intermediates"])

    return jax.jit(jax.grad(loss, has_aux=True))


@functools.cache
def trained(head, drawn=STAY):
    """Losses, gradients, the levels of the pyramid, the oracle and its plan."""
    model, variables = detector(head), drawn_variables(head, *drawn)
    gradients, (losses, kept) = step_of(head)(variables["params"], variables)
    (levels,) = kept["pyramid"]["__call__"]
    chosen = []
    for name in ("rpn_samples", "box_samples"):
        (samples,) = jax.tree.map(np.asarray, kept[name])
        rows = zip(samples.drawn, samples.positive, samples.valid, strict=True)
        chosen.append([(index[valid], positive[valid]) for index, positive, valid in rows])
    levels = [np.asarray(level, np.float64) for level in levels]
    oracle = Detector(model, variables, SIZES)
    return losses, gradients, levels, oracle, oracle.plan(levels, targets_of(head), *chosen)


@every_head
def test_detections_are_those_of_numpy(head):
    model, variables = detector(head), drawn_variables(head)

    @jax.jit
    def run(variables):
        return model.apply(
            variables, images(), SIZES, train=False, capture_intermediates=keeps_levels
        )

    found, kept = run(variables)
    (levels,) = kept["intermediates"]["pyramid"]["__call__"]
    levels = [np.asarray(level, np.float64) for level in levels]
    oracle = Detector(model, variables, SIZES)
    expected = oracle.detect(levels)
    assert len({label for each in expected for label in each["labels"]}) > 1
    for image, each in enumerate(expected):
        count = len(each["scores"])
        assert count > 5
        assert found["valid"][image].tolist() == [at < count for at in range(model.detections)]
        for name, array in each.items():
            ours = np.asarray(found[name][image][:count])
            np.testing.assert_allclose(ours, array, rtol=1e-4, atol=1e-3, err_msg=name)
    assert_same_paths(kept["intermediates"], oracle.paths)


def assert_same_paths(kept, paths):
    """The proposals, and in a cascade their boxes after each stage."""
    (proposals,) = kept["proposals"]
    stages = [name for name in ("boxes", "boxes2", "boxes3") if name in kept]
    ours = [proposals.boxes, *(kept[name][0] for name in stages)]
    for image, path in enumerate(paths):
        valid = proposals.valid[image]
        assert valid.tolist() == [at < len(path[0]) for at in range(len(valid))]
        assert len(ours) == len(path)
        for stage, (own, boxes) in enumerate(zip(ours, path, strict=True)):
            own = np.asarray(own[image][valid])
            np.testing.assert_allclose(own, boxes, rtol=1e-4, atol=1e-3, err_msg=str(stage))


def assert_same_losses(losses, expected):
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name], value, rtol=2e-4, atol=1e-7, err_msg=name)


@every_head
def test_losses_are_those_of_numpy(head):
    losses, _, levels, oracle, plan = trained(head)
    for stage in plan.stages:
        assert 0 < (stage.labels > 0).sum() < len(stage.labels)
    assert_same_losses(losses, oracle.losses(levels, plan))


def test_stages_are_matched_by_their_own_overlaps():
    losses, _, levels, oracle, plan = trained("cascademaskrcnn", LEAVE)
    # Boxes that are objects in one stage are background in the next.
    assert [(stage.labels > 0).sum() for stage in plan.stages] == [2, 1, 0]
    assert_same_losses(losses, oracle.losses(levels, plan))
    assert losses["loss_box_reg_2"] > 0 == losses["loss_box_reg_3"]
    assert [stage_weights(stage) for stage in (1, 2, 3)] == [
        (10, 10, 5, 5),
        (20, 20, 10, 10),
        (30, 30, 15, 15),
    ]


def test_each_stage_passes_a_third_of_its_gradient():
    """Along a direction of the levels, against differences of the losses of NumPy."""
    _, gradients, levels, oracle, plan = trained("cascademaskrcnn")
    rng = np.random.default_rng(0)
    step = 1e-5
    for index in range(4):
        along = rng.standard_normal(levels[0].shape[-1])
        sides = []
        for sign in (-1, 1):
            moved = [*levels]
            moved[index] = moved[index] + sign * step * along
            if index == 3:
                moved[4] = moved[4] + sign * step * along
            sides.append(oracle.losses(moved, plan))
        parts = {name: (sides[1][name] - sides[0][name]) / (2 * step) for name in sides[0]}
        of_stages = sum(parts[name] for name in parts if name[5:8] in ("cla", "box"))
        expected = sum(parts.values()) - 2 / 3 * of_stages
        bias = gradients["pyramid"][f"layer{2 + index}"]["conv"]["bias"]
        np.testing.assert_allclose(along @ np.asarray(bias), expected, rtol=2e-3, atol=1e-5)
        if index == 0:
            # Objects of this size are pooled from the finest level.
            assert abs(of_stages) > 0.1 * abs(expected)


def test_the_heads_of_stages_have_their_own_gradient():
    _, gradients, levels, oracle, plan = trained("cascademaskrcnn")
    step = 1e-5
    for name in ("box_predictor", "box_predictor3"):
        bias = oracle.params[name]["cls_score"]["bias"]
        sides = []
        for sign in (-1, 1):
            oracle.params[name]["cls_score"]["bias"] = bias + sign * step * np.eye(len(bias))[0]
            sides.append(sum(oracle.losses(levels, plan).values()))
        oracle.params[name]["cls_score"]["bias"] = bias
        expected = (sides[1] - sides[0]) / (2 * step)
        np.testing.assert_allclose(gradients[name]["cls_score"]["bias"][0], expected, rtol=1e-3)


def test_a_scaled_gradient_leaves_the_values():
    x = jnp.linspace(-3, 7, 5)
    values, gradient = jax.value_and_grad(lambda x: (scale_gradient(x, 1 / 3) ** 2).sum())(x)
    assert values == (x**2).sum()
    np.testing.assert_allclose(gradient, 2 * x / 3, rtol=1e-6)


def test_names_make_cascades_on_any_backbone():
    model = create_model("cascademaskrcnn_resnest50d_fpn_v2", num_classes=7)
    assert isinstance(model, CascadeMaskRCNN)
    assert (model.box_outputs, model.mask_norm, model.box_convs) == ("agnostic", True, 4)
    assert model.later_overlaps == (0.6, 0.7)
    assert model.attention is not None
    plain = create_model("cascadercnn_seresnet18_fpn", later_overlaps=(0.75,))
    assert isinstance(plain, CascadeRCNN)
    assert not isinstance(plain, CascadeMaskRCNN)
    assert list(plain.stages) == [1, 2]
    masked = {head: Detection.has_masks(ModelConfig(name=f"{head}_resnet18_fpn")) for head in HEADS}
    assert masked == {head: head.endswith("maskrcnn") for head in HEADS}
    with pytest.raises(UsageError, match="box_outputs must be agnostic, not all"):
        create_model("cascadercnn_resnet18_fpn", box_outputs="all")


def test_every_stage_has_a_head_and_names_in_pytorch():
    head = "cascademaskrcnn"
    model, variables = detector(head), drawn_variables(head)
    starts = {path[0] for path in flatten_dict(variables["params"])}
    assert {f"{part}{n}" for part in ("box_head", "box_predictor") for n in ("", 2, 3)} < starts
    for classifier in model.classifiers:
        first, last = classifier.split("/")
        assert last in variables["params"][first]
    fields = {name: getattr(model, name) for name in (*FIELDS, *MASKS)}
    fields |= {name: getattr(model.backbone, name) for name in ("blocks", "widths", "stem_width")}
    fields |= {name: getattr(model, name) for name in ("num_classes", "pyramid_width", "box_width")}
    name = f"{head}_resnet18_fpn"
    written = to_torch(name, variables, **fields)
    assert "roi_heads.box_predictor.2.cls_score.weight" in written
    assert "roi_heads.box_head.0.0.0.weight" in written
    read = from_torch(name, written, **fields)
    assert jax.tree.all(jax.tree.map(np.array_equal, read, dict(variables)))
