import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from published import DETECTION_GMACS, GMACS, PARAMS

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
from senet_jax.models.zoo import CLASSIFIERS, find


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


def test_the_table_is_complete():
    assert PARAMS.keys() == set(list_models())
    assert GMACS.keys() <= PARAMS.keys()


# These have so many layers that tracing takes seconds. Their parameters by hand are in
# test_densenet.py, and only the numbers of layers and channels set them apart from the others.
LARGE = {
    *(f"cifar_densenet_{size}" for size in ("100_12", "bc_100_12", "bc_250_24", "bc_190_40")),
    *(f"{se}densenet{depth}" for se in ("", "se_") for depth in (161, 169, 201, 264)),
    *("se_densenet121", "inception_resnet_v2"),
    *("fasterrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in PARAMS],
)
def test_a_network_has_and_costs_what_is_published(name):
    found = cost(create_model(name), find(name).input_size)
    assert found.params == PARAMS[name]
    if name in DETECTION_GMACS:
        assert found.macs / 1e9 == pytest.approx(DETECTION_GMACS[name], abs=0.001)
    if name in GMACS:
        assert found.macs / 1e9 == pytest.approx(GMACS[name], rel=0.005)


def plain(name):
    """The smallest of its kind, without attention, and the side of its images."""
    return smallest(dataclasses.replace(create_model(name), attention=None))


def kind(case):
    """The module and, of ResNets, the block."""
    model, _ = case
    return type(model), getattr(model, "bottleneck", None), getattr(model, "stem", None)


def cases():
    """The smallest networks that are not the same; of each large stem the first, the others slow.

    The small stem and the other families are in test_contract.py.
    """
    groups = {}
    for name in sorted(CLASSIFIERS):
        groups.setdefault(plain(name), name)
    kinds = set()
    for case, name in groups.items():
        slow = kind(case) in kinds or getattr(case[0], "stem", "cifar") == "cifar"
        slow = slow or not isinstance(case[0], ResNet)
        marks = [pytest.mark.slow] if slow else []
        kinds.add(kind(case))
        yield pytest.param(*case, id=name, marks=marks)


@pytest.mark.parametrize(("model", "side"), [*cases()])
def test_a_gate_of_one_changes_nothing_deterministically(
    model, side, monkeypatch, random_variables
):
    monkeypatch.setitem(gates.GATES, "one", jnp.ones_like)
    attended = dataclasses.replace(model, attention=SqueezeExciteConfig(gate="one", width=2))
    x = np.random.default_rng(1).standard_normal((2, side, side, 3)).astype(np.float32)
    variables = random_variables(attended, x, False)
    flat = flatten_dict(variables)
    bare = unflatten_dict({path: leaf for path, leaf in flat.items() if "se" not in path})
    assert len(flatten_dict(bare)) < len(flat)
    assert {leaf.dtype for leaf in flat.values()} == {np.dtype("float32")}
    assert variables.keys() <= {"params", "batch_stats"}

    @jax.jit
    def run(variables, bare):
        same = attended.apply(variables, x, train=False)
        return model.apply(bare, x, train=False), same

    logits, same = run(variables, bare)
    assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(same, logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run(variables, bare)[0], logits)


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


@pytest.mark.parametrize("name", ["cifar_seresnet8", "resnest50d", "se_vgg16_bn", "mobilenet_v1"])
def test_fields_are_known_without_building(name):
    model = create_model(name)
    fields = {field.name for field in dataclasses.fields(model)} - {"parent", "name"}
    assert find(name).fields == {field: getattr(model, field) for field in fields}


def test_models_are_values():
    assert create_model("seresnet18") == create_model("seresnet18")
    assert hash(create_model("seresnet18")) == hash(create_model("seresnet18"))
    assert create_model("seresnet18") != create_model("legacy_seresnet18")


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("serenset50", {}, "unknown model 'serenset50': did you mean seresnet50"),
        ("SEResNet50", {}, "unknown model 'SEResNet50': did you mean seresnet50"),
        ("resnet50", {"pretrained": True}, "no field 'pretrained': weights are read by senet_jax"),
        ("resnet50", {"in_chans": 1}, "the images that are given to init have the channels"),
        ("seresnet50", {"gate": "tanh"}, r"attention=SqueezeExciteConfig\(gate=\.\.\.\)"),
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
