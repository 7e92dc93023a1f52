import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from senet_jax import SqueezeExciteConfig, UsageError, create_model
from senet_jax.models.cost import cost
from senet_jax.models.resnet import CIFAR_RESNETS, ResNet
from senet_jax.models.stem import Stem
from senet_jax.models.zoo import find
from senet_jax.ops.compute import EVALUATION

PLACEMENTS = ("standard", "pre", "post", "identity", "conv3x3")
SE = SqueezeExciteConfig(reduction=4)
NO_BIAS = SqueezeExciteConfig(bias=False)


@functools.cache
def cost_of(name, **fields):
    return cost(create_model(name, **fields), find(name).input_size)


def giga(macs):
    return f"{macs / 1e9:.2f}"


def tiny(**fields):
    """Two stages, every kind of block: with and without stride, with and without projection."""
    fields = {"bottleneck": False, "stem": "cifar", "stem_width": 8, "num_classes": 5} | fields
    return ResNet(blocks=(1, 2), widths=(8, 16), **fields)


def images(size=8, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(1), (3, size, size, 3), dtype)


def init(model):
    return jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images())


def init_shapes(model, size=8):
    x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    arguments = {} if isinstance(model, Stem) else {"train": False}
    variables = jax.eval_shape(functools.partial(model.init, **arguments), jax.random.key(0), x)
    return {path: leaf.shape for path, leaf in flatten_dict(variables, sep="/").items()}


def random_variables(model, size=8):
    """Variables as training leaves them: nothing is zero or one, the variances are positive."""
    rng = np.random.default_rng(0)
    flat = {}
    for path, shape in init_shapes(model, size).items():
        if path.endswith(("var", "scale")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
        flat[path] = jnp.float32(value)
    return unflatten_dict(flat, sep="/")


def without_se(tree):
    return unflatten_dict(
        {path: leaf for path, leaf in flatten_dict(tree).items() if "se" not in path}
    )


RESNET50 = 25_557_032
"""Parameters of the plain network."""


@pytest.mark.parametrize("name", [name for name in CIFAR_RESNETS if "resnext" not in name])
def test_cifar_parameters_are_the_hand_formula(name):
    blocks = (int(name.split("net")[1]) - 2) // 6
    expected = 27 * 16 + 2 * 16 + 64 * 10 + 10
    before = 16
    for width in (16, 32, 64):
        expected += 9 * before * width + (2 * blocks - 1) * 9 * width**2 + 2 * blocks * 2 * width
        if "seresnet" in name:
            hidden = width // 16
            expected += blocks * (2 * width * hidden + hidden + width)
        before = width
    assert cost_of(name).params == expected


@pytest.mark.parametrize("cardinality", [8, 16])
def test_cifar_resnext_parameters_are_the_hand_formula(cardinality):
    """ResNeXt, section 5.2: the stages end in 256, 512 and 1024 channels, of 3 blocks each."""
    expected = 27 * 64 + 2 * 64 + 1024 * 10 + 10
    before = 64
    for scale in (1, 2, 4):
        inner, outer = 64 * scale * cardinality, 256 * scale
        expected += before * outer + 2 * outer
        for entering in (before, outer, outer):
            expected += entering * inner + 9 * inner**2 // cardinality + inner * outer
            expected += 4 * inner + 2 * outer
        before = outer
    assert cost_of(f"cifar_resnext29_{cardinality}x64d").params == expected


@pytest.mark.parametrize(
    ("name", "fields", "params"),
    [
        ("cifar_resnet20", {}, 269_722),
        ("cifar_resnet20", {"shortcut": "B"}, 272_474),
        # C projects in the seven blocks that change no shape, too: w^2 weights, scale and bias.
        (
            "cifar_resnet20",
            {"shortcut": "C"},
            272_474 + 3 * (16**2 + 32) + 2 * (32**2 + 64) + 2 * (64**2 + 128),
        ),
        ("cifar_seresnet20", {"shortcut": "B", "attention": NO_BIAS}, 274_490),
        ("cifar_resnet110", {}, 1_727_962),
        ("seresnet50", {"attention": NO_BIAS}, 28_071_976),
    ],
)
def test_variants_have_exactly_the_known_parameters(name, fields, params):
    assert cost_of(name, **fields).params == params


@pytest.mark.parametrize(
    ("name", "fields", "published"),
    [
        ("resnet50", {"stride_on": "conv1"}, "3.86"),
        ("resnet50", {"stride_on": "conv1", "attention": NO_BIAS, "placement": "conv3x3"}, "3.86"),
        (
            "resnet50",
            {"stride_on": "conv1", "attention": SqueezeExciteConfig("none", bias=False)},
            "4.27",
        ),
    ],
)
def test_macs_have_the_published_digits(name, fields, published):
    assert giga(cost_of(name, **fields).macs) == published


# Table 2 counts element-wise work too: at most 0.3 % of the whole. The other stride makes 6 %.
@pytest.mark.parametrize(
    ("name", "fields", "published"),
    [
        ("resnet101", {"stride_on": "conv1"}, 7.58),
        pytest.param(*("resnet152", {"stride_on": "conv1"}, 11.30), marks=pytest.mark.slow),
        ("legacy_seresnet50", {}, 3.87),
        pytest.param(*("legacy_seresnet101", {}, 7.60), marks=pytest.mark.slow),
        pytest.param(*("legacy_seresnet152", {}, 11.32), marks=pytest.mark.slow),
    ],
)
def test_macs_are_those_of_table_2(name, fields, published):
    macs = cost_of(name, **fields).macs / 1e9
    assert 0.996 * published < macs < published


@pytest.mark.parametrize(
    ("reduction", "millions"), [(2, 45.7), (4, 35.7), (8, 30.7), (16, 28.1), (32, 26.9)]
)
def test_parameters_are_those_of_table_10(reduction, millions):
    se = SqueezeExciteConfig(reduction=reduction, bias=False)
    statistics = 53_120
    params = cost_of("resnet50", attention=se).params + statistics
    assert params / 1e6 == pytest.approx(millions, abs=0.1)
    extra = 2 * sum(n * c**2 for n, c in zip((3, 4, 6, 3), (256, 512, 1024, 2048), strict=True))
    assert cost_of("resnet50", attention=se).params - RESNET50 == extra // reduction


def test_se_adds_what_the_paper_says():
    assert cost_of("resnet50", attention=NO_BIAS).params - RESNET50 == 2_514_944


@pytest.mark.parametrize("stages", [(2,), (3,), (5,), (2, 4), (3, 4, 5), ()])
def test_se_stands_in_the_chosen_stages_alone(stages):
    blocks, widths = (1, 2, 1, 1), (4, 8, 12, 16)
    model = ResNet(blocks=blocks, widths=widths, stem_width=4, attention=SE, stages=stages)
    expected = {
        f"params/stage{stage}/block{block}/se/{layer}/kernel": shape
        for stage in stages
        for block in range(1, blocks[stage - 2] + 1)
        for layer, shape in {
            "reduce": (4 * widths[stage - 2], widths[stage - 2]),
            "expand": (widths[stage - 2], 4 * widths[stage - 2]),
        }.items()
    }
    found = {
        path: shape
        for path, shape in init_shapes(model, 32).items()
        if "/se/" in path and path.endswith("kernel")
    }
    assert found == expected


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_plain_and_se_differ_in_se_alone(bottleneck, placement):
    se = init_shapes(tiny(bottleneck=bottleneck, attention=SE, placement=placement))
    plain = init_shapes(tiny(bottleneck=bottleneck))
    assert {path: shape for path, shape in se.items() if "/se/" not in path} == plain
    assert len(se) == len(plain) + 4 * 3


def test_the_same_key_gives_plain_and_se_the_same_weights():
    one = {"blocks": (1,), "widths": (4,), "bottleneck": False, "stem": "cifar", "stem_width": 4}
    block = functools.partial(ResNet, **one)
    plain, se = init(block(num_classes=2)), init(block(num_classes=2, attention=SE))
    jax.tree.map(np.testing.assert_array_equal, plain, without_se(se))


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize(
    ("bottleneck", "gate", "one"), [(True, "hard_sigmoid", 3.0), (False, "relu", 1.0)]
)
def test_a_gate_of_ones_is_the_plain_network(placement, bottleneck, gate, one):
    attention = SqueezeExciteConfig(gate=gate, reduction=4)
    model = tiny(attention=attention, placement=placement, bottleneck=bottleneck)
    variables = flatten_dict(random_variables(model))
    gates = [path for path in variables if "expand" in path]
    assert len(gates) == 2 * 3
    for path in gates:
        value = one if path[-1] == "bias" else 0.0
        variables[path] = jnp.full_like(variables[path], value)
    variables = unflatten_dict(variables)
    plain = tiny(bottleneck=bottleneck).apply(without_se(variables), images(), train=False)
    # Eagerly, so that no compiler fuses the two in different ways.
    np.testing.assert_array_equal(model.apply(variables, images(), train=False), plain)


def test_stride_on_changes_the_network_and_not_its_parameters():
    first, second = (tiny(bottleneck=True, stride_on=where) for where in ("conv1", "conv2"))
    assert init_shapes(first) == init_shapes(second)
    assert cost(first, 8).macs < cost(second, 8).macs
    variables = random_variables(first)
    logits = [model.apply(variables, images(), train=False) for model in (first, second)]
    assert np.abs(logits[0] - logits[1]).max() > 1e-4


@pytest.mark.parametrize(
    ("kind", "size", "stride", "pool"),
    [
        ("imagenet", 13, 2, (1, 1)),
        ("imagenet", 16, 2, (1, 1)),
        ("caffe", 13, 2, (0, 1)),
        ("caffe", 16, 2, (0, 1)),
        ("cifar", 8, 1, None),
    ],
)
def test_stem_is_convolution_norm_relu_and_pool(kind, size, stride, pool):
    stem, x = Stem(kind, 4, EVALUATION), images(size)
    variables = random_variables(stem, size)
    kernel, norm = variables["params"]["conv"]["kernel"], variables["params"]["bn"]
    stats = variables["batch_stats"]["bn"]
    side = kernel.shape[0]
    assert side == (3 if kind == "cifar" else 7)
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(side // 2,) * 2] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = (y - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * norm["scale"] + norm["bias"]
    y = np.maximum(y, 0)
    if pool is not None:
        # The convolution leaves 7 or 8 pixels; of 8 an unpadded window hangs over the edge.
        y = np.pad(y, ((0, 0), pool, pool, (0, 0)))
        for axis in (1, 2):
            windows = np.lib.stride_tricks.sliding_window_view(y, 3, axis)
            y = windows.max(-1).take(range(0, windows.shape[axis], 2), axis)
    np.testing.assert_allclose(stem.apply(variables, x)[1], y, rtol=1e-4, atol=1e-5)


def test_head_is_the_mean_and_one_matrix():
    model, x = tiny(attention=SE), images()
    variables = random_variables(model)
    logits, state = model.apply(
        variables, x, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    named = state["intermediates"]
    last = np.asarray(named["stage3"]["block2"]["__call__"][0])
    assert last.shape == (3, 4, 4, 16)
    np.testing.assert_array_equal(last, named["stage3"]["__call__"][0])
    before, after = named["stem"]["__call__"][0]
    assert before.shape == after.shape == (3, 8, 8, 8)
    assert named["stage2"]["block1"]["se"]["gate"][0].shape == (3, 1, 1, 8)
    np.testing.assert_allclose(named["features"][0], last.mean((1, 2)), rtol=1e-5)
    head = variables["params"]["head"]
    expected = last.mean((1, 2)) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)


def test_an_image_is_classified_alone_in_evaluation():
    model, x = tiny(attention=SE), images()
    variables = random_variables(model)
    batch = model.apply(variables, x, train=False)
    alone = np.concatenate([model.apply(variables, image[None], train=False) for image in x])
    np.testing.assert_allclose(batch, alone, rtol=1e-4, atol=1e-6)


def test_training_gives_logits_and_new_statistics():
    model, x = tiny(), images()
    variables = random_variables(model)
    logits, new = model.apply(
        variables,
        x,
        train=True,
        capture_intermediates=True,
        mutable=["batch_stats", "intermediates"],
    )
    assert logits.shape == (3, 5)
    assert np.abs(logits - model.apply(variables, x, train=False)).max() > 1e-4
    before, after = (flatten_dict(tree["batch_stats"]) for tree in (variables, new))
    assert before.keys() == after.keys()
    assert not any(np.array_equal(before[path], after[path]) for path in before)
    activations = np.asarray(new["intermediates"]["stem"]["conv"]["__call__"][0])
    old, stem = (tree["batch_stats"]["stem"]["bn"] for tree in (variables, new))
    for name, batch in (("mean", activations.mean((0, 1, 2))), ("var", activations.var((0, 1, 2)))):
        np.testing.assert_allclose(stem[name], 0.9 * old[name] + 0.1 * batch, atol=1e-5)


def test_bfloat16_keeps_variables_and_logits_float32():
    model, x = tiny(attention=SE, dtype=jnp.bfloat16), images()
    variables = random_variables(model)
    logits, new = model.apply(
        variables,
        x,
        train=True,
        capture_intermediates=True,
        mutable=["batch_stats", "intermediates"],
    )
    assert logits.dtype == jnp.float32
    kept = jax.tree.leaves([variables, new["batch_stats"]])
    assert {leaf.dtype for leaf in kept} == {jnp.dtype("float32")}
    for path, (value,) in flatten_dict(new["intermediates"]).items():
        high = path[-1] in ("gate", "features") or path[0] in ("head", "__call__", "Dropout_0")
        high = high or {"reduce", "expand"} & set(path)
        for leaf in jax.tree.leaves(value):
            assert leaf.dtype == (jnp.float32 if high else jnp.bfloat16), path
    full, _ = tiny(attention=SE).apply(variables, x, train=True, mutable=["batch_stats"])
    assert 0 < np.abs(logits - full).max() < 0.03 * np.abs(full).max()


def test_without_dtype_low_images_are_computed_in_float32():
    low = images(dtype=jnp.bfloat16)
    variables = random_variables(tiny())
    logits = tiny().apply(variables, low, train=False)
    same = tiny().apply(variables, low.astype(jnp.float32), train=False)
    np.testing.assert_array_equal(logits, same)


def test_initialisation_is_he_s():
    model = create_model("cifar_seresnet8", zero_init_last=True)
    params = flatten_dict(init(model)["params"])
    convolutions = [path for path in params if path[-2].startswith("conv")]
    assert len(convolutions) == 7
    for path in convolutions:
        kernel = np.asarray(params[path])
        variance = kernel.var() * math.prod(kernel.shape[:2]) * kernel.shape[3] / 2
        assert abs(variance - 1) < 5 * np.sqrt(2 / kernel.size), path
    for path, leaf in params.items():
        if path[-1] == "scale":
            np.testing.assert_array_equal(leaf, float(path[-2] != "bn2"))
        if path[-1] == "bias":
            np.testing.assert_array_equal(leaf, 0)
    assert params["head", "kernel"].std() == pytest.approx(0.01, rel=0.15)


@pytest.mark.parametrize("stem", ["imagenet", "caffe", "cifar"])
@pytest.mark.parametrize("shortcut", ["A", "D"])
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_small_images_work_or_are_refused(stem, shortcut, size):
    model = tiny(stem=stem, shortcut=shortcut)
    run = functools.partial(model.init_with_output, train=False)
    x = jax.ShapeDtypeStruct((1, size, size + 1, 3), jnp.float32)
    # The convolution leaves half, rounded up; the unpadded pool needs two pixels of that.
    if stem == "caffe" and size < 3:
        with pytest.raises(UsageError, match=f"images of {size}x.* pixels are too small"):
            jax.eval_shape(run, jax.random.key(0), x)
    else:
        assert jax.eval_shape(run, jax.random.key(0), x)[0].shape == (1, 5)


def test_one_pixel_gives_finite_logits_and_gradients():
    model, x = tiny(stem="imagenet", attention=SqueezeExciteConfig("std", reduction=4)), images(1)
    variables = random_variables(model)

    def loss(params):
        return model.apply(variables | {"params": params}, x, train=False).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(variables["params"])
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": (4,)}, "stage 4 does not exist: the stages are 2 to 3"),
        ({"stages": (1, 2)}, "stage 1 does not exist"),
        ({"placement": "standrad"}, "unknown placement 'standrad': did you mean standard"),
        ({"placement": "conv"}, "unknown placement 'conv': did you mean conv3x3"),
        ({"shortcut": "E"}, "unknown shortcut 'E': choose from A, B, C, D"),
        ({"stem": "imagnet"}, "unknown stem 'imagnet': did you mean imagenet"),
        ({"stride_on": "conv3"}, "unknown stride_on 'conv3': did you mean"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, not 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0 and below 1, not -0.1"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
    ],
)
def test_fields_that_make_no_sense_are_refused_before_any_array(fields, message):
    with pytest.raises(UsageError, match=message):
        tiny(**fields)


def test_blocks_and_widths_go_together():
    with pytest.raises(UsageError, match=r"\(1, 1, 1\) and widths .* differ in length"):
        ResNet(blocks=(1, 1, 1))


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 8, 8, 3), jnp.uint8, "images must be float, not uint8: normalize"),
        ((8, 8, 3), jnp.float32, r"images must be \(n, h, w, c\), not \(8, 8, 3\)"),
        ((1, 2, 8, 8, 3), jnp.float32, r"images must be \(n, h, w, c\), not \(1, 2, 8"),
        ((2, 0, 8, 3), jnp.float32, r"of at least 1 each, not \(2, 0, 8, 3\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_not_a_batch_of_float_images_is_refused(shape, dtype, message):
    with pytest.raises(UsageError, match=message):
        tiny().init(jax.random.key(0), jnp.zeros(shape, dtype), train=False)


def test_a_reduction_larger_than_the_channels_is_refused():
    model = create_model("cifar_resnet20", attention=SqueezeExciteConfig(reduction=32))
    with pytest.raises(UsageError, match="reduction 32 leaves no hidden channel of 16"):
        init_shapes(model)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_a_dilated_network_has_a_map_for_every_stage(output_stride):
    model = create_model(
        "resnet50",
        blocks=(1, 1, 1, 1),
        widths=(4, 4, 4, 4),
        features_only=True,
        output_stride=output_stride,
    )
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)

    def sides(model):
        maps, _ = jax.eval_shape(
            lambda x: model.init_with_output(jax.random.key(0), x, train=False), x
        )
        return {key: y.shape[1] for key, y in maps.items()}

    strides = [min(stride, output_stride) for stride in (4, 8, 16, 32)]
    # The stem, number 1, has the stride 2.
    assert sides(model.clone(features_by="stage")) == {
        stage: 64 // stride for stage, stride in enumerate([2, *strides], 1)
    }
    assert sides(model) == {stride: 64 // stride for stride in [2, *strides]}
