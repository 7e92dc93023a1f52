"""What every feed-forward family does with attention and the options, on its smallest networks."""

import dataclasses
import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from senet_jax import ECAConfig, SplitAttentionConfig, SqueezeExciteConfig, UsageError
from senet_jax.attention import gates
from senet_jax.models.cost import cost
from senet_jax.models.mobilenet import Block, MobileNetV1
from senet_jax.models.shufflenet import ShuffleNetV1, Unit
from senet_jax.models.vgg import VGG, Layer

KEY = jax.random.key(0)
SE = SqueezeExciteConfig(reduction=2)
MODELS = {
    "vgg": VGG(blocks=(1, 2), widths=(4, 8), fc_width=8, num_classes=5),
    "vgg_bn": VGG(blocks=(1, 2), widths=(4, 8), fc_width=8, norm=True, num_classes=5),
    "mobilenet": MobileNetV1(width=0.125, blocks=(1, 2), num_classes=5),
    "shufflenet": ShuffleNetV1(width=0.1, blocks=(2, 1), num_classes=5),
}
ATTENDED = {
    "vgg": {"stage1/layer1": 4, "stage2/layer1": 8, "stage2/layer2": 8},
    "mobilenet": {"stage1/block1": 8, "stage2/block1": 16, "stage2/block2": 16},
    # The branch of a strided unit has what the shortcut leaves: 24 - 12 and 48 - 24 channels.
    "shufflenet": {"stage2/block1": 12, "stage2/block2": 24, "stage3/block1": 24},
}
ATTENDED["vgg_bn"] = ATTENDED["vgg"]
"""Scopes of the attention and the channels that it rescales."""
STRIDES = {"vgg": [1, 2, 4], "mobilenet": [2, 4], "shufflenet": [2, 4, 8, 16]}
STRIDES["vgg_bn"] = STRIDES["vgg"]

every_family = pytest.mark.parametrize("family", MODELS)


def model_of(family, **fields):
    return dataclasses.replace(MODELS[family], **fields)


def images(size=8, channels=3, n=4):
    rng = np.random.default_rng(size)
    return rng.standard_normal((n, size, size, channels)).astype(np.float32)


def shapes(model, size=8, channels=3):
    x = jnp.zeros((1, size, size, channels))
    return jax.eval_shape(lambda: model.init_with_output(KEY, x, train=False))


def paths(model):
    return {p: leaf.shape for p, leaf in flatten_dict(dict(shapes(model)[1]), sep="/").items()}


def apply(model, variables, x):
    return jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)


def without_se(variables):
    flat = flatten_dict(variables)
    return unflatten_dict({path: leaf for path, leaf in flat.items() if "se" not in path})


def gradients(model, variables, x):
    def loss(params):
        rngs = {"dropout": jax.random.key(7)}
        logits, _ = model.apply(
            {**variables, "params": params}, x, train=True, rngs=rngs, mutable=["batch_stats"]
        )
        return jnp.sum(logits**2)

    return jax.jit(jax.value_and_grad(loss))(variables["params"])


@every_family
@pytest.mark.parametrize("stages", [None, (2,)])
def test_se_stands_after_each_block_of_its_stages_and_adds_only_itself(family, stages):
    found = paths(model_of(family, attention=SE, stages=stages))
    expected = {
        f"params/{scope}/se/{layer}": shape
        for scope, width in ATTENDED[family].items()
        if stages is None or scope.startswith("stage2/")
        for layer, shape in {
            "reduce/kernel": (width, width // 2),
            "reduce/bias": (width // 2,),
            "expand/kernel": (width // 2, width),
            "expand/bias": (width,),
        }.items()
    }
    assert {path: shape for path, shape in found.items() if "/se/" in path} == expected
    assert {p: s for p, s in found.items() if "/se/" not in p} == paths(model_of(family))


@every_family
def test_other_rescaling_attention_goes_in_too(family):
    found = paths(model_of(family, attention=ECAConfig()))
    assert {f"params/{scope}/eca/conv/kernel" for scope in ATTENDED[family]} <= found.keys()


@every_family
def test_attention_that_replaces_a_residual_convolution_is_refused(family):
    with pytest.raises(UsageError, match="choose an attention that rescales"):
        model_of(family, attention=SplitAttentionConfig())


@every_family
def test_a_gate_of_one_changes_nothing(random_variables, monkeypatch, family):
    monkeypatch.setitem(gates.GATES, "one", jnp.ones_like)
    model, x = model_of(family, attention=SqueezeExciteConfig(gate="one", reduction=2)), images()
    variables = random_variables(model, x, False)
    plain = apply(model_of(family), without_se(variables), x)
    np.testing.assert_allclose(apply(model, variables, x), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "block",
    [
        functools.partial(Layer, 4, 3, False),
        functools.partial(Layer, 4, 3, True),
        functools.partial(Block, 4, 2),
    ],
    ids=["vgg", "vgg_bn", "mobilenet"],
)
def test_attention_rescales_what_the_non_linearity_gives(random_variables, monkeypatch, block):
    # Before the non-linearity a negative gate would give zeros and never negative numbers.
    monkeypatch.setitem(gates.GATES, "minus_one", lambda x: -jnp.ones_like(x))
    se, x = block(SqueezeExciteConfig(gate="minus_one", reduction=2)), images()
    variables = random_variables(se, x, False)
    plain = apply_block(block(None), without_se(variables), x)
    assert np.max(plain) > 0.1
    np.testing.assert_allclose(apply_block(se, variables, x), -plain, rtol=1e-5, atol=1e-6)


def apply_block(block, variables, x):
    return jax.jit(lambda v, x: block.apply(v, x, False))(variables, x)


def test_attention_of_a_shuffle_unit_leaves_the_shortcut_alone(random_variables, monkeypatch):
    monkeypatch.setitem(gates.GATES, "zero", jnp.zeros_like)
    unit = functools.partial(
        Unit, groups=3, first_groups=3, attention=SqueezeExciteConfig(gate="zero", reduction=2)
    )
    x = images(channels=12)
    identity, strided = unit(12, stride=1), unit(24, stride=2)
    y = apply_block(identity, random_variables(identity, x, False), x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    y = apply_block(strided, random_variables(strided, x, False), x)
    # The zeros of the padding count, as in the released network.
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    expected = np.maximum(windows.mean((-2, -1)), 0)
    np.testing.assert_allclose(y[..., :12], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(y[..., 12:], 0)


@every_family
def test_gradients_are_finite_not_zero_and_the_same_with_remat(random_variables, family):
    small = {"mobilenet": {"blocks": (1,)}, "shufflenet": {"blocks": (2,)}}.get(family, {})
    x, model = images(16), model_of(family, attention=SE, dropout=0.3, **small)
    remat = dataclasses.replace(model, remat=True)
    variables = random_variables(model, x, False)
    assert shapes(remat)[1] == shapes(model)[1]
    expected, found = (gradients(each, variables, x) for each in (model, remat))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, expected
    )
    for path, gradient in flatten_dict(expected[1]).items():
        assert np.isfinite(gradient).all(), path
        # A batch norm takes the bias of the convolution before it away again.
        assert np.any(gradient != 0) or path[-2:] == ("conv", "bias"), path


@every_family
def test_remat_is_of_each_block_and_costs_nothing_forward(family):
    model, remat = (model_of(family, attention=SE, remat=remat) for remat in (False, True))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), dict(shapes(model)[1]))
    jaxpr = jax.make_jaxpr(lambda x: remat.apply(variables, x, train=False))(images())
    names = [equation.primitive.name for equation in jaxpr.eqns]
    assert sum("remat" in name for name in names) == len(ATTENDED[family])
    assert cost(remat, 8) == cost(model, 8)


CONVOLUTIONS = {"conv", "conv1", "conv2", "conv3", "depthwise", "pointwise", "fc6", "fc7"}


@every_family
def test_bfloat16_keeps_parameters_gates_and_logits_in_float32(family):
    model = model_of(family, attention=SE, dtype=jnp.bfloat16)
    logits, variables = jax.eval_shape(
        lambda: model.init_with_output(KEY, images(), train=False, capture_intermediates=True)
    )
    named = flatten_dict(dict(variables.pop("intermediates")))
    gate_types = {leaf.dtype for path, (leaf,) in named.items() if path[-1] == "gate"}
    assert gate_types == {logits.dtype} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    for path, (leaf,) in named.items():
        if path[-1] == "__call__" and {*path[-2:-1]} & CONVOLUTIONS:
            assert leaf.dtype == jnp.bfloat16, path
    maps, _ = shapes(dataclasses.replace(model, features_only=True))
    assert {y.dtype for y in maps.values()} == {jnp.dtype("bfloat16")}


@every_family
def test_dropout_draws_in_training_alone(family):
    model = model_of(family, dropout=0.5)
    variables = shapes(model)[1]

    def run(variables, train, **rngs):
        return model.apply(variables, images(), train=train, rngs=rngs, mutable=["batch_stats"])

    jax.eval_shape(functools.partial(run, train=False), variables)
    jax.eval_shape(functools.partial(run, train=True, dropout=KEY), variables)
    with pytest.raises(flax.errors.InvalidRngError):
        jax.eval_shape(functools.partial(run, train=True), variables)


@every_family
def test_features_are_the_maps_of_every_stride_and_have_no_head(family):
    model = model_of(family, features_only=True)
    maps, variables = shapes(model, 64)
    assert list(maps) == STRIDES[family]
    assert {stride: y.shape[1] for stride, y in maps.items()} == {s: 64 // s for s in maps}
    left_out = shapes(MODELS[family])[1]["params"].keys() - variables["params"].keys()
    assert left_out == set(model.head_modules)


@pytest.mark.parametrize("family", ["mobilenet", "shufflenet"])
def test_features_lead_to_the_logits(random_variables, family):
    x, model = images(16), model_of(family, blocks=(1,))
    variables = random_variables(model, x, False)
    maps = apply(dataclasses.replace(model, features_only=True), variables, x)
    head = variables["params"]["head"]
    logits = maps[max(maps)].mean(axis=(1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(apply(model, variables, x), logits, rtol=1e-4, atol=1e-5)


@every_family
@pytest.mark.parametrize(("size", "channels"), [(4, 1), (97, 4)])
def test_takes_any_channels_and_sizes(family, size, channels):
    logits, variables = shapes(model_of(family, num_classes=7), size, channels)
    assert logits.shape == (1, 7)
    first = variables["params"]["stage1"]["layer1"] if "vgg" in family else None
    first = first or variables["params"]["stem"]
    assert first["conv"]["kernel"].shape[2] == channels


@pytest.mark.parametrize("family", ["mobilenet", "shufflenet"])
def test_one_pixel_is_enough(family):
    assert shapes(MODELS[family], 1)[0].shape == (1, 5)


@pytest.mark.parametrize("family", ["mobilenet", "shufflenet"])
def test_the_stem_for_small_images_changes_the_resolution_alone(family):
    large = model_of(family, features_only=True)
    maps, variables = shapes(dataclasses.replace(large, stem="cifar"), 32)
    assert variables == shapes(large, 32)[1]
    strides = [2**index for index in range(len(maps))]
    assert {stride: y.shape[1] for stride, y in maps.items()} == {s: 32 // s for s in strides}


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("vgg", {"stages": (3,)}, "stage 3 does not exist: the stages are 1 to 2"),
        ("mobilenet", {"stages": (0,)}, "stage 0 does not exist: the stages are 1 to 2"),
        ("shufflenet", {"stages": (1,)}, "stage 1 does not exist: the stages are 2 to 3"),
        ("vgg", {"dropout": 1.0}, "dropout must be at least 0 and below 1, not 1.0"),
        ("vgg", {"widths": (4,)}, r"blocks \(1, 2\) and widths \(4,\) differ in length"),
        ("mobilenet", {"width": 0.01}, "width must be at least 0.03125 and at most 64, not 0.01"),
        ("mobilenet", {"blocks": (1,) * 6}, "blocks .* are of more than 5 stages"),
        ("shufflenet", {"groups": 5}, "groups must be one of 1, 2, 3, 4, 8, not 5"),
        ("mobilenet", {"stem": "caffe"}, "unknown stem 'caffe'"),
        ("shufflenet", {"width": 0.05}, "leaves stage 2 12 channels.* more than the 12"),
    ],
)
def test_wrong_fields_are_refused(family, fields, message):
    with pytest.raises(UsageError, match=message):
        model_of(family, **fields)
