"""RoIAlign against a loop over bins, samples and neighbours, and torchvision's Python form."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax import UsageError
from senet_jax.ops.per_image import per_image
from senet_jax.ops.roi_align import assign_levels, nearest_scale, roi_align
from senet_jax.ops.target import compiled_for
from senet_jax.planning.collectives import by_kind, read_collectives
from senet_jax.training.distributed import mesh as meshes
from tests.ops.torchvision_oracle import needs_torchvision, torchvision

FORMS = ["dense", "gather"]
SIZES, SCALES = [(12, 16), (6, 8), (3, 4)], (0.25, 0.125, 0.0625)
VARIANTS = [(2, False), (1, True), (None, False), (None, True)]
"""Samples and whether aligned."""


def neighbours(position, size):
    """Pixels and weights of a sample along one axis; none if it lies outside."""
    if position < -1 or position > size:
        return []
    position = min(max(position, 0.0), size - 1.0)
    low = int(position)
    part = position - low
    return [(low, 1 - part), (min(low + 1, size - 1), part)]


def contributions(box, scale, size, bins, sampling, aligned):
    """(bin row, bin column, pixel row, pixel column, weight) of a RoI, as the compiled loop has."""
    offset = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (float(np.float32(c)) * scale - offset for c in box)
    height, width = y2 - y1, x2 - x1
    if not aligned:
        height, width = max(height, 1.0), max(width, 1.0)
    down, across = (
        sampling or math.ceil(length / count)
        for length, count in zip((height, width), bins, strict=True)
    )
    down, across = max(down, 0), max(across, 0)
    for i, j in np.ndindex(*bins):
        for a, b in np.ndindex(down, across):
            y = y1 + height / bins[0] * (i + (a + 0.5) / down)
            x = x1 + width / bins[1] * (j + (b + 0.5) / across)
            for row, of_row in neighbours(y, size[0]):
                for column, of_column in neighbours(x, size[1]):
                    yield i, j, row, column, of_row * of_column / max(down * across, 1)


def loop(levels, boxes, of_level, bins, sampling, aligned, cotangent=None):
    """The result, or the gradient of the levels for a cotangent."""
    result = np.zeros((len(boxes), *bins, levels[0].shape[-1]))
    gradients = [np.zeros(level.shape) for level in levels]
    for k, (box, level) in enumerate(zip(boxes, of_level, strict=True)):
        if not 0 <= level < len(levels) or np.isnan(box).any():
            continue
        size = levels[level].shape[:2]
        each = contributions(box, SCALES[level], size, bins, sampling, aligned)
        for i, j, row, column, weight in each:
            result[k, i, j] += weight * levels[level][row, column]
            if cotangent is not None:
                gradients[level][row, column] += weight * cotangent[k, i, j]
    return result if cotangent is None else gradients


def draw(rois=14, channels=3, seed=0):
    """Maps of an image of 48 x 64 pixels, and RoIs inside, across and outside its border."""
    rng = np.random.default_rng(seed)
    levels = [rng.normal(size=(*size, channels)).astype("f4") for size in SIZES]
    corner = rng.uniform(-20, 60, (rois, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 50, (rois, 2))], 1).astype("f4")
    boxes[:3] = [[0, 0, 64, 48], [10, 10, 10, 10], [60, 45, 64, 48]]
    return levels, boxes, rng.integers(0, 3, rois).astype("i4")


def ours(levels, boxes, of_level, bins=(3, 2), **fields):
    return roi_align(levels, boxes, of_level, SCALES, bins, **fields)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("sampling", "aligned"), VARIANTS)
def test_roi_align_equals_the_loop(form, sampling, aligned):
    levels, boxes, of_level = draw()
    boxes[3], of_level[4] = np.nan, -1
    fields = {"sampling": sampling, "aligned": aligned, "form": form, "most": 12}
    found = jax.jit(functools.partial(ours, **fields))(levels, boxes, of_level)
    expected = loop(levels, boxes, of_level, (3, 2), sampling, aligned)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert (found[3:5] == 0).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("sampling", "aligned"), VARIANTS)
def test_gradients_equal_those_of_the_loop(form, sampling, aligned):
    levels, boxes, of_level = draw()
    cotangent = np.random.default_rng(1).normal(size=(len(boxes), 3, 2, 3)).astype("f4")

    def gradients(levels, boxes):
        run = functools.partial(ours, sampling=sampling, aligned=aligned, form=form, most=12)
        return jax.vjp(lambda *a: run(*a, of_level), levels, boxes)[1](cotangent)

    found, of_boxes = jax.jit(gradients)(levels, boxes)
    expected = loop(levels, boxes, of_level, (3, 2), sampling, aligned, cotangent)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
        assert np.abs(b).max() > 0.1
    assert (of_boxes == 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_adaptive_samples_have_a_limit(form):
    levels, boxes, of_level = draw(5)
    boxes[:] = [0, 0, 64, 48]
    of_level[:] = 0
    # Bins of 4 x 8 pixels: with the limit, 2 x 2 samples.
    found = ours(levels, boxes, of_level, sampling=None, most=2, form=form)
    np.testing.assert_allclose(found, loop(levels, boxes, of_level, (3, 2), 2, False), atol=2e-5)


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_is_summed_in_float32(form):
    levels, boxes, of_level = draw(channels=4)
    low = [jnp.array(level, jnp.bfloat16) for level in levels]
    cotangent = jnp.ones((len(boxes), 3, 2, 4))

    def both(levels):
        found, back = jax.vjp(lambda each: ours(each, boxes, of_level, form=form), levels)
        return found, back(cotangent.astype(found.dtype))[0]

    found, gradients = jax.jit(both)(low)
    exact, exact_gradients = jax.jit(both)([level.astype(jnp.float32) for level in low])
    for a, b in zip((found, *gradients), (exact, *exact_gradients), strict=True):
        assert a.dtype == jnp.bfloat16
        # One rounding, at the end.
        np.testing.assert_array_equal(a, b.astype(jnp.bfloat16))


def test_forms_suit_the_device_and_the_memory():
    levels, boxes, of_level = draw()

    def products(target, rois):
        with compiled_for(target):
            # A new function each time, which JAX has not traced before.
            trace = jax.make_jaxpr(lambda *image: ours(*image))
            return "dot_general" in str(trace(levels, boxes[:rois], of_level[:rois]))

    assert [products(target, 14) for target in ("tpu", "cpu", "gpu")] == [True, False, False]
    # A product of one RoI would take more memory than the result.
    assert not products("tpu", 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rois", "bins", "sampling"), [(128, 7, 2), (24, 14, None)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_temporaries_are_at_most_four_results(form, rois, bins, sampling, dtype):
    channels, sizes = 64, [(48, 64), (24, 32), (12, 16), (6, 8)]
    scales = (0.25, 0.125, 0.0625, 0.03125)

    def pooled(levels, boxes, of_level):
        return roi_align(levels, boxes, of_level, scales, bins, sampling=sampling, form=form)

    def gradients(levels, boxes, of_level, cotangent):
        return jax.vjp(lambda each: pooled(each, boxes, of_level), levels)[1](cotangent)[0]

    shape = jax.ShapeDtypeStruct
    levels = [shape((*size, channels), dtype) for size in sizes]
    rest = shape((rois, 4), jnp.float32), shape((rois,), jnp.int32)
    result = shape((rois, bins, bins, channels), dtype)
    limit = 4 * result.size * result.dtype.itemsize
    forward = jax.jit(pooled).lower(levels, *rest).compile()
    assert forward.memory_analysis().temp_size_in_bytes <= limit
    # Maps of bfloat16 are summed in float32: the sum, and what is added to it.
    sums = 2 * 4 * sum(level.size for level in levels) if dtype == jnp.bfloat16 else 0
    backward = jax.jit(gradients).lower(levels, *rest, result).compile()
    assert backward.memory_analysis().temp_size_in_bytes <= limit + sums


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sampling", [2, None])
def test_on_a_mesh_there_is_no_collective(form, sampling):
    mesh = meshes.make_mesh(8)
    images = [draw(seed=seed) for seed in range(8)]
    images = jax.tree.map(lambda *each: np.stack(each), *images)

    def loss(image):
        levels, boxes, of_level = image

        def total(levels):
            found = ours(levels, boxes, of_level, sampling=sampling, form=form)
            return jnp.square(found).sum()

        return jax.value_and_grad(total)(levels)

    def step(images):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return per_image(loss)(images)

    sharded = meshes.over_batch(mesh)
    lowered = jax.jit(step, in_shardings=sharded, out_shardings=sharded).lower(images)
    compiled = lowered.compile()
    assert by_kind(read_collectives(compiled.as_text())) == {}
    for a, b in zip(
        *map(jax.tree.leaves, (compiled(images), jax.jit(jax.vmap(loss))(images))), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_pooled_is_refused():
    levels, boxes, of_level = draw()
    with pytest.raises(UsageError, match="3 feature maps need as many scales, not 1"):
        roi_align(levels, boxes, of_level, (0.25,), 7)
    with pytest.raises(UsageError, match="at least 1"):
        ours(levels, boxes, of_level, bins=0)
    with pytest.raises(UsageError, match="dense"):
        ours(levels, boxes, of_level, form="dence")


@pytest.mark.parametrize("style", ["torchvision", "detectron2"])
def test_levels_begin_where_the_papers_formula_has_them(style):
    def level(height, width):
        box = jnp.float32([[10, 20, 10 + width, 20 + height]])
        return int(assign_levels(box, style=style)[0])

    assert [level(side, side) for side in (1, 111, 112, 223, 224, 447, 448, 2000)] == [
        0, 0, 1, 1, 2, 2, 3, 3,
    ]  # fmt: skip
    assert level(56, 224) == 1
    assert level(0, 50) == level(-5, 50) == level(-5, -50) == 0
    box = jnp.float32([[0, 0, 30, 30]])
    assert assign_levels(box, 0, 3, side=32, level=2, style=style).tolist() == [1]


PROGRAM = """
from torchvision.ops.poolers import _infer_scale, initLevelMapper
from torchvision.ops.roi_align import _roi_align
def function(features, boxes, bins, scale, sampling, aligned, cotangent, image):
    features.requires_grad_()
    rois = torch.cat([torch.zeros(len(boxes), 1), boxes], 1)
    found = _roi_align(features, rois, scale, *bins, sampling, aligned)
    found.backward(cotangent)
    levels = initLevelMapper(2, 5)([boxes * 8])
    return found, features.grad, levels, _infer_scale(features, image)
"""


@pytest.mark.slow
@needs_torchvision
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("sampling", "aligned"), [*VARIANTS, (2, True)])
def test_roi_align_equals_that_of_torchvision(form, sampling, aligned):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(24, 30, 5)).astype("f4")
    # Inside the map: torchvision's Python form has no zeros outside, its compiled one has.
    corner = rng.uniform(0, 60, (40, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.5, 34, (40, 2))], 1).astype("f4")
    cotangent = rng.normal(size=(40, 7, 5, 5)).astype("f4")
    theirs, slope, levels, scale = torchvision(
        PROGRAM,
        features.transpose(2, 0, 1)[None],
        boxes,
        [7, 5],
        0.25,
        sampling or -1,
        aligned,
        cotangent.transpose(0, 3, 1, 2),
        [96, 120],
    )
    fields = {"sampling": sampling, "aligned": aligned, "most": 12, "form": form}
    found, back = jax.vjp(
        lambda x: roi_align([x], boxes, np.zeros(40, "i4"), (0.25,), (7, 5), **fields),
        jnp.array(features),
    )
    np.testing.assert_allclose(found, theirs.transpose(0, 2, 3, 1), atol=2e-5)
    np.testing.assert_allclose(back(cotangent)[0], slope[0].transpose(1, 2, 0), atol=5e-5)
    np.testing.assert_array_equal(assign_levels(boxes * 8), levels)
    assert scale == nearest_scale(24, 96) == 0.25
