import argparse

import numpy as np
import pytest
from test_torch import assert_same, renamed, tiny

from senet_jax import UsageError
from senet_jax.interchange import from_torch
from senet_jax.interchange import torch as interchange
from senet_jax.interchange.state_dict import bare_name, network_name, take_weights

RAW = {"fc.bias": np.zeros(2)}
AVERAGE = {"fc.bias": np.ones(2)}
SWA = {"n_averaged": np.array(7), "module.fc.bias": np.ones(2)}


@pytest.mark.parametrize(
    "content",
    [
        RAW,
        {"state_dict": RAW, "epoch": 3, "args": argparse.Namespace(lr=0.1), "best": np.float64(1)},
        {"model": RAW, "optimizer": {"state": {}}},
        {"model": {"state_dict": RAW}},
        {"net": RAW, "acc": 93.1},
        {"state_dict": RAW, "state_dict_ema": None},
        {"state_dict": RAW, "ema": {"decay": 0.999}},
    ],
    ids=range(7),
)
def test_weights_without_an_average_are_taken_in_silence(content, caplog):
    assert take_weights(content, "auto", "a.pth") == RAW
    assert take_weights(content, "raw", "a.pth") == RAW
    assert not caplog.records
    with pytest.raises(UsageError, match=r"a\.pth has no moving average .* leave --weights-of"):
        take_weights(content, "average", "a.pth")


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"state_dict": RAW, "state_dict_ema": AVERAGE}, " ('state_dict_ema')"),
        ({"state_dict_ema": AVERAGE, "state_dict": RAW}, " ('state_dict_ema')"),
        ({"model": RAW, "model_ema": AVERAGE}, " ('model_ema')"),
        ({"model": {"state_dict": RAW, "ema": AVERAGE}}, " ('model' / 'ema')"),
        ({"net": RAW, "ema": {"model": AVERAGE}}, " ('ema' / 'model')"),
    ],
)
def test_of_both_the_average_is_taken_and_named(content, place, caplog):
    assert take_weights(content, "auto", "a.pth") == AVERAGE
    (record,) = caplog.records
    assert record.getMessage() == (
        f"a.pth: took the moving average of the weights{place}. --weights-of raw takes the others."
    )
    assert take_weights(content, "raw", "a.pth") == RAW
    assert take_weights(content, "average", "a.pth") == AVERAGE


@pytest.mark.parametrize("prefix", ["model_ema", "ema_model"])
def test_an_average_beside_by_its_prefix_is_taken_and_named(prefix, caplog):
    average = {f"{prefix}.{name}": array for name, array in AVERAGE.items()}
    content = {**RAW, **average, "model_ema_decay": np.array(0.9), "initted": np.array(True)}
    assert take_weights(content, "auto", "a.pth") == AVERAGE
    assert f"took the moving average of the weights ('{prefix}.*'). --weights-of" in caplog.text
    assert take_weights(content, "raw", "a.pth").keys() - {"model_ema_decay", "initted"} == {*RAW}
    assert take_weights(average, "auto", "a.pth") == AVERAGE
    with pytest.raises(UsageError, match="no weights besides their moving average"):
        take_weights(average, "raw", "a.pth")


def test_a_module_of_the_network_by_the_name_of_ema_is_its_own(caplog):
    content = {**RAW, "ema.weight": np.ones(2)}
    assert take_weights(content, "auto", "a.pth") == content
    assert not caplog.records


@pytest.mark.parametrize("content", [{"state_dict_ema": AVERAGE}, SWA, {"model_ema": SWA}])
def test_an_average_alone_is_taken_and_named(content, caplog):
    assert take_weights(content, "auto", "a.pth") in (AVERAGE, SWA)
    assert "took the moving average" in caplog.text
    assert "the others" not in caplog.text
    with pytest.raises(UsageError, match="no weights besides their moving average"):
        take_weights(content, "raw", "a.pth")


ITSELF = {"epoch": 3}
ITSELF["model"] = ITSELF


@pytest.mark.parametrize(
    "content",
    [None, [1], {}, {"epoch": 3}, {"state_dict": 3}, {"state_dict": {}}, {1: RAW}, ITSELF],
    ids=range(8),
)
def test_what_has_no_state_dict_is_refused(content):
    with pytest.raises(UsageError, match=r"^a\.pth holds no state dict .* 'state_dict', .*\.$"):
        take_weights(content, "auto", "a.pth")


def test_an_unknown_choice_is_refused():
    with pytest.raises(UsageError, match="unknown choice of weights 'avg'"):
        take_weights(RAW, "avg", "a.pth")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("conv1.weight", "conv1.weight"),
        ("module.conv1.weight", "conv1.weight"),
        ("_orig_mod.module.model.backbone.conv1.weight", "conv1.weight"),
        ("layer1._orig_mod.0.conv1.weight", "layer1.0.conv1.weight"),
        ("module.layer1.0._fsdp_wrapped_module.conv1.weight", "layer1.0.conv1.weight"),
        ("backbone.scale", "backbone.scale"),
        ("module.backbone.scale", "backbone.scale"),
        ("criterion.weight", None),
        ("module.", None),
        ("", None),
    ],
)
def test_prefixes_are_stripped_only_down_to_a_name(key, name):
    names = {"conv1.weight", "layer1.0.conv1.weight", "backbone.scale", "scale"}
    assert network_name(key, names) == name
    assert bare_name("module.model.fc9.weight") == "fc9.weight"


PREFIXED = {
    "compiled": ((r"^", "_orig_mod."),),
    "Lightning": ((r"^", "model."),),
    "nested": ((r"^", "module._orig_mod.model.backbone."),),
    "a backbone with its own head": ((r"^(?!fc)", "backbone."),),
    "a compiled stage": ((r"^layer2\.", "layer2._orig_mod."),),
    "some keys": ((r"^layer", "module.layer"),),
}


@pytest.fixture(scope="module")
def resnet():
    return tiny("seresnet18")


@pytest.mark.parametrize("rules", PREFIXED.values(), ids=PREFIXED)
def test_prefixes_of_all_and_of_some_keys(rules, resnet):
    fields, state_dict = resnet
    other = renamed(state_dict, rules)
    assert other.keys() != state_dict.keys()
    found = from_torch("seresnet18", other, **fields)
    assert_same(found, from_torch("seresnet18", state_dict, **fields))


def test_counters_are_no_weights(resnet):
    fields, state_dict = resnet
    counters = {
        "n_averaged": np.array(3),
        "total_ops": np.zeros(1),
        "module.layer1.0.conv1.total_params": np.zeros(1),
        "module.bn1.num_batches_tracked": np.array(9),
    }
    found = from_torch("seresnet18", {**state_dict, **counters}, **fields)
    assert_same(found, from_torch("seresnet18", state_dict, **fields))


def test_two_keys_of_one_name_are_an_error(resnet):
    fields, state_dict = resnet
    twice = {**state_dict, "module.fc.bias": state_dict["fc.bias"]}
    with pytest.raises(UsageError, match=r"module\.fc\.bias \(the same as fc\.bias\)"):
        from_torch("seresnet18", twice, **fields)


def test_other_prefixes_are_left_over_by_their_own_names(resnet):
    fields, state_dict = resnet
    more = {**state_dict, "model.loss\x1b[2J.weight": state_dict["fc.bias"]}
    with pytest.raises(UsageError, match=r"left over \(1\): model\.loss\\x1b\[2J\.weight$"):
        from_torch("seresnet18", more, **fields)


def test_a_network_keeps_its_own_parameter(monkeypatch, resnet):
    fields, state_dict = resnet
    naming = interchange.namings

    def namings(name, model):
        def own(path):
            return naming(name, model)[0](path).replace("conv1", "model.conv1", 1)

        return (own,)

    monkeypatch.setattr(interchange, "namings", namings)
    own = {key.replace("conv1", "model.conv1", 1): value for key, value in state_dict.items()}
    wrapped = {f"module.{key}": value for key, value in own.items()}
    expected = from_torch("seresnet18", own, **fields)
    assert_same(from_torch("seresnet18", wrapped, **fields), expected)


@pytest.mark.parametrize("value", [[0.0] * 5, None, 3.0], ids=str)
def test_what_is_no_array_is_listed(resnet, value):
    fields, state_dict = resnet
    with pytest.raises(UsageError, match=rf"fc\.bias is a {type(value).__name__}, not an array"):
        from_torch("seresnet18", {**state_dict, "fc.bias": value}, **fields)
