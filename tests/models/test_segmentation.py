import dataclasses
import functools
import itertools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import FAMILIES
from flax import linen as nn
from flax.traverse_util import flatten_dict
from published import SEGMENTATION_GMACS

from senet_jax import SqueezeExciteConfig, UsageError, create_model, list_models
from senet_jax.config import ModelConfig, TrainConfig
from senet_jax.data.config import DataConfig
from senet_jax.models.cost import cost
from senet_jax.models.resnet import ResNet
from senet_jax.models.segmentation.heads import DeepLabV3PlusHead, PyramidHead
from senet_jax.models.segmentation.named import HEADS
from senet_jax.models.segmentation.segmenter import FCN, DeepLabV3
from senet_jax.models.zoo import find
from senet_jax.ops.compute import EVALUATION
from senet_jax.ops.norm import BatchNorm
from senet_jax.ops.resize import resize_bilinear
from senet_jax.tasks.classification import Classification

KEY = jax.random.key(0)
SMALL = {"blocks": (1, 1, 1, 1), "widths": (4, 4, 4, 8), "stem_width": 4, "num_classes": 5}
ONE_STAGE = {"blocks": (1,), "widths": (4,), "stem_width": 4}
PYRAMID = {"head_width": 6, "rates": (2, 4)}
OF_HEAD = {"fcn": {}, "pspnet": {}, "deeplabv3": PYRAMID, "deeplabv3plus": PYRAMID}

every_head = pytest.mark.parametrize("head", HEADS)


def network(head, backbone="resnet50", **fields):
    return create_model(f"{head}_{backbone}", **{**SMALL, **OF_HEAD[head], **fields})


@functools.cache
def shapes(model, size=(33, 47), n=2):
    """Shapes of the outputs and of the variables, without computing either."""
    x = jax.ShapeDtypeStruct((n, *size, 3), jnp.float32)
    return jax.eval_shape(functools.partial(model.init_with_output, train=False), KEY, x)


def images(size=(33, 47), n=2):
    return np.random.default_rng(n).standard_normal((n, *size, 3)).astype(np.float32)


@every_head
def test_logits_of_every_pixel_in_float32(head):
    for dtype in (None, jnp.bfloat16):
        outputs, variables = shapes(network(head, dtype=dtype))
        assert {key: (y.shape, y.dtype) for key, y in outputs.items()} == dict.fromkeys(
            ("out", "aux"), ((2, 33, 47, 5), jnp.dtype("float32"))
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@every_head
def test_without_auxiliary_head_its_key_and_variables_are_gone(head):
    (outputs, variables), (without, fewer) = (
        shapes(network(head, aux=aux)) for aux in (True, False)
    )
    assert outputs.keys() == {"out", "aux"}
    assert without.keys() == {"out"}
    rest = {path for path in flatten_dict(variables) if path[1] != "aux_head"}
    assert flatten_dict(fewer).keys() == rest
    assert rest < flatten_dict(variables).keys()


def test_the_heads_read_the_last_two_stages():
    _, variables = shapes(network("fcn", widths=(4, 8, 12, 16)))
    params = variables["params"]
    assert params["head"]["layer"]["conv"]["kernel"].shape == (3, 3, 64, 16)
    assert params["aux_head"]["layer"]["conv"]["kernel"].shape == (3, 3, 48, 12)
    assert "head" not in params["backbone"]


def traced(model, *, train=True, size=(33, 47)):
    """Batch norms and convolutions of a step, by path, with what they were made with."""
    groups, dtypes = {}, {}

    def note(call, args, kwargs, context):
        module = context.module
        if context.method_name == "__call__" and isinstance(module, BatchNorm):
            groups[module.path] = module.group
        if context.method_name == "__call__" and isinstance(module, nn.Conv):
            dtypes[module.path] = module.dtype
        return call(*args, **kwargs)

    def run(variables, x):
        rngs = {"dropout": KEY}
        return model.apply(variables, x, train=train, rngs=rngs, mutable=["batch_stats"])

    variables = shapes(model, size)[1]
    with nn.intercept_methods(note):
        jaxpr = jax.make_jaxpr(run)(variables, images(size, 4))
    return groups, dtypes, str(jaxpr)


@every_head
def test_precision_groups_and_remat_are_passed_on(head):
    model = network(head, dtype=jnp.bfloat16, norm_group=2, remat=True)
    groups, dtypes, jaxpr = traced(model)
    assert {path[0] for path in groups} == {"backbone", "head", "aux_head"}
    assert set(groups.values()) == {2}
    for path, dtype in dtypes.items():
        expected = "float32" if path[-1] == "classifier" else "bfloat16"
        assert jnp.dtype(dtype) == expected, path
    assert jaxpr.count("remat") >= 4


@every_head
def test_bfloat16_logits_are_upsampled_in_float32(head):
    model = network(head, dtype=jnp.bfloat16, align_corners=True)
    variables = shapes(model)[1]

    def run(variables, x):
        return model.apply(variables, x, train=False, capture_intermediates=True)

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), variables)
    _, state = jax.eval_shape(run, zeros, images())
    for name in ("head", "aux_head"):
        assert state["intermediates"][name]["classifier"]["__call__"][0].dtype == jnp.float32


@every_head
def test_training_drops_and_evaluation_does_not(head):
    quiet = network(head, dropout=0, aux_dropout=0)
    rates = {"dropout": 0.3, "aux_dropout": 0.3}
    if "aspp_dropout" in {field.name for field in dataclasses.fields(quiet)}:
        quiet, rates = dataclasses.replace(quiet, aspp_dropout=0), {**rates, "aspp_dropout": 0.3}
    variables, x = shapes(quiet)[1], images()

    def trace(model, train):
        return str(
            jax.make_jaxpr(
                lambda variables: model.apply(variables, x, train=train, mutable=["batch_stats"])
            )(variables)
        )

    trace(quiet, True)
    evaluation = trace(quiet, False)
    for rate, value in rates.items():
        model = dataclasses.replace(quiet, **{rate: value})
        assert trace(model, False) == evaluation
        with pytest.raises(flax.errors.InvalidRngError):
            trace(model, True)


def test_whole_channels_drop_if_they_are_asked_to():
    def masks(**fields):
        model = network("deeplabv3", dropout=0, aux_dropout=0, **fields)
        variables = shapes(model)[1]

        def drop(key, variables):
            return model.apply(
                variables, images(), train=True, rngs={"dropout": key}, mutable=["batch_stats"]
            )

        jaxpr = jax.make_jaxpr(drop)(KEY, variables)
        return str(jaxpr)

    assert "bool[2,1,1,6]" in masks(drop_channels=True)
    assert "bool[2,1,1,6]" not in masks()


def layer(x, dilations, params, stats, name):
    """A layer of a head as it is written: convolution, batch norm, ReLU."""
    kernel = params[name]["conv"]["kernel"]
    dilation = dilations.get(name, 1)
    y = jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(dilation * (side // 2),) * 2 for side in kernel.shape[:2]],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    norm, its = params[name]["bn"], stats[name]["bn"]
    y = (y - its["mean"]) / np.sqrt(its["var"] + 1e-5) * norm["scale"] + norm["bias"]
    return np.maximum(y, 0)


@pytest.mark.parametrize(("layers", "refine_width"), [(2, None), (1, 3)])
def test_the_decoder_of_deeplabv3plus(random_variables, layers, refine_width):
    head = DeepLabV3PlusHead(
        num_classes=3,
        dropout=0.0,
        compute=EVALUATION,
        head_width=4,
        rates=(2, 3),
        aspp_dropout=0.0,
        drop_channels=False,
        low_width=2,
        layers=layers,
        refine_width=refine_width,
        align_corners=False,
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 5, 8)).astype(np.float32)
    low = rng.standard_normal((2, 8, 9, 6)).astype(np.float32)
    stem = rng.standard_normal((2, 16, 17, 4)).astype(np.float32)
    size = (31, 33)
    variables = random_variables(head, x, low, stem, size)
    params, stats = variables["params"], variables["batch_stats"]
    dilations = {"rate1": 2, "rate2": 3}
    of = functools.partial(layer, dilations=dilations, params=params, stats=stats)

    branches = [of(x, name=name) for name in ("point", "rate1", "rate2")]
    mean = of(x.mean((1, 2), keepdims=True), name="pool")
    mean = np.broadcast_to(mean, branches[0].shape)
    y = of(np.concatenate([*branches, mean], -1), name="project")
    y = resize_bilinear(y, (8, 9), align_corners=False)
    y = np.concatenate([y, of(low, name="low")], -1)
    for index in range(1, layers + 1):
        y = of(y, name=f"layer{index}")
    classifier = params["classifier"]
    expected = y @ classifier["kernel"][0, 0] + classifier["bias"]
    if refine_width is not None:
        y = resize_bilinear(of(y, name="reduce"), (16, 17), align_corners=False)
        y = of(np.concatenate([y, of(stem, name="fine")], -1), name="refine")
        classifier = params["fine_classifier"]
        y = y @ classifier["kernel"][0, 0] + classifier["bias"]
        corrections = np.zeros((2, 32, 34, 3), np.float32)
        for row, column in itertools.product(range(2), range(2)):
            first = 3 * (2 * row + column)
            corrections[:, row::2, column::2] = y[..., first : first + 3]
        expected = resize_bilinear(expected, (32, 34), align_corners=False) + corrections
    found = jax.jit(lambda *maps: head.apply(variables, *maps, size))(x, low, stem)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_refinement_starts_as_the_network_without_it():
    plain, refined = (
        network("deeplabv3plus", "resnet18", refine_width=width, aux=False) for width in (None, 4)
    )
    assert refined.classifiers == ("head/classifier", "head/fine_classifier")
    x = images()
    variables = jax.jit(functools.partial(refined.init, train=False))(KEY, x)
    logits, expected = (
        jax.jit(functools.partial(model.apply, train=False))(variables, x)["out"]
        for model in (refined, plain)
    )
    # Both enlarge the same logits, the one in two steps.
    assert np.abs(logits - expected).mean() < 0.1 * expected.std()
    assert logits.std() == pytest.approx(float(expected.std()), rel=0.1)


def test_refinement_needs_the_map_of_a_stem():
    model = network("deeplabv3plus", "cifar_preact_resnet110", refine_width=4)
    with pytest.raises(UsageError, match="refine_width needs a map of the stem, and PreactResNet"):
        shapes(model)


def test_the_pyramid_averages_regions(random_variables):
    head = PyramidHead(
        num_classes=3, dropout=0.0, compute=EVALUATION, grids=(1, 2), align_corners=True
    )
    x = np.random.default_rng(0).standard_normal((2, 4, 6, 8)).astype(np.float32)
    variables = random_variables(head, x)
    params, stats = variables["params"], variables["batch_stats"]
    of = functools.partial(layer, dilations={}, params=params, stats=stats)

    whole = x.mean((1, 2), keepdims=True)
    quarters = x.reshape(2, 2, 2, 2, 3, 8).mean((2, 4))
    pooled = [
        resize_bilinear(of(y, name=name), (4, 6), align_corners=True)
        for y, name in ((whole, "pool1"), (quarters, "pool2"))
    ]
    y = of(np.concatenate([x, *pooled], -1), name="layer")
    expected = y @ params["classifier"]["kernel"][0, 0] + params["classifier"]["bias"]
    found = jax.jit(lambda x: head.apply(variables, x))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_training_learns_and_keeps_statistics(random_variables):
    model = network("deeplabv3", attention=SqueezeExciteConfig(width=4))
    x = images((17, 17), 2)
    variables = random_variables(model, x, False)

    @jax.jit
    def run(params):
        def loss(params):
            outputs, new = model.apply(
                {**variables, "params": params},
                x,
                train=True,
                rngs={"dropout": KEY},
                mutable=["batch_stats"],
            )
            return sum(jnp.sum(y**2) for y in outputs.values()), new

        return jax.grad(loss, has_aux=True)(params)

    gradients, new = run(variables["params"])
    for path, gradient in flatten_dict(gradients).items():
        assert np.isfinite(gradient).all(), path
        assert np.any(gradient != 0), path
    for path, leaf in flatten_dict(new["batch_stats"]).items():
        assert np.any(leaf != flatten_dict(variables["batch_stats"])[path]), path


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_family_is_a_backbone(family):
    model = FCN(backbone=family.model, num_classes=3)
    outputs, variables = shapes(model, (family.side, family.side), 1)
    assert outputs["out"].shape == outputs["aux"].shape == (1, family.side, family.side, 3)
    assert not set(family.model.head_modules) & variables["params"]["backbone"].keys()


def test_a_mean_of_a_single_image_is_refused_in_training():
    for head, module in (("deeplabv3", "head/pool/bn"), ("pspnet", "head/pool1/bn")):
        model = network(head)
        variables = shapes(model)[1]

        def run(variables, n, model=model):
            rngs = {"dropout": KEY}
            return model.apply(variables, images(n=n), train=True, rngs=rngs, mutable="batch_stats")

        with pytest.raises(UsageError, match=f"norm {module} needs more than one value in each"):
            jax.eval_shape(functools.partial(run, n=1), variables)
        jax.eval_shape(functools.partial(run, n=2), variables)


def test_the_published_names_are_listed_and_the_others_built():
    assert list_models("deeplabv3*") == ["deeplabv3_resnet50", "deeplabv3_resnet101"]
    assert list_models("fcn_*") == ["fcn_resnet50", "fcn_resnet101"]
    assert create_model("deeplabv3_resnet50").num_classes == 21
    model = create_model("pspnet_cifar_seresnet8", num_classes=4)
    assert model.backbone.attention is not None
    assert find("pspnet_cifar_seresnet8").input_size == 32
    assert find("deeplabv3_resnest50d").input_size == 480
    assert create_model("fcn_resnet50") == create_model("fcn_resnet50")


@pytest.mark.parametrize("name", SEGMENTATION_GMACS)
def test_a_network_costs_what_is_published(name):
    found = cost(create_model(name), 520).macs / 1e9
    assert found == pytest.approx(SEGMENTATION_GMACS[name], abs=0.001)


def test_fields_reach_the_head_and_the_backbone():
    se = SqueezeExciteConfig(gate="tanh")
    model = create_model(
        "deeplabv3_resnest50d",
        num_classes=7,
        rates=(6, 12),
        dropout=0.2,
        align_corners=True,
        attention=se,
        output_stride=16,
        dtype=jnp.bfloat16,
    )
    assert isinstance(model, DeepLabV3)
    assert (model.num_classes, model.rates, model.dropout) == (7, (6, 12), 0.2)
    backbone = model.backbone
    assert (backbone.attention, backbone.output_stride, backbone.dtype) == (se, 16, jnp.bfloat16)
    assert (backbone.dilated, backbone.dropout) == ("authors", 0.0)
    assert model.attention == se
    assert create_model("fcn_resnet50").backbone.output_stride == 8


def test_the_rate_of_drop_block_ramps():
    model = network("fcn", drop_block=0.2)
    assert model.drop_block == 0.2
    variables = shapes(model)[1]

    def run(variables, scale):
        return model.apply(
            variables,
            images(),
            train=True,
            drop_block_scale=scale,
            rngs={"dropout": KEY},
            mutable=["batch_stats"],
        )

    jaxpr = jax.make_jaxpr(run)(variables, 0.5)
    scale = jaxpr.jaxpr.invars[-1]
    assert any(scale in equation.invars for equation in jaxpr.jaxpr.eqns)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "deeplabv3_resnet5O",
            {},
            "unknown backbone of deeplabv3 'resnet5O': did you mean resnet50",
        ),
        (
            "deeplabv_resnet50",
            {},
            "unknown model 'deeplabv_resnet50': did you mean deeplabv3_resnet",
        ),
        ("fcn_fcn_resnet50", {}, "unknown backbone of fcn 'fcn_resnet50'"),
        ("fcn", {}, "unknown model 'fcn'"),
        ("fcn_resnet50", {"rates": (1,)}, "unknown field of fcn_resnet50 'rates'"),
        ("fcn_resnet50", {"features_only": True}, "unknown field of fcn_resnet50 'features_only'"),
        ("fcn_resnet50", {"backbone": None}, "unknown field of fcn_resnet50 'backbone'"),
        ("fcn_vgg11", {"output_stride": 8}, "unknown field of fcn_vgg11 'output_stride'"),
        ("fcn_resnet50", {"output_stride": 4}, "output_stride must be 8, 16 or 32, not 4"),
        ("fcn_resnet50", {"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ("fcn_resnet50", {"dropout": 1}, "dropout must be at least 0 and below 1, not 1"),
        ("deeplabv3_resnet50", {"rates": ()}, "rates must be one number or more"),
        (
            "fcn_resnet50",
            {"frozen_norms": (6,)},
            "stage 6 does not exist: the stages are 1",
        ),
        (
            "deeplabv3plus_inception_v3",
            {},
            "reads the map of stage 2 beside the last",
        ),
        (
            "deeplabv3plus_cifar_resnet8",
            ONE_STAGE,
            "reads the map of stage 2",
        ),
        ("fcn_cifar_resnet8", ONE_STAGE, "needs a stage before the last"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_model_is_made(name, fields, message):
    with pytest.raises(UsageError, match=message):
        create_model(name, **fields)


def test_one_stage_is_enough_without_the_auxiliary_head():
    model = create_model("fcn_cifar_resnet8", aux=False, **ONE_STAGE)
    assert list(shapes(model, (8, 8))[0]) == ["out"]


def test_images_of_another_layout_are_refused():
    model = FCN(backbone=ResNet(blocks=(1, 1), widths=(4, 4), stem_width=4))
    with pytest.raises(UsageError, match="PyTorch's layout"):
        model.init(KEY, jnp.zeros((1, 3, 32, 32)), train=False)


def test_classification_does_not_take_them():
    config = TrainConfig(
        model=ModelConfig(name="fcn_cifar_resnet8"), data=DataConfig(name="digits")
    )
    with pytest.raises(UsageError, match=r"classifies pixels.* a network such as cifar_resnet8"):
        Classification.open(config)
