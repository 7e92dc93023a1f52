import collections
import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from senet_jax import SqueezeExciteConfig, UsageError, create_model, list_models
from senet_jax.attention import gates
from senet_jax.models.cost import cost
from senet_jax.models.densenet import DenseNet
from senet_jax.models.inception import Inception
from senet_jax.models.mobilenet import MobileNetV1
from senet_jax.models.preact_resnet import PreactResNet
from senet_jax.models.resnet import ResNet
from senet_jax.models.shake_shake import ShakeShake
from senet_jax.models.shufflenet import ShuffleNetV1
from senet_jax.models.vgg import VGG
from senet_jax.models.zoo import find

PARAMS = {
    "resnet10t": 5_435_488,
    "resnet14t": 10_081_632,
    "resnet18": 11_689_512,
    "resnet18d": 11_708_744,
    "resnet26": 15_995_176,
    "resnet26d": 16_014_408,
    "resnet26t": 16_011_872,
    "resnet34": 21_797_672,
    "resnet34d": 21_816_904,
    "resnet50": 25_557_032,
    "resnet50c": 25_576_264,
    "resnet50d": 25_576_264,
    "resnet50s": 25_680_808,
    "resnet50t": 25_573_728,
    "resnet101": 44_549_160,
    "resnet101c": 44_568_392,
    "resnet101d": 44_568_392,
    "resnet101s": 44_672_936,
    "resnet152": 60_192_808,
    "resnet152c": 60_212_040,
    "resnet152d": 60_212_040,
    "resnet152s": 60_316_584,
    "resnet200": 64_673_832,
    "resnet200d": 64_693_064,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "resnext50_32x4d": 25_028_904,
    "resnext50d_32x4d": 25_048_136,
    "resnext101_32x4d": 44_177_704,
    "resnext101_32x8d": 88_791_336,
    "resnext101_32x16d": 194_026_792,
    "resnext101_32x32d": 468_530_472,
    "resnext101_64x4d": 83_455_272,
    "resnext152_64x4d": 114_971_944,
    "seresnet18": 11_779_624,
    "seresnet34": 21_960_416,
    "seresnet50": 28_088_024,
    "seresnet50t": 28_104_720,
    "seresnet101": 49_326_872,
    "seresnet152": 66_821_848,
    "seresnet152d": 66_841_080,
    "seresnet200d": 71_855_096,
    "seresnet269d": 113_672_760,
    "seresnext26d_32x4d": 16_809_512,
    "seresnext26t_32x4d": 16_806_976,
    "seresnext50_32x4d": 27_559_896,
    "seresnext101_32x4d": 48_955_416,
    "seresnext101_32x8d": 93_569_048,
    "seresnext101d_32x8d": 93_588_280,
    "seresnext101_64x4d": 88_232_984,
    "legacy_seresnet18": 11_778_592,
    "legacy_seresnet34": 21_958_868,
    "legacy_seresnet50": 28_088_024,
    "legacy_seresnet101": 49_326_872,
    "legacy_seresnet152": 66_821_848,
    "legacy_seresnext26_32x4d": 16_790_280,
    "legacy_seresnext50_32x4d": 27_559_896,
    "legacy_seresnext101_32x4d": 48_955_416,
    "ecaresnet26t": 16_011_916,
    "ecaresnet50d": 25_576_350,
    "ecaresnet50t": 25_573_814,
    "ecaresnet101d": 44_568_563,
    "ecaresnet200d": 64_693_400,
    "ecaresnet269d": 102_093_077,
    "ecaresnetlight": 30_162_046,
    "ecaresnext26t_32x4d": 15_406_220,
    "ecaresnext50t_32x4d": 25_045_686,
    "resnetrs50": 35_691_912,
    "resnetrs101": 63_618_696,
    "resnetrs152": 86_621_576,
    "resnetrs200": 93_209_992,
    "resnetrs270": 129_861_448,
    "resnetrs350": 163_956_168,
    "resnetrs420": 191_891_656,
    "senet154": 115_088_984,
    "legacy_senet154": 115_088_984,
    "resnest14d": 10_611_688,
    "resnest26d": 17_069_448,
    "resnest50d": 27_483_240,
    "resnest101e": 48_275_016,
    "resnest200e": 70_201_544,
    "resnest269e": 110_929_480,
    "resnest50d_1s4x24d": 25_677_000,
    "resnest50d_4s2x40d": 30_417_592,
    "resnest50_fast_1s1x64d": 26_217_896,
    "resnest50_fast_2s1x64d": 27_483_240,
    "resnest50_fast_4s1x64d": 31_912_712,
    "resnest50_fast_1s2x40d": 25_946_680,
    "resnest50_fast_2s2x40d": 26_943_792,
    "resnest50_fast_4s2x40d": 30_417_592,
    "resnest50_fast_1s4x24d": 25_677_000,
    "skresnet18": 11_958_056,
    "skresnet34": 22_282_376,
    "skresnet50": 25_803_160,
    "skresnet50d": 25_822_392,
    "skresnext50_32x4d": 27_479_784,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet264": 33_337_704,
    "se_densenet121": 7_988_252,
    "se_densenet161": 28_707_442,
    "se_densenet169": 14_162_764,
    "se_densenet201": 20_029_804,
    "se_densenet264": 33_358_764,
    "cifar_densenet_40_12": 1_019_722,
    "cifar_densenet_100_12": 6_979_642,
    "cifar_densenet_bc_100_12": 769_162,
    "cifar_densenet_bc_250_24": 15_324_406,
    "cifar_densenet_bc_190_40": 25_624_430,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "se_vgg11_bn": 133_021_780,
    "se_vgg13_bn": 133_209_440,
    "se_vgg16_bn": 138_596_784,
    "se_vgg19_bn": 143_984_128,
    "vgg16_c": 133_638_952,
    "se_vgg16": 138_588_336,
    "mobilenet_v1": 4_231_976,
    "mobilenet_v1_075": 2_585_560,
    "mobilenet_v1_050": 1_331_592,
    "mobilenet_v1_025": 470_072,
    "se_mobilenet_v1": 4_718_044,
    "shufflenet_v1": 1_865_728,
    "shufflenet_v1_g1": 1_531_936,
    "shufflenet_v1_g2": 1_733_848,
    "shufflenet_v1_g4": 1_968_344,
    "shufflenet_v1_g8": 2_434_768,
    "shufflenet_v1_x0_25": 306_124,
    "shufflenet_v1_x0_5": 718_324,
    "shufflenet_v1_x1_5": 3_442_168,
    "shufflenet_v1_x2": 5_450_776,
    "se_shufflenet_v1": 2_484_533,
    "bninception": 11_295_240,
    "se_bninception": 11_931_622,
    "inception_v3": 23_834_568,
    "se_inception_v3": 25_496_188,
    "inception_resnet_v2": 55_843_464,
    "se_inception_resnet_v2": 64_387_444,
    "cifar_preact_resnet110": 1_730_522,
    "cifar_preact_resnet164": 1_703_258,
    "cifar_preact_resnet1001": 10_327_706,
    "cifar_wrn16_8": 10_961_370,
    "cifar_wrn28_10": 36_479_194,
    "cifar_wrn40_4": 8_949_210,
    "cifar_se_preact_resnet110": 1_744_760,
    "cifar_se_preact_resnet164": 1_905_362,
    "cifar_se_wrn16_8": 11_049_290,
    "cifar_se_wrn28_10": 36_752_754,
    "cifar_shake_shake26_2x32d": 2_923_162,
    "cifar_shake_shake26_2x64d": 11_653_978,
    "cifar_shake_shake26_2x96d": 26_192_922,
    "cifar_shake_even29_2x4x64d": 34_529_700,
    "cifar_se_shake_shake26_2x96d": 26_292_546,
    "cifar_se_shake_even29_2x4x64d": 35_051_508,
    "cifar_resnext29_8x64d": 34_426_698,
    "cifar_resnext29_16x64d": 68_155_210,
    "cifar_inception": 1_651_114,
    "cifar_se_inception": 1_705_197,
    "cifar_resnet8": 75_290,
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet44": 658_586,
    "cifar_resnet56": 853_018,
    "cifar_resnet110": 1_727_962,
    "cifar_seresnet8": 76_081,
    "cifar_seresnet20": 272_095,
    "cifar_seresnet32": 468_109,
    "cifar_seresnet44": 664_123,
    "cifar_seresnet56": 860_137,
    "cifar_seresnet110": 1_742_200,
}
"""Trainable parameters: timm's, and of the ablation of ResNeSt those of the authors' code."""

# Table of `papers.md`.
GMACS = {
    "resnet18": 1.81,
    "resnet50": 4.09,
    "resnet101": 7.80,
    "resnet50d": 4.33,
    "resnext50_32x4d": 4.23,
    "resnext101_64x4d": 15.46,
    "wide_resnet50_2": 11.40,
    "seresnet50": 4.09,
    "seresnet101": 7.81,
    "seresnext50_32x4d": 4.23,
    "seresnext101_32x4d": 7.97,
    "senet154": 20.69,
    "legacy_senet154": 20.69,
    "resnest50d": 5.37,
    "resnest101e": 13.32,
    "resnest50_fast_1s1x64d": 4.33,
    "resnest50_fast_2s1x64d": 4.33,
    "resnest50_fast_4s1x64d": 4.34,
    "resnest50_fast_1s2x40d": 4.38,
    "resnest50_fast_2s2x40d": 4.38,
    "resnest50d_4s2x40d": 4.37,
    "resnest50d_1s4x24d": 4.40,
    "densenet121": 2.83,
    "densenet161": 7.73,
    "densenet169": 3.36,
    "densenet201": 4.29,
    "vgg11": 7.61,
    "vgg16": 15.47,
    "vgg16_bn": 15.47,
    "se_vgg16_bn": 15.48,
    "mobilenet_v1": 0.569,
    "shufflenet_v1": 0.137,
    "shufflenet_v1_x1_5": 0.292,
    "shufflenet_v1_x2": 0.524,
    "se_shufflenet_v1": 0.138,
    "bninception": 2.03,
    "se_bninception": 2.04,
    "inception_v3": 5.71,
    "inception_resnet_v2": 13.16,
}
"""Multiply-accumulates as published, at the size of the network."""


def size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def shapes(model, side):
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    init = functools.partial(model.init_with_output, train=False)
    return jax.eval_shape(init, jax.random.key(0), images)


def smallest(model):
    """A network of the same kind and options, of one block a stage and few channels, and a side."""
    match model:
        case ResNet():
            stem = (16, 16, 16) if isinstance(model.stem_width, tuple) else 16
            small = {"blocks": (1,) * len(model.blocks), "stem_width": stem}
            small["widths"] = (32, 32, 64, 64)[: len(model.blocks)]
            if model.cardinality > 1:
                small["base_width"] = 8
        case PreactResNet() | ShakeShake():
            small = {"blocks": (1, 1, 1), "widths": (16, 32, 48)}
        case DenseNet():
            small = {"blocks": (1,) * len(model.blocks), "growth_rate": 8, "stem_width": 16}
        case VGG():
            small = {"widths": (16, 16, 16, 32, 32), "fc_width": 16}
        case MobileNetV1():
            small = {"width": 0.5, "blocks": (1,) * len(model.blocks)}
        case ShuffleNetV1():
            small = {"blocks": (1, 1), "width": 1.0}
        case Inception():
            repeated = re.compile(r"block\d+_(?!1$)\d+|mixed_\d[cde]|inception_(3b|4[abcd]|5a)")
            kept = [x for x in model.layers if not repeated.fullmatch(getattr(x, "name", ""))]
            small = {"layers": tuple(kept)}
    side = 96 if isinstance(model, Inception) else 32
    return dataclasses.replace(model, num_classes=5, **small), side


def draw(model, side):
    """Variables such that nothing is zero or one."""
    rng = np.random.default_rng(0)

    def leaf(path, like):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.6, 1.4, like.shape).astype(np.float32)
        fan_in = max(1, math.prod(like.shape[:-1]))
        return (rng.standard_normal(like.shape) / np.sqrt(fan_in)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes(model, side)[1])


def test_the_table_is_complete():
    assert PARAMS.keys() == set(list_models())
    assert GMACS.keys() <= PARAMS.keys()


def shortened(name):
    """A network with no more than two blocks a stage, which those left out are like."""
    model = create_model(name)
    if not isinstance(model, ResNet | PreactResNet | ShakeShake):
        return model
    return dataclasses.replace(model, blocks=tuple(min(count, 2) for count in model.blocks))


def alike(make, names, kind=None):
    """Names of the networks of which ``make`` makes the same, in lists.

    With ``kind``, all but the first of a kind are slow.
    """
    groups = collections.defaultdict(list)
    for name in names:
        groups[make(name)].append(name)
    kinds = collections.Counter()
    cases = []
    for key, group in groups.items():
        kinds[kind and kind(key)] += 1
        again = kind is not None and kinds[kind(key)] > 1
        cases.append(pytest.param(group, id=group[0], marks=[pytest.mark.slow] if again else []))
    return pytest.mark.parametrize("names", cases)


@alike(shortened, sorted(PARAMS.keys() - GMACS.keys()))
def test_networks_have_the_published_parameters_and_give_logits(names):
    short = shortened(names[0])
    logits, variables = shapes(short, 96 if isinstance(short, Inception) else 64)
    assert (logits.shape, logits.dtype) == ((2, short.num_classes), jnp.float32)
    assert variables.keys() <= {"params", "batch_stats"}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    params = variables["params"]
    for name in names:
        total = size(params)
        if short != create_model(name):
            for stage, count in enumerate(create_model(name).blocks, 2):
                total += max(count - 2, 0) * size(params[f"stage{stage}"].get("block2", {}))
        assert total == PARAMS[name], name


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PARAMS.keys() - GMACS.keys()))
def test_a_whole_network_has_the_published_parameters(name):
    model = create_model(name)
    logits, variables = shapes(model, find(name).input_size)
    assert logits.shape == (2, model.num_classes)
    assert size(variables["params"]) == PARAMS[name]


@pytest.mark.parametrize(("name", "gmacs"), GMACS.items())
def test_a_network_costs_what_is_published(name, gmacs):
    found = cost(create_model(name), find(name).input_size)
    assert found.params == PARAMS[name]
    assert found.macs / 1e9 == pytest.approx(gmacs, rel=0.005)


def plain(name):
    """The smallest of its kind, without attention, and the side of its images."""
    return smallest(dataclasses.replace(create_model(name), attention=None))


def kind(case):
    """The module and, of ResNets, the block."""
    model, _ = case
    return type(model), getattr(model, "bottleneck", None), getattr(model, "stem", None)


@alike(plain, sorted(PARAMS), kind)
def test_a_gate_of_one_changes_nothing_and_networks_are_deterministic(names, monkeypatch):
    monkeypatch.setitem(gates.GATES, "one", jnp.ones_like)
    model, side = plain(names[0])
    attended = dataclasses.replace(model, attention=SqueezeExciteConfig(gate="one", width=2))
    variables, more = draw(model, side), flatten_dict(draw(attended, side))
    assert len(more) > len(flatten_dict(variables))
    x = np.random.default_rng(1).standard_normal((2, side, side, 3)).astype(np.float32)
    logits = model.apply(variables, x, train=False)
    assert logits.shape == (2, 5)
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(model.apply(variables, x, train=False), logits)
    same = unflatten_dict(more | flatten_dict(variables))
    np.testing.assert_array_equal(attended.apply(same, x, train=False), logits)


def test_list_models_takes_a_shell_pattern():
    assert list_models("cifar_resnet*") == [
        f"cifar_resnet{depth}" for depth in (8, 20, 32, 44, 56, 110)
    ]
    assert list_models("seresnet?01") == ["seresnet101"]
    assert list_models("resnet50") == ["resnet50"]
    assert list_models("vit*") == []
    assert list_models("*se*") == [name for name in list_models() if "se" in name]
    assert len(set(list_models())) == len(list_models())


def test_fields_override_those_of_the_name():
    se = SqueezeExciteConfig(gate="tanh")
    model = create_model("resnet50", num_classes=10, attention=se, placement="pre", stages=(3, 4))
    assert (model.num_classes, model.attention, model.placement) == (10, se, "pre")
    assert (model.stages, model.blocks) == ((3, 4), (3, 4, 6, 3))
    assert create_model("seresnet50", attention=None) == create_model("resnet50")


def test_models_are_values():
    assert create_model("seresnet18") == create_model("seresnet18")
    assert hash(create_model("seresnet18")) == hash(create_model("seresnet18"))
    assert create_model("seresnet18") != create_model("legacy_seresnet18")


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("serenset50", {}, "unknown model 'serenset50': did you mean seresnet50"),
        ("cifar_resnet2", {}, "unknown model 'cifar_resnet2': did you mean cifar_resnet"),
        ("resnet50", {"num_class": 10}, "field of resnet50 'num_class': did you mean num_classes"),
        ("resnet50", {"parent": None}, "unknown field of resnet50 'parent'"),
        ("resnet50", {"placement": "past"}, "unknown placement 'past': did you mean post"),
        ("resnet50", {"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ("resnet50", {"attention": "se"}, "attention must be a description.*, not a str"),
        ("resnet50", {"attention": SqueezeExciteConfig().build()}, "not a SqueezeExcite"),
    ],
)
def test_what_does_not_exist_is_refused_when_the_model_is_made(name, fields, message):
    with pytest.raises(UsageError, match=message):
        create_model(name, **fields)
