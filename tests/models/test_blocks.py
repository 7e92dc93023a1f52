"""Residual blocks against Figure 5 of SENet and section 3 of ResNet, written out in NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from single_blocks import block, shortcut

from senet_jax import SqueezeExciteConfig, UsageError
from senet_jax.models.blocks import BasicBlock, Bottleneck, Sampling
from senet_jax.models.resnet import ResNet
from senet_jax.ops.compute import Compute

PLACEMENTS = ("standard", "pre", "post", "identity", "conv3x3")
SE = SqueezeExciteConfig(reduction=2)
WIDTH = 4


def relu(x):
    return np.maximum(x, 0)


def conv(x, kernel, stride=1):
    pad = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = sliding_window_view(padded, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
    groups = x.shape[-1] // kernel.shape[2]
    return np.concatenate(
        [
            np.einsum("nhwcij,ijco->nhwo", part, weights)
            for part, weights in zip(
                np.split(windows, groups, 3), np.split(kernel, groups, 3), strict=True
            )
        ],
        axis=-1,
    )


class Reference:
    """A block in evaluation, in NumPy, from the variables of the real one."""

    def __init__(self, variables, placement):
        self.params, self.stats = variables["params"], variables["batch_stats"]
        self.placement = placement

    def conv_bn(self, x, index, stride=1):
        return self._bn(conv(x, self.params[f"conv{index}"]["kernel"], stride), f"bn{index}")

    def _bn(self, x, *path):
        params, stats = (
            functools.reduce(dict.get, path, tree) for tree in (self.params, self.stats)
        )
        x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
        return x * params["scale"] + params["bias"]

    def shortcut(self, x, stride):
        if "shortcut" not in self.params:
            return x
        return self._bn(
            conv(x, self.params["shortcut"]["conv"]["kernel"], stride), "shortcut", "bn"
        )

    def se(self, placement, x):
        if placement != self.placement:
            return x
        reduce, expand = self.params["se"]["reduce"], self.params["se"]["expand"]
        hidden = relu(x.mean((1, 2)) @ reduce["kernel"] + reduce["bias"])
        gate = 1 / (1 + np.exp(-(hidden @ expand["kernel"] + expand["bias"])))
        return x * gate[:, None, None]

    def basic(self, x, stride):
        y = self.se("pre", x)
        y = relu(self.se("conv3x3", self.conv_bn(y, 1, stride)))
        y = self.se("standard", self.conv_bn(y, 2))
        return self.se("post", relu(y + self.se("identity", self.shortcut(x, stride))))

    def bottleneck(self, x, stride, stride_on="conv2"):
        stride1, stride2 = (stride, 1) if stride_on == "conv1" else (1, stride)
        y = self.se("pre", x)
        y = relu(self.conv_bn(y, 1, stride1))
        y = relu(self.se("conv3x3", self.conv_bn(y, 2, stride2)))
        y = self.se("standard", self.conv_bn(y, 3))
        return self.se("post", relu(y + self.se("identity", self.shortcut(x, stride))))


def noise(channels, size=(6, 5)):
    return np.random.default_rng(0).normal(size=(2, *size, channels))


def random_variables(block, channels):
    """Variables in which nothing is zero or one; the running variances are positive."""
    x = jax.ShapeDtypeStruct((1, 6, 5, channels), jnp.float32)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path[-1].key == "var":
            return rng.uniform(0.5, 1.5, leaf.shape)
        return rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))

    return {"batch_stats": {}} | jax.tree_util.tree_map_with_path(draw, shapes)


def apply(block, variables, x):
    return block.apply(jax.tree.map(jnp.float32, variables), jnp.float32(x))


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("placement", "channels", "stride"),
    [*itertools.product(PLACEMENTS, [WIDTH], [1, 2]), *[(place, 6, 1) for place in PLACEMENTS]],
)
def test_basic_block_is_the_figure(placement, channels, stride):
    module = block(BasicBlock, WIDTH, Sampling(stride), attention=SE, placement=placement)
    variables, x = random_variables(module, channels), noise(channels)
    assert_close(apply(module, variables, x), Reference(variables, placement).basic(x, stride))


@pytest.mark.parametrize(
    ("placement", "channels", "stride", "stride_on"),
    [
        *itertools.product(PLACEMENTS, [16, 6], [1], ["conv2"]),
        *itertools.product(PLACEMENTS, [6], [2], ["conv1", "conv2"]),
    ],
)
def test_bottleneck_is_the_figure(placement, channels, stride, stride_on):
    fields = {"placement": placement, "stride_on": stride_on}
    module = block(Bottleneck, WIDTH, Sampling(stride), attention=SE, **fields)
    variables, x = random_variables(module, channels), noise(channels)
    expected = Reference(variables, placement).bottleneck(x, stride, stride_on)
    assert_close(apply(module, variables, x), expected)


def mean_pool(x):
    """3x3, stride 2, of an image in zeros that count."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2].mean((-2, -1))


@pytest.mark.parametrize("stride_by", ["pool_before", "pool_after"])
def test_a_pool_that_strides_counts_its_padding(stride_by):
    module = block(BasicBlock, WIDTH, Sampling(2), stride_by=stride_by)
    variables, x = random_variables(module, 6), noise(6)
    reference = Reference(variables, None)
    y = mean_pool(x) if stride_by == "pool_before" else x
    y = relu(reference.conv_bn(y, 1))
    y = mean_pool(y) if stride_by == "pool_after" else y
    expected = relu(reference.conv_bn(y, 2) + reference.shortcut(x, 2))
    assert_close(apply(module, variables, x), expected)


def test_relu_before_attention():
    module = block(BasicBlock, WIDTH, attention=SE, relu_before_attention=True)
    variables, x = random_variables(module, WIDTH), noise(WIDTH)
    reference = Reference(variables, "standard")
    y = relu(reference.conv_bn(relu(reference.conv_bn(x, 1)), 2))
    assert_close(apply(module, variables, x), relu(reference.se("standard", y) + x))


@pytest.mark.parametrize(
    ("placement", "width"),
    [("standard", 16), ("pre", 6), ("post", 16), ("identity", 16), ("conv3x3", 4)],
)
def test_attention_has_the_width_of_its_place(placement, width):
    module = block(Bottleneck, WIDTH, Sampling(2), attention=SE, placement=placement)
    assert random_variables(module, 6)["params"]["se"]["expand"]["kernel"].shape[1] == width


# ResNeXt: 8 groups of width 8 // 16; SENet-154: a halved first 1x1 and a 3x3 projection.
@pytest.mark.parametrize(
    ("fields", "kernels"),
    [
        ({"cardinality": 4, "base_width": 32}, [(1, 1, 6, 8), (3, 3, 2, 8), (1, 1, 8, 16)]),
        ({"base_width": 128}, [(1, 1, 6, 8), (3, 3, 8, 8), (1, 1, 8, 16)]),
        (
            {"reduce_first": 2, "projection_kernel": 3},
            [(1, 1, 6, 2), (3, 3, 2, 4), (1, 1, 4, 16)],
        ),
    ],
)
def test_bottlenecks_of_other_families_are_the_figure(fields, kernels):
    module = block(Bottleneck, WIDTH, Sampling(2), **fields)
    variables, x = random_variables(module, 6), noise(6)
    params = variables["params"]
    assert [params[f"conv{index}"]["kernel"].shape for index in (1, 2, 3)] == kernels
    side = fields.get("projection_kernel", 1)
    assert params["shortcut"]["conv"]["kernel"].shape == (side, side, 6, 16)
    assert_close(apply(module, variables, x), Reference(variables, None).bottleneck(x, 2))


def test_a_projection_without_stride_is_1x1():
    module = block(Bottleneck, WIDTH, projection_kernel=3)
    kernel = random_variables(module, 6)["params"]["shortcut"]["conv"]["kernel"]
    assert kernel.shape == (1, 1, 6, 16)


@pytest.mark.parametrize(("channels", "before", "after"), [(3, 1, 2), (4, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_shortcut_a_subsamples_and_pads_with_zeros_on_both_sides(channels, before, after, stride):
    x = noise(channels)
    y = apply(shortcut("A", 6, Sampling(stride)), {}, x)
    pad = ((0, 0), (0, 0), (0, 0), (before, after))
    np.testing.assert_array_equal(y, np.float32(np.pad(x[:, ::stride, ::stride], pad)))


@pytest.mark.parametrize("option", ["A", "B", "D"])
def test_a_shortcut_that_changes_no_shape_is_the_identity(option):
    x = np.float32(noise(6))
    np.testing.assert_array_equal(apply(shortcut(option, 6), {}, x), x)


@pytest.mark.parametrize("stride", [1, 2])
def test_shortcut_c_projects_always(stride):
    module = shortcut("C", 6, Sampling(stride))
    variables, x = random_variables(module, 6), noise(6)
    wrapped = {name: {"shortcut": tree} for name, tree in variables.items()}
    assert variables["params"]["conv"]["kernel"].shape == (1, 1, 6, 6)
    assert_close(apply(module, variables, x), Reference(wrapped, None).shortcut(x, stride))


def test_shortcut_d_averages_before_a_projection_of_stride_1():
    module = shortcut("D", 8, Sampling(2))
    variables, x = random_variables(module, 6), noise(6)
    wrapped = {name: {"shortcut": tree} for name, tree in variables.items()}
    # The fifth column stands alone: what hangs over the edge is not counted.
    pairs = (x[:, :, :4:2] + x[:, :, 1:4:2]) / 2
    columns = np.concatenate([pairs, x[:, :, 4:]], 2)
    pooled = (columns[:, ::2] + columns[:, 1::2]) / 2
    assert_close(apply(module, variables, x), Reference(wrapped, None).shortcut(pooled, 1))


@pytest.mark.parametrize(("kind", "channels"), [(BasicBlock, WIDTH), (Bottleneck, 4 * WIDTH)])
def test_a_zero_last_scale_makes_a_fresh_block_the_identity(kind, channels):
    x = jnp.float32(relu(noise(channels)))
    module = block(kind, WIDTH, compute=Compute(train=True), attention=SE, zero_init_last=True)
    y, _ = jax.jit(module.init_with_output)(jax.random.key(0), x)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"placement": "standrad"}, "unknown placement 'standrad': did you mean standard"),
        ({"shortcut": "E"}, "unknown shortcut 'E': choose from A, B, C, D"),
        ({"stride_on": "conv3"}, "unknown stride_on 'conv3': did you mean conv"),
        ({"cardinality": 0}, "cardinality must be at least 1, not 0"),
        ({"base_width": -1}, "base_width must be at least 1, not -1"),
        ({"reduce_first": 0}, "reduce_first must be at least 1, not 0"),
        ({"projection_kernel": 0}, "projection_kernel must be odd, at least 1, not 0"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        ResNet(blocks=(1,), widths=(4,), **fields)


def test_shortcut_a_cannot_shrink():
    with pytest.raises(UsageError, match="cannot go from 6 to 4"):
        apply(shortcut("A", 4, Sampling(2)), {}, noise(6))
