import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from senet_jax import (
    CBAMConfig,
    ECAConfig,
    GatherExciteConfig,
    SqueezeExciteConfig,
    UsageError,
    create_model,
)
from senet_jax.interchange import export_network, load_stablehlo
from senet_jax.interchange import onnx as conversion

SE = SqueezeExciteConfig(reduction=4)
SMALL = {"blocks": (1, 1), "widths": (8, 16), "num_classes": 5}
ONE_BLOCK = {"blocks": (1,), "widths": (8,), "stem_width": 8, "num_classes": 5}
NETWORKS = {
    "pools and a padded shortcut": (
        "cifar_resnet8",
        {"stem": "imagenet", "stem_width": 8, **SMALL},
    ),
    "Caffe's pool": ("legacy_seresnet50", {"attention": SE, **SMALL}),
    "average pools and split attention": (
        "resnest50d_4s2x40d",
        {**SMALL, "stem_width": (8, 8, 16), "base_width": 64},
    ),
    "one split": ("resnest50d_1s4x24d", {**SMALL, "stem_width": 8, "base_width": 32}),
    "selective kernels": ("skresnet50", SMALL),
    "dilation": ("resnet50", {**SMALL, "output_stride": 8}),
    "CBAM": ("cifar_resnet8", {**ONE_BLOCK, "attention": CBAMConfig(reduction=4)}),
    "gather over the map": (
        "cifar_resnet8",
        {**ONE_BLOCK, "attention": GatherExciteConfig(gather="conv")},
    ),
    "ECA": ("ecaresnet50d", {**SMALL, "stem_width": (8, 8, 16)}),
    **{
        f"squeeze {squeeze}, gate {gate}": (
            "cifar_resnet8",
            {**ONE_BLOCK, "attention": SqueezeExciteConfig(squeeze, gate, reduction=4)},
        )
        for squeeze, gate in (
            ("max", "tanh"),
            ("std", "relu"),
            ("avgmax", "hard_sigmoid"),
            ("none", "sigmoid"),
        )
    },
}


def images(n, size=32, channels=3):
    return np.random.default_rng(n).standard_normal((n, size, size, channels), np.float32)


def network(name, fields, random_variables, channels=3):
    model = create_model(name, **fields)
    return model, random_variables(model, jnp.zeros((1, 32, 32, channels)), False)


def flax_logits(model, variables, x):
    return np.asarray(jax.jit(lambda x: model.apply(variables, x, train=False))(x))


def run_onnx(path, x):
    session = onnxruntime.InferenceSession(path)
    (logits,) = session.run(["logits"], {"images": x})
    return logits


def test_stablehlo_runs_where_there_is_jax_alone(tmp_path, random_variables):
    model, variables = network("cifar_seresnet8", {"attention": SE}, random_variables)
    path = tmp_path / "model.stablehlo"
    export_network(path, model, variables, (32, 32, 3), form="stablehlo")
    x = images(4)
    np.save(tmp_path / "images.npy", x)
    code = """
import sys, jax.export, numpy
program = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
numpy.save("logits.npy", program.call(numpy.load("images.npy")))
assert not {"flax", "senet_jax"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    expected = flax_logits(model, variables, x)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-4, atol=1e-5)
    program = load_stablehlo(path)
    for n in (1, 4):
        np.testing.assert_allclose(program(x[:n]), expected[:n], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", NETWORKS)
def test_onnxruntime_gives_the_logits(case, tmp_path, random_variables):
    model, variables = network(*NETWORKS[case], random_variables)
    path = tmp_path / "model.onnx"
    export_network(path, model, variables, (32, 32, 3), form="onnx")
    onnx.checker.check_model(path, full_check=True)
    x = images(3)
    expected = flax_logits(model, variables, x)
    for n in (1, 3):
        difference = np.abs(run_onnx(path, x[:n]) - expected[:n]).max() / expected.std()
        assert difference < 1e-4


@pytest.mark.parametrize(
    "head",
    # Its names and operations are DeepLabV3's and more.
    [pytest.param("deeplabv3", marks=pytest.mark.slow), "deeplabv3plus", "pspnet"],
)
def test_logits_of_pixels_are_exported_by_the_names_of_the_heads(head, tmp_path, random_variables):
    fields = {**SMALL, "stem_width": (8, 8, 16), "align_corners": head == "pspnet"}
    if head != "pspnet":
        fields |= {"head_width": 8, "rates": (2, 3)}
    if head == "deeplabv3plus":
        fields |= {"refine_width": 4}
    model, variables = network(f"{head}_resnest50d", fields, random_variables)
    path = tmp_path / "model"
    x = np.random.default_rng(0).standard_normal((3, 21, 32, 3), np.float32)
    expected = jax.device_get(jax.jit(lambda x: model.apply(variables, x, train=False))(x))

    export_network(path, model, variables, (21, 32, 3), form="onnx")
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path)
    assert [output.shape for output in session.get_outputs()] == [["batch", 21, 32, 5]] * 2
    found = dict(zip(("out", "aux"), session.run(["out", "aux"], {"images": x}), strict=True))
    export_network(path, model, variables, (21, 32, 3), form="stablehlo")
    for outputs in (found, load_stablehlo(path)(x)):
        assert outputs.keys() == expected.keys()
        for key, logits in expected.items():
            assert np.abs(outputs[key] - logits).max() < 1e-4 * logits.std()


@pytest.mark.parametrize("attention", [ECAConfig(), GatherExciteConfig(2, "conv", mlp=True)])
def test_other_channels_and_sizes(tmp_path, random_variables, attention):
    fields = {"blocks": (1, 1), "widths": (16, 32), "attention": attention, "num_classes": 3}
    model, variables = network("cifar_resnet8", fields, random_variables, channels=1)
    expected = flax_logits(model, variables, images(2, 17, 1))
    path = tmp_path / "model"
    export_network(path, model, variables, (17, 17, 1), form="onnx")
    np.testing.assert_allclose(run_onnx(path, images(2, 17, 1)), expected, rtol=1e-3, atol=1e-5)
    export_network(path, model, variables, (17, 17, 1), form="stablehlo")
    found = load_stablehlo(path)(images(2, 17, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_onnx_that_differs_is_not_written(tmp_path, random_variables, monkeypatch):
    model, variables = network("cifar_resnet8", {}, random_variables)
    wrong = dict(conversion.RULES, max=conversion.RULES["min"])
    monkeypatch.setattr(conversion, "RULES", wrong)
    path = tmp_path / "model.onnx"
    with pytest.raises(UsageError, match=r"differ from Flax's by .* nothing was written"):
        export_network(path, model, variables, (32, 32, 3), form="onnx")
    assert not list(tmp_path.iterdir())


def test_what_onnx_has_no_rule_for_is_named():
    (batch,) = jax.export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, 8, 8, 3), jnp.float32)
    with pytest.raises(UsageError, match="computes erf, which has no rule for ONNX"):
        conversion.to_onnx(jax.lax.erf, shape)


def test_a_network_without_logits_is_refused(tmp_path, random_variables):
    model, variables = network("cifar_resnet8", {"features_only": True}, random_variables)
    with pytest.raises(UsageError, match="has no logits"):
        export_network(tmp_path / "x", model, variables, (32, 32, 3), form="stablehlo")


def test_bad_requests_are_refused(tmp_path, random_variables):
    model, variables = network("cifar_resnet8", {}, random_variables)
    with pytest.raises(UsageError, match="unknown format 'onx': did you mean onnx"):
        export_network(tmp_path / "x", model, variables, (32, 32, 3), form="onx")
    with pytest.raises(UsageError, match=r"directory .* does not exist"):
        export_network(tmp_path / "no" / "x", model, variables, (32, 32, 3), form="stablehlo")
    with pytest.raises(UsageError, match="no such file"):
        load_stablehlo(tmp_path / "none")
    (tmp_path / "bad").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="truncated or no exported"):
        load_stablehlo(tmp_path / "bad")
