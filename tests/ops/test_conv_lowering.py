"""Every form of a convolution against XLA's own, and the convolutions on a mesh."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend import core

from senet_jax.errors import UsageError
from senet_jax.models.cost import cost
from senet_jax.ops import conv_forms
from senet_jax.ops.compute import EVALUATION, Compute
from senet_jax.ops.conv_forms import Geometry
from senet_jax.ops.conv_lowering import FORMS, applicable, best, lowering
from senet_jax.planning.collectives import by_kind, read_collectives
from senet_jax.training.distributed import mesh as meshes


def case(size, channels, features, side, **fields):
    """A convolution of images of 2 x size x (size + 2) with PyTorch's padding."""
    geometry = Geometry(**fields)
    if "padding" not in fields:
        pads = [(reach * (side - 1) // 2,) * 2 for reach in geometry.dilation]
        geometry = dataclasses.replace(geometry, padding=tuple(pads))
    return (
        (2, size, size + 2, channels),
        (side, side, channels // geometry.groups, features),
        geometry,
    )


CASES = [
    case(5, 6, 4, 1),
    case(7, 6, 4, 1, strides=(2, 2)),
    case(8, 3, 5, 1, strides=(3, 2)),
    case(6, 6, 6, 1, groups=3),
    case(6, 8, 8, 3, groups=2),
    case(7, 64, 128, 3, groups=32),
    case(7, 96, 96, 3, groups=24, strides=(2, 2)),
    case(9, 12, 24, 3, groups=4, dilation=(2, 2), strides=(2, 2)),
    case(9, 70, 35, 3, groups=35, dilation=(2, 1)),
    case(5, 80, 160, 3, groups=2),
    case(6, 8, 4, 3, groups=4, padding=((0, 1), (2, 0))),
    case(7, 6, 6, 3, groups=6),
    case(8, 33, 33, 3, groups=33, strides=(2, 2)),
    case(9, 4, 4, 5, groups=4, dilation=(2, 1), strides=(1, 2)),
    case(6, 4, 4, 3, groups=4, padding=((0, 1), (2, 0))),
    case(6, 4, 4, 1, groups=4),
    case(2, 5, 3, 3),
    case(9, 5, 3, 3),
    case(12, 4, 6, 3, padding=((0, 0), (0, 0))),
    case(5, 3, 4, 3, padding=((2, 1), (0, 2))),
    case(10, 3, 4, 3, strides=(2, 2)),
    case(9, 4, 3, 3, dilation=(2, 1)),
    case(11, 3, 4, 5, strides=(2, 1), dilation=(1, 2)),
    case(7, 2, 3, 2, padding=((1, 0), (1, 1))),
]
"""Shape of the images, shape of the kernel, geometry."""

FORMED = [
    pytest.param(name, *each, id=f"{name}-{each[0]}-{each[1]}-{index}")
    for index, each in enumerate(CASES)
    for name in applicable(jnp.zeros(each[1]), each[2])[1:]
]


def arrays(x_shape, kernel_shape, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=kernel_shape) / np.sqrt(np.prod(kernel_shape[:3]))
    return jnp.asarray(rng.normal(size=x_shape), dtype), jnp.asarray(kernel, dtype)


def value_and_gradients(form, x, kernel, geometry):
    """The value, and both gradients of the sum of it times fixed numbers."""

    @jax.jit
    def all_three(x, kernel):
        y, pull = jax.vjp(lambda x, kernel: form(x, kernel, geometry), x, kernel)
        weights = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        return y, *pull(weights.astype(y.dtype))

    return all_three(x, kernel)


@pytest.mark.parametrize(("name", "x_shape", "kernel_shape", "geometry"), FORMED)
def test_value_and_both_gradients_are_those_of_the_native_form(
    name, x_shape, kernel_shape, geometry
):
    x, kernel = arrays(x_shape, kernel_shape)
    found = value_and_gradients(FORMS[name], x, kernel, geometry)
    expected = value_and_gradients(conv_forms.native, x, kernel, geometry)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@st.composite
def convolutions_drawn(draw):
    """Any convolution that some form besides the native one can take."""
    groups = draw(st.sampled_from([1, 2, 3, 5, 8, 32]))
    per_group = draw(st.sampled_from([1, 1, 2, 4, 17]))
    side = draw(st.sampled_from([1, 2, 3, 3, 5]))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 2))
    dilation = draw(pair)
    # XLA's own input gradient of a dense convolution is wrong where the padding is wider than that.
    most = [min(3, reach * (side - 1)) if groups == 1 else 3 for reach in dilation]
    geometry = Geometry(
        strides=draw(pair),
        padding=tuple((draw(st.integers(0, n)), draw(st.integers(0, n))) for n in most),
        dilation=dilation,
        groups=groups,
    )
    least = [reach * (side - 1) + 1 for reach in dilation]
    height, width = (draw(st.integers(low, low + 6)) for low in least)
    channels, features = groups * per_group, groups * draw(st.sampled_from([1, 2, 3]))
    return (2, height, width, channels), (side, side, per_group, features), geometry


@settings(max_examples=25, deadline=None, derandomize=True)
@given(convolutions_drawn(), st.sampled_from([jnp.float32, jnp.float32, jnp.bfloat16]))
def test_every_form_is_the_native_one_whatever_the_convolution(drawn, dtype):
    x_shape, kernel_shape, geometry = drawn
    x, kernel = arrays(x_shape, kernel_shape, dtype)
    expected = value_and_gradients(conv_forms.native, x, kernel, geometry)
    tolerance = 1e-4 if dtype == jnp.float32 else 0.06
    for name in applicable(kernel, geometry)[1:]:
        found = value_and_gradients(FORMS[name], x, kernel, geometry)
        for a, b in zip(found, expected, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            a, b = np.float32(a), np.float32(b)
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, abs(b).max()))


@pytest.mark.parametrize("index", [1, 6, 12])
def test_bfloat16_is_as_near_to_float32_as_the_native_form(index):
    x_shape, kernel_shape, geometry = CASES[index]
    x, kernel = arrays(x_shape, kernel_shape, jnp.bfloat16)
    name = applicable(kernel, geometry)[-1]
    found = value_and_gradients(FORMS[name], x, kernel, geometry)
    native = value_and_gradients(conv_forms.native, x, kernel, geometry)
    exact = value_and_gradients(
        conv_forms.native, x.astype(jnp.float32), kernel.astype(jnp.float32), geometry
    )
    for a, b, truth in zip(found, native, exact, strict=True):
        assert a.dtype == jnp.bfloat16
        scale = np.abs(truth).max()
        error, allowed = (np.abs(np.float32(z) - truth).max() / scale for z in (a, b))
        assert error < max(3 * allowed, 0.02)


@pytest.mark.parametrize("name", ["patches", "crossed", "winograd_gradient", "winograd_all"])
def test_a_mean_of_100_deviations_costs_no_digits(name):
    """Against float64, relative to the values: they are the sums of large numbers."""
    geometry = Geometry(padding=((1, 1), (1, 1)))
    x, kernel = arrays((4, 13, 13, 32), (3, 3, 32, 32))
    x = x + 100
    found = value_and_gradients(FORMS[name], x, kernel, geometry)
    native = value_and_gradients(conv_forms.native, x, kernel, geometry)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.float64(each)) for each in (x, kernel)]
        exact = map(np.asarray, value_and_gradients(conv_forms.native, *wide, geometry))
    for a, b, truth in zip(found, native, exact, strict=True):
        error, allowed = (np.abs(np.float64(z) - truth).max() / truth.std() for z in (a, b))
        assert error < max(20 * allowed, 2e-5)


@pytest.mark.parametrize("side", [13, 28])
def test_kernel_gradients_are_accurate_in_each_channel(side):
    geometry = Geometry(padding=((1, 1), (1, 1)), groups=4)
    x, kernel = arrays((4, side, side, 4), (3, 3, 1, 4))
    x = x + 100
    *_, found = value_and_gradients(conv_forms.depthwise, x, kernel, geometry)
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.float64(each)) for each in (x, kernel)]
        truth = np.asarray(value_and_gradients(conv_forms.native, *wide, geometry)[-1])
    assert np.abs(np.float64(found) - truth).max() / truth.std() < 2e-5
    x = x.at[0, 5, 6, 1].set(np.nan)
    *_, found = value_and_gradients(conv_forms.depthwise, x, kernel, geometry)
    assert not np.isfinite(found[..., 1]).any()
    assert np.isfinite(found[..., [0, 2, 3]]).all()


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("name", ["patches", "crossed", "winograd_gradient", "winograd_all"])
def test_no_finite_number_takes_the_place_of_inf_or_nan(name, value):
    geometry = Geometry(padding=((1, 1), (1, 1)))
    x, kernel = arrays((2, 12, 12, 3), (3, 3, 3, 4))
    x = x.at[0, 5, 6, 1].set(value)
    found = value_and_gradients(FORMS[name], x, kernel, geometry)
    native = value_and_gradients(conv_forms.native, x, kernel, geometry)
    for a, b in zip(found, native, strict=True):
        assert not np.isfinite(a[~np.isfinite(b)]).any()
    # The other image, and the tiles that do not see the pixel, stay finite.
    assert np.isfinite(found[0][1]).all()
    assert np.isfinite(found[0][0, :4, :4]).all()
    assert np.isfinite(found[2][:, :, [0, 2]]).all()


def test_a_cpu_has_other_forms_and_the_others_the_native_one():
    expected = {1: "pointwise", 4: "chunked", 11: "depthwise", 15: "depthwise"}
    expected |= {16: "patches_all", 17: "native"}
    for index, name in expected.items():
        x_shape, kernel_shape, geometry = CASES[index]
        x, kernel = jnp.zeros(x_shape), jnp.zeros(kernel_shape)
        assert best(x, kernel, geometry, "cpu") == name
        assert best(x, kernel, geometry, "gpu") == best(x, kernel, geometry, "tpu") == "native"


@pytest.mark.parametrize(
    ("images", "channels", "side", "fields", "name"),
    [
        ((8, 56), 64, 3, {}, "winograd_gradient"),
        ((8, 14), 256, 3, {}, "winograd_gradient"),
        ((8, 7), 512, 3, {}, "winograd_gradient"),
        ((1, 7), 512, 3, {}, "patches"),
        ((32, 2), 512, 3, {}, "patches_all"),
        ((32, 4), 512, 3, {"strides": (2, 2)}, "patches_all"),
        ((8, 4), 16, 3, {"dilation": (2, 2)}, "patches_all"),
        ((128, 32), 16, 3, {}, "winograd_gradient"),
        ((128, 32), 3, 3, {}, "native"),
        ((8, 56), 128, 3, {"strides": (2, 2)}, "patches"),
        ((8, 28), 256, 3, {"dilation": (2, 2)}, "crossed"),
        ((8, 28), 192, 5, {}, "crossed"),
        ((8, 224), 3, 7, {"strides": (2, 2)}, "native"),
    ],
)
def test_the_form_of_a_dense_convolution_follows_its_shape(images, channels, side, fields, name):
    n, size = images
    _, kernel_shape, geometry = case(size, channels, channels, side, **fields)
    x = jax.ShapeDtypeStruct((n, size, size, channels), jnp.float32)
    kernel = jax.ShapeDtypeStruct(kernel_shape, jnp.float32)
    assert best(x, kernel, geometry, "cpu") == name
    for dtype in ("bfloat16", "float64"):
        other = (jax.ShapeDtypeStruct(each.shape, dtype) for each in (x, kernel))
        assert best(*other, geometry, "cpu") == "native"


def test_bfloat16_has_no_winograd_even_if_forced():
    x = jnp.zeros((1, 8, 8, 4), jnp.bfloat16)
    assert not {"winograd_gradient", "winograd_all"} & {*applicable(x[:3, :3], Geometry())}
    with lowering("winograd_all"):
        layer = Compute(train=False, dtype=jnp.bfloat16).conv(4, 3)
        assert convolutions(layer, x) == [1]


def convolutions(layer, x):
    """The groups of each convolution in what a layer is traced to."""
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    return groups_in(jax.make_jaxpr(layer.apply)(variables, x).jaxpr)


def groups_in(jaxpr):
    found = []
    for eqn in jaxpr.eqns:
        if "conv_general" in eqn.primitive.name:
            found.append(eqn.params["feature_group_count"])
        for inner in core.jaxprs_in_params(eqn.params):
            found += groups_in(inner)
    return found


def test_one_context_forces_a_form_wherever_it_applies():
    x = jnp.zeros((1, 5, 5, 64))
    conv = EVALUATION.conv
    dense, grouped, each = conv(64, 1), conv(64, 3, groups=16), conv(64, 3, groups=64)
    with lowering("native"):
        assert [convolutions(layer, x) for layer in (dense, grouped, each)] == [[1], [16], [64]]
        with lowering(None):
            assert [convolutions(layer, x) for layer in (dense, grouped, each)] == [[], [1, 1], []]
    with lowering("chunked"):
        assert [convolutions(layer, x) for layer in (dense, grouped, each)] == [[1], [1, 1], [1, 1]]
    with pytest.raises(UsageError, match="chunked"), lowering("chunkd"):
        pass


@pytest.mark.parametrize(
    ("kernel_size", "groups", "expected"),
    [(1, 1, 36 * 8 * 8), (3, 2, 36 * 8 * 4 * 9), (3, 8, 36 * 8 * 9)],
)
@pytest.mark.parametrize("name", [None, "chunked"])
def test_the_cost_of_a_layer_does_not_depend_on_its_form(kernel_size, groups, expected, name):
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return EVALUATION.conv(8, kernel_size, groups=groups)(x)

    with lowering(name):
        assert cost(Model(), 6, channels=8).macs == expected


def on_mesh(layer, variables, x, name, mesh):
    """Compiles loss and gradients of a layer with the images split over the mesh."""

    def step(variables, x):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), lowering(name):
            return jax.value_and_grad(lambda *a: jnp.sum(jnp.cos(layer.apply(*a))), (0, 1))(
                variables, x
            )

    shardings = (meshes.replicated(mesh), meshes.over_batch(mesh))
    return jax.jit(step, in_shardings=shardings).lower(variables, x).compile()


@pytest.mark.parametrize(
    ("name", "groups", "stride"),
    [
        *itertools.product(["native", None], [2, 8, 16], [2]),
        ("crossed", 1, 1),
        ("patches", 1, 2),
        ("winograd_gradient", 1, 1),
        ("winograd_all", 1, 1),
    ],
)
def test_a_convolution_stays_on_its_device(name, groups, stride):
    x, _ = arrays((16, 8, 8, 16), (1, 1, 1, 1))
    layer = EVALUATION.conv(16, 3, groups=groups, stride=stride)
    variables = layer.init(jax.random.key(0), x[:1])
    one, eight = (on_mesh(layer, variables, x, name, meshes.make_mesh(n)) for n in (1, 8))
    assert not re.search("all-gather|all-to-all|collective-permute", eight.as_text())
    # The gradient of the kernel is summed as it is, without the zeros between groups.
    sums = by_kind(read_collectives(eight.as_text()))["all-reduce"][1]
    assert sums == 4 * (1 + sum(leaf.size for leaf in jax.tree.leaves(variables)))
    # Only the work on the kernel itself does not shrink.
    assert eight.cost_analysis()["flops"] < one.cost_analysis()["flops"] / 4
    (loss, gradients), (loss8, gradients8) = one(variables, x), eight(variables, x)
    np.testing.assert_allclose(loss8, loss, rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (gradients8, gradients)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_kernels_of_bfloat16_are_summed_on_a_mesh_of_cpus():
    layer = EVALUATION.within(jnp.bfloat16).conv(8, 3, groups=2)
    x, _ = arrays((8, 4, 4, 8), (1, 1, 1, 1))
    variables = layer.init(jax.random.key(0), x)
    one, eight = (on_mesh(layer, variables, x, "native", meshes.make_mesh(n)) for n in (1, 8))
    gradients, gradients8 = (compiled(variables, x)[1] for compiled in (one, eight))
    for a, b in zip(*map(jax.tree.leaves, (gradients8, gradients)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=0.02 * np.abs(b).max())


def test_a_batch_that_the_mesh_cannot_divide_is_computed_whole():
    layer, mesh = EVALUATION.conv(8, 3, groups=2), meshes.make_mesh(8)
    x, _ = arrays((3, 4, 4, 8), (1, 1, 1, 1))
    variables = layer.init(jax.random.key(0), x)
    with jax.set_mesh(mesh), lowering("native"):
        y = jax.jit(layer.apply)(variables, x)
    np.testing.assert_allclose(y, layer.apply(variables, x), rtol=1e-5, atol=1e-5)
