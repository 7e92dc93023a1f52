import functools
import re

import jax
import numpy as np
import pytest
from goldens import FAST, draw, goldens

from senet_jax import (
    CBAMConfig,
    ECAConfig,
    GatherExciteConfig,
    SqueezeExciteConfig,
    UsageError,
    create_model,
)
from senet_jax.interchange import from_torch, to_torch

TINY = {"blocks": (1, 1, 1), "widths": (8, 16, 24), "num_classes": 5, "stem_width": 8}
"""Fields that make any network of the zoo small; one of three stages has all kinds of blocks."""
SE = SqueezeExciteConfig(reduction=4)
SENET = {"stem_width": (8, 8, 16), "attention": SE, "cardinality": 2, "base_width": 64}
SE_NO_BIAS = SqueezeExciteConfig(reduction=4, bias=False)
CADENE = (
    (r"^(conv|bn)1\.", r"layer0.\g<1>1."),
    (r"\.se\.", ".se_module."),
    (r"^fc\.", "last_linear."),
)
CIFAR = ((r"\.downsample\.", ".shortcut."), (r"^fc\.", "linear."))


def tiny(name, **fields):
    """A small relative of a network: its fields and its state dict, drawn by name and shape."""
    fields = TINY | fields
    entries = shapes_in_torch(name, tuple(fields.items()))
    return fields, {key: draw(key, shape) for key, shape in entries.items()}


@functools.cache
def shapes_in_torch(name, fields):
    model = create_model(name, **dict(fields))
    shapes = jax.eval_shape(
        lambda key: model.init(key, np.zeros((1, 32, 32, 3)), train=False), jax.random.key(0)
    )
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), dict(shapes))
    return {key: array.shape for key, array in to_torch(name, zeros, **dict(fields)).items()}


def renamed(state_dict, rules):
    out = {}
    for key, array in state_dict.items():
        for pattern, new in rules:
            key = re.sub(pattern, new, key)
        out[key] = array
    return out


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# Large, or with the names and the shapes of the others of their family.
LARGE = (
    *("legacy_senet154", "inception_resnet_v2", "vgg11", "vgg16", "vgg16_bn", "vgg19"),
    *("wide_resnet50_2", "resnest50d_4s2x40d"),
)


# test_goldens.py covers the fast ones.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else [])
        for name in sorted(goldens().keys() - FAST)
    ],
)
def test_names_and_shapes_are_those_of_timm(name):
    entries = goldens()[name].entries
    weights = {key: np.zeros(shape, np.float32) for key, shape in entries.items()}
    back = to_torch(name, from_torch(name, weights))
    kept = {key: shape for key, shape in entries.items() if not key.endswith("num_batches_tracked")}
    assert {key: array.shape for key, array in back.items()} == kept


@pytest.mark.parametrize("name", ["resnet50", "skresnet50", "resnest50d", "seresnet50"])
def test_round_trip_is_exact(name):
    fields, state_dict = tiny(name)
    back = to_torch(name, from_torch(name, state_dict, **fields), **fields)
    assert_same(back, state_dict)
    for array in back.values():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "fields", "names"),
    [
        ("resnet50", {"attention": ECAConfig()}, ["layer1.0.se.conv.weight"]),
        ("resnet18", {"attention": SE_NO_BIAS}, ["layer2.0.se.fc1.weight"]),
        (
            "resnet18",
            {"attention": CBAMConfig(reduction=2)},
            [
                "layer1.0.se.channel.fc1.weight",
                "layer1.0.se.channel.fc2.bias",
                "layer1.0.se.spatial.conv.conv.weight",
                "layer1.0.se.spatial.conv.bn.running_var",
            ],
        ),
        (
            "resnet18",
            {"attention": GatherExciteConfig(4, "conv", mlp=True, reduction=2)},
            [
                "layer1.0.se.gather.conv1.weight",
                "layer1.0.se.gather.norm2.running_mean",
                "layer1.0.se.mlp.fc1.weight",
                "layer1.0.se.mlp.fc2.bias",
            ],
        ),
        (
            "legacy_senet154",
            SENET,
            ["layer0.conv3.weight", "layer0.bn3.bias"],
        ),
        ("resnetrs50", {"stem_width": (8, 8, 16)}, ["maxpool.0.weight", "maxpool.1.running_var"]),
        ("skresnet50d", {"stem_width": (8, 8, 16)}, ["layer1.0.conv3.bn.weight", "conv1.6.weight"]),
        (
            "cifar_seresnet20",
            {"shortcut": "B", "attention": SE},
            ["layer2.0.shortcut.1.bias", "linear.weight"],
        ),
    ],
)
def test_names_of_the_rarer_parts(name, fields, names):
    fields, state_dict = tiny(name, **fields)
    assert set(names) <= state_dict.keys()
    back = to_torch(name, from_torch(name, state_dict, **fields), **fields)
    assert_same(back, state_dict)


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        pytest.param("seresnet50", CADENE, id="Cadene"),
        pytest.param("resnet18", CIFAR, id="CIFAR"),
        pytest.param("seresnet18", ((r"\.fc1\.", ".fc.0."), (r"\.fc2\.", ".fc.2.")), id="authors"),
        pytest.param("resnet50", ((r"^", "module."),), id="DataParallel"),
        pytest.param("seresnet50", (*CADENE, (r"^", "module.")), id="Cadene in DataParallel"),
    ],
)
def test_other_namings_give_the_same_variables(name, rules):
    fields, state_dict = tiny(name)
    other = renamed(state_dict, rules)
    assert other.keys() != state_dict.keys()
    assert_same(from_torch(name, other, **fields), from_torch(name, state_dict, **fields))


def test_the_legacy_networks_take_timms_names_too():
    fields, state_dict = tiny("legacy_seresnet50")
    timm = renamed(
        state_dict, ((r"^layer0\.", ""), (r"\.se_module\.", ".se."), (r"^last_linear", "fc"))
    )
    expected = from_torch("legacy_seresnet50", state_dict, **fields)
    assert_same(from_torch("legacy_seresnet50", timm, **fields), expected)


def test_official_resnest_naming():
    """Names and shapes of ResNeSt-50-fast-2s2x40d as ``resnest/torch`` of the authors has them."""
    block = {
        "layer2.0.conv1.weight": (80 * 2, 256, 1, 1),
        "layer2.0.conv2.conv.weight": (320, 40, 3, 3),
        "layer2.0.conv2.bn0.running_var": (320,),
        "layer2.0.conv2.fc1.weight": (80, 80, 1, 1),
        "layer2.0.conv2.fc1.bias": (80,),
        "layer2.0.conv2.bn1.weight": (80,),
        "layer2.0.conv2.fc2.weight": (320, 40, 1, 1),
        "layer2.0.downsample.1.weight": (512, 256, 1, 1),
        "layer2.0.downsample.2.running_mean": (512,),
        "layer1.0.downsample.1.weight": (256, 64, 1, 1),
        "conv1.6.weight": (64, 32, 3, 3),
        "fc.bias": (1000,),
    }
    name = "resnest50_fast_2s2x40d"
    blocks = (1, 1, 1, 1)
    model = create_model(name, blocks=blocks)
    shapes = jax.eval_shape(
        lambda key: model.init(key, np.zeros((1, 64, 64, 3)), train=False), jax.random.key(0)
    )
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), dict(shapes))
    state_dict = to_torch(name, variables, blocks=blocks)
    assert {key: state_dict[key].shape for key in block} == block


def test_squeeze_and_excitation_as_linear_layers():
    fields, state_dict = tiny("seresnet18")
    linear = {
        key: a[:, :, 0, 0] if ".se." in key and a.ndim == 4 else a for key, a in state_dict.items()
    }
    assert_same(
        from_torch("seresnet18", linear, **fields), from_torch("seresnet18", state_dict, **fields)
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_any_floating_precision_becomes_float32(dtype):
    fields, state_dict = tiny("resnet18")
    variables = from_torch(
        "resnet18", {k: a.astype(dtype) for k, a in state_dict.items()}, **fields
    )
    for leaf in jax.tree.leaves(variables):
        assert leaf.dtype == np.float32
    kernel = state_dict["layer1.0.conv1.weight"].astype(dtype).astype(np.float32)
    found = variables["params"]["stage2"]["block1"]["conv1"]["kernel"]
    np.testing.assert_array_equal(found, kernel.transpose(2, 3, 1, 0))


def test_the_variables_share_no_memory_with_the_source():
    fields, state_dict = tiny("resnet18")
    variables = from_torch("resnet18", state_dict, **fields)
    for array in state_dict.values():
        assert not any(np.shares_memory(array, leaf) for leaf in jax.tree.leaves(variables))


def test_other_image_channels():
    fields, state_dict = tiny("resnet18")
    state_dict["conv1.weight"] = state_dict["conv1.weight"][:, :1]
    with pytest.raises(UsageError, match=r"conv1\.weight is \(8, 1, 7, 7\), not \(8, 3, 7, 7\)"):
        from_torch("resnet18", state_dict, **fields)
    variables = from_torch("resnet18", state_dict, channels=1, **fields)
    assert_same(to_torch("resnet18", variables, channels=1, **fields), state_dict)


def test_one_error_lists_all_that_does_not_fit():
    fields, state_dict = tiny("resnet18")
    del state_dict["bn1.running_var"]
    state_dict["layer1.0.conv3.weight"] = state_dict["layer1.0.conv2.weight"]
    state_dict["layer2.0.conv1.weight"] = state_dict["layer2.0.conv1.weight"].transpose(2, 3, 1, 0)
    state_dict["layer3.0.bn1.bias"] = state_dict["layer3.0.bn1.bias"].astype(np.int64)
    with pytest.raises(UsageError) as caught:
        from_torch("resnet18", state_dict, **fields)
    assert str(caught.value).splitlines() == [
        "the weights do not fit resnet18:",
        "  missing (1): bn1.running_var (8,)",
        "  left over (1): layer1.0.conv3.weight",
        "  wrong shape (1): layer2.0.conv1.weight is (3, 3, 8, 16), not (16, 8, 3, 3)",
        "  wrong dtype (1): layer3.0.bn1.bias is int64, not floating",
    ]


def test_the_same_array_under_two_names_is_left_over():
    fields, state_dict = tiny("resnet18")
    state_dict["linear.bias"] = state_dict["fc.bias"]
    with pytest.raises(UsageError, match=r"linear\.bias \(the same as fc\.bias\)"):
        from_torch("resnet18", state_dict, **fields)


@pytest.mark.parametrize("value", ["conv", 1 + 2j, True, None], ids=str)
def test_what_is_no_array_of_numbers_is_a_wrong_dtype(value):
    fields, state_dict = tiny("resnet18")
    state_dict["fc.bias"] = np.full(5, value)
    with pytest.raises(UsageError, match=r"wrong dtype \(1\): fc\.bias"):
        from_torch("resnet18", state_dict, **fields)


def test_a_wrong_model_is_told_which_it_is():
    with pytest.raises(UsageError) as caught:
        from_torch("resnet50", goldens()["resnest50d"].state_dict())
    message = str(caught.value)
    assert "About the model: the weights have the shapes of resnest50d" in message
    assert "drop_head" not in message
    assert len(message) < 3000


def test_a_head_of_another_size():
    fields, state_dict = tiny("resnet18")
    fields["num_classes"] = 7
    with pytest.raises(UsageError) as caught:
        from_torch("resnet18", state_dict, **fields)
    assert "About the head: drop_head=True starts a fresh one, num_classes=5 keeps" in str(
        caught.value
    )
    assert caught.value.advise("--drop-head", None).endswith(
        "head: --drop-head starts a fresh one."
    )
    assert "About the head" not in caught.value.advise(None, None)

    variables = from_torch("resnet18", state_dict, drop_head=True, **fields)
    model = create_model("resnet18", **fields)
    init = jax.jit(lambda key: model.init(key, np.zeros((1, 32, 32, 3)), train=False)["params"])
    fresh = jax.jit(lambda key: init(key)["head"])(jax.random.key(0))
    np.testing.assert_allclose(variables["params"]["head"]["kernel"], fresh["kernel"], rtol=1e-6)
    kept = to_torch("resnet18", variables, **fields)
    for key in state_dict.keys() - {"fc.weight", "fc.bias"}:
        np.testing.assert_array_equal(kept[key], state_dict[key])


def test_weights_without_a_head():
    fields, state_dict = tiny("resnet18")
    body = {key: array for key, array in state_dict.items() if not key.startswith("fc.")}
    with pytest.raises(UsageError, match=r"missing \(2\)[\s\S]*drop_head=True"):
        from_torch("resnet18", body, **fields)
    assert "head" in from_torch("resnet18", body, drop_head=True, **fields)["params"]
    features = from_torch("resnet18", state_dict, drop_head=True, features_only=True, **fields)
    assert "head" not in features["params"]


def test_variables_of_another_network_are_refused():
    fields, state_dict = tiny("resnet18")
    variables = from_torch("resnet18", state_dict, **fields)
    del variables["batch_stats"]["stem"]
    variables["params"]["head"]["bias"] = np.zeros(3, np.float32)
    with pytest.raises(UsageError) as caught:
        to_torch("resnet18", variables, **fields)
    assert str(caught.value).splitlines() == [
        "the variables are not those of resnet18:",
        "  missing (2): batch_stats/stem/bn/mean, batch_stats/stem/bn/var",
        "  wrong shape (1): params/head/bias is (3,), not (5,)",
    ]


def test_an_unknown_network_is_refused():
    with pytest.raises(UsageError, match="did you mean"):
        from_torch("seresnet5O", {})


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_weights_that_are_not_finite_are_refused(value):
    state_dict = goldens()["resnet18"].state_dict()
    damaged = state_dict["layer1.0.bn1.weight"].astype(np.float64)
    damaged[3] = value
    with pytest.raises(UsageError, match=r"not finite in float32 \(1\): layer1\.0\.bn1\.weight"):
        from_torch("resnet18", {**state_dict, "layer1.0.bn1.weight": damaged})
