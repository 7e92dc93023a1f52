"""The contract of the networks: what every family does with attention and with its options.

Most of it is traced only. The rest comes out of three programs a family, compiled once each.
"""

import dataclasses
import functools
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import FAMILIES
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from senet_jax import (
    ECAConfig,
    SelectiveKernelConfig,
    SqueezeExciteConfig,
    UsageError,
    create_model,
)
from senet_jax.attention.gates import GATES
from senet_jax.models.backbone import STEM
from senet_jax.models.cost import cost
from senet_jax.ops.norm import BatchNorm

KEY = jax.random.key(0)
SE = SqueezeExciteConfig(reduction=2)
WIDE_SE = SqueezeExciteConfig(width=16)
"""So wide that some hidden unit is alive in every block."""

# Like others: of dense blocks the layers are the same, the Inception modules stand in
# Inception-ResNet too, VGG is VGG with batch norm without it, and the blocks of pre-activation and
# of Shake-Shake are there as bottlenecks.
SLOW = {"densenet blocks", "inception", "vgg", "preact", "shake"}

every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES, scope="module")

every_trained = pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, family in FAMILIES.items()
    ],
    scope="module",
)


@functools.cache
def shapes(model, side, channels=3):
    """Shapes of the output and of the variables, without computing either."""
    x = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    init = functools.partial(model.init_with_output, train=False)
    return jax.eval_shape(init, KEY, x)


def paths(model, side):
    return {p: leaf.shape for p, leaf in flatten_dict(shapes(model, side)[1], sep="/").items()}


def images(side, n=4):
    rng = np.random.default_rng(side)
    return rng.standard_normal((n, side, side, 3)).astype(np.float32)


def without_se(variables):
    flat = flatten_dict(variables)
    return unflatten_dict({path: leaf for path, leaf in flat.items() if "se" not in path})


def train(model, variables, x, **rngs):
    return model.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])


def drops(model, family):
    """The model with everything that it can drop dropped at a rate of 0.3."""
    return dataclasses.replace(model, **dict.fromkeys(family.rates, 0.3))


@every_family
def test_attention_stands_in_its_stages_and_adds_only_itself(family):
    side, last = family.side, family.model.stage_numbers[-1]
    plain = paths(family.model, side)
    for stages in (None, (last,)):
        expected = {
            f"params/{scope}/se/{layer}": shape
            for scope, width in family.scopes.items()
            if stages is None or is_in(scope, last)
            for layer, shape in {
                "reduce/kernel": (width, width // 2),
                "reduce/bias": (width // 2,),
                "expand/kernel": (width // 2, width),
                "expand/bias": (width,),
            }.items()
        }
        model = dataclasses.replace(family.model, attention=SE, stages=stages)
        assert paths(model, side) == plain | expected
    nowhere = dataclasses.replace(family.model, attention=SE, stages=())
    assert not any(map(nowhere.attention_of, nowhere.stage_numbers))


def is_in(scope, stage):
    """Tells whether a scope is in a stage; the Inceptions' names count modules and blocks."""
    names = (f"stage{stage}", f"mixed_{stage}", f"block_{stage - 2}")
    return scope.split("/")[0] in names


@every_family
def test_other_attention_goes_in_or_is_refused(family):
    found = paths(dataclasses.replace(family.model, attention=ECAConfig()), family.side)
    eca = {path for path in found if "/eca/" in path}
    assert eca == {f"params/{scope}/eca/conv/kernel" for scope in family.scopes}
    if not family.model.replaces_convolutions:
        with pytest.raises(UsageError, match="choose an attention that rescales"):
            dataclasses.replace(family.model, attention=SelectiveKernelConfig())


def channels_of(variables):
    """Channels that the first convolution takes."""
    kernels = jax.tree.leaves(variables["params"])
    return {leaf.shape[2] for leaf in kernels if leaf.ndim == 4}


@every_family
def test_the_smallest_images_of_one_channel_are_taken(family):
    logits, variables = shapes(family.model, family.smallest, 1)
    assert logits.shape == (1, 5)
    assert 1 in channels_of(variables)


@every_family
def test_features_are_the_maps_of_every_stride_without_head(family):
    model = dataclasses.replace(family.model, features_only=True, dtype=jnp.bfloat16)
    side = 97
    maps, variables = shapes(model, side, 3)
    assert tuple(maps) == family.strides
    assert {y.dtype for y in maps.values()} == {jnp.dtype("bfloat16")}
    for stride, y in maps.items():
        # Rounded up or down; a convolution or pool without padding takes up to two pixels more.
        assert side // stride - 1 <= y.shape[1] <= -(-side // stride)
    left_out = paths(family.model, family.side).keys() - flatten_dict(variables, sep="/").keys()
    assert {path.split("/")[1] for path in left_out} == set(model.head_modules)


@every_family
def test_features_by_stage_are_the_maps_that_the_stages_end_in(family):
    by_stride = dataclasses.replace(family.model, features_only=True)
    by_stage = dataclasses.replace(by_stride, features_by="stage")
    (maps, variables), (strided, same) = shapes(by_stage, 97), shapes(by_stride, 97)
    assert variables == same
    numbers = list(family.model.stage_numbers)
    assert list(maps) in (numbers, [STEM, *numbers])
    sides = [y.shape[1] for y in maps.values()]
    assert sides == sorted(sides, reverse=True)
    # VGG ends in a pool, which is part of no stage.
    last = [stride for stride in strided if strided[stride].shape == maps[max(maps)].shape]
    assert last
    assert max(strided) in last or "fc6" in family.model.head_modules


@dataclasses.dataclass(frozen=True)
class Traced:
    """A training step in bfloat16 with batch norms over groups of two images, only traced."""

    exact: list
    """Logits, variables, new statistics and gates."""
    gates: list
    intermediates: dict
    groups: dict
    """The group of each batch norm by its path."""


@pytest.fixture(scope="module")
def traced(family):
    """The training step of a family."""
    model = dataclasses.replace(family.model, attention=SE, dtype=jnp.bfloat16, norm_group=2)
    variables, groups = shapes(model, family.side)[1], {}

    def note(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm):
            groups[context.module.path] = context.module.group
        return call(*args, **kwargs)

    def run(variables, x):
        kept = ["batch_stats", "intermediates"]
        rngs = {"dropout": KEY}
        return model.apply(
            variables, x, train=True, rngs=rngs, capture_intermediates=True, mutable=kept
        )

    with nn.intercept_methods(note):
        logits, state = jax.eval_shape(run, variables, images(family.side))
    named = flatten_dict(dict(state.pop("intermediates")))
    gates = [leaf for path, (leaf,) in named.items() if path[-1] == "gate"]
    return Traced(jax.tree.leaves([logits, variables, state, gates]), gates, named, groups)


@every_family
def test_bfloat16_keeps_what_must_be_exact_in_float32(family, traced):
    assert len(traced.gates) == len(family.scopes)
    assert {leaf.dtype for leaf in traced.exact} == {jnp.dtype("float32")}
    convolutions = [
        (path, leaf.dtype)
        for path, (leaf, *_) in traced.intermediates.items()
        if len(path) > 1 and re.fullmatch(r"conv\d?|depthwise|pointwise|fc\d", path[-2])
    ]
    assert len(convolutions) >= 2
    assert {dtype for _, dtype in convolutions} == {jnp.dtype("bfloat16")}, convolutions


@every_family
def test_every_batch_norm_gets_the_group(family, traced):
    norms = [path for path in flatten_dict(shapes(family.model, family.side)[1]) if "var" in path]
    assert len(traced.groups) == len(norms)
    assert set(traced.groups.values()) <= {2}


@pytest.mark.parametrize("name", ["resnest14d", "skresnet18"])
def test_batch_norms_of_replaced_convolutions_get_the_group(name):
    model, groups = create_model(name, norm_group=2, blocks=(1, 1, 1, 1)), set()

    def note(call, args, kwargs, context):
        if isinstance(context.module, BatchNorm):
            groups.add((context.module.path, context.module.group))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes(model, 64)
    assert len(groups) >= 8
    assert {group for _, group in groups} == {2}


@every_family
def test_remat_is_of_each_block_and_costs_nothing_forward(family):
    model = dataclasses.replace(family.model, attention=SE)
    remat = dataclasses.replace(model, remat=True)
    assert cost(remat, family.side) == cost(model, family.side)
    init = functools.partial(remat.init_with_output, train=False)
    x = jax.ShapeDtypeStruct((1, family.side, family.side, 3), jnp.float32)
    jaxpr, found = jax.make_jaxpr(init, return_shape=True)(KEY, x)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, shapes(model, family.side))
    names = [equation.primitive.name for equation in jaxpr.eqns]
    assert sum("remat" in name for name in names) == family.remats


@every_family
def test_what_training_drops_needs_its_key_and_evaluation_keeps(family):
    x = images(family.side)
    quiet = dataclasses.replace(family.small, **dict(family.quiet))
    variables = shapes(quiet, family.side)[1]

    def evaluation(model):
        jaxpr = jax.make_jaxpr(functools.partial(model.apply, train=False))(variables, x)
        return re.sub("0x[0-9a-f]+", "", str(jaxpr))

    assert evaluation(drops(quiet, family)) == evaluation(quiet)
    jax.eval_shape(functools.partial(train, quiet), variables, x)
    for rate in family.rates:
        model = dataclasses.replace(quiet, **{rate: 0.5})
        with pytest.raises(flax.errors.InvalidRngError):
            jax.eval_shape(functools.partial(train, model), variables, x)


@pytest.fixture(scope="module")
def evaluated(family, random_variables):
    """Outputs of the small network in evaluation, from one program."""
    model, x = family.small, images(family.side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GATES, "one", jnp.ones_like)
        models = {
            "logits": model,
            "maps": dataclasses.replace(model, features_only=True),
            "stages": dataclasses.replace(model, features_only=True, features_by="stage"),
            "low": dataclasses.replace(model, dtype=jnp.bfloat16),
            "attended": dataclasses.replace(model, attention=SE),
            "gate of one": dataclasses.replace(
                model, attention=dataclasses.replace(SE, gate="one")
            ),
        }
        variables = random_variables(models["attended"], x, False)
        plain = without_se(variables)

        @jax.jit
        def run(variables, plain, x):
            return {
                name: each.apply(variables if each.attention else plain, x, train=False)
                for name, each in models.items()
            }

        return jax.device_get(run(variables, plain, x)) | {"params": plain["params"]}


@every_family
def test_features_lead_to_the_logits(family, evaluated):
    head = evaluated["params"]["head"]
    assert np.isfinite(evaluated["logits"]).all()
    if family.small.head_modules == ("head",):
        for maps in (evaluated["maps"], evaluated["stages"]):
            logits = maps[max(maps)].mean(axis=(1, 2)) @ head["kernel"] + head["bias"]
            np.testing.assert_allclose(evaluated["logits"], logits, rtol=1e-4, atol=1e-5)


@every_family
def test_a_gate_of_one_changes_nothing(evaluated):
    logits = evaluated["logits"]
    np.testing.assert_allclose(evaluated["gate of one"], logits, rtol=1e-5, atol=1e-6)
    assert np.abs(evaluated["attended"] - logits).max() > 1e-3


@every_family
def test_bfloat16_is_near_float32(evaluated):
    logits = evaluated["logits"]
    assert 0 < np.abs(evaluated["low"] - logits).max() < 0.05 * np.abs(logits).max()


@pytest.fixture(scope="module")
def trained(family, random_variables):
    """Loss, statistics and gradients by a seed, without and with ``remat``, from one program."""
    x = images(family.side, n=8)
    model = drops(dataclasses.replace(family.small, attention=WIDE_SE), family)
    variables = random_variables(model, x, False)

    def loss(params, model, seed):
        state = {**variables, "params": params}
        logits, new = train(model, state, x, dropout=jax.random.key(seed))
        return jnp.sum(logits**2), new

    @jax.jit
    def run(seed):
        return [
            jax.value_and_grad(loss, has_aux=True)(variables["params"], each, seed)
            for each in (model, dataclasses.replace(model, remat=True))
        ]

    return lambda seed: jax.device_get(run(seed))


@every_trained
def test_gradients_are_finite_not_zero_and_those_of_remat(trained):
    expected, found = trained(7)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, expected
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected[0]))
    gradients = flatten_dict(expected[1])
    for path, gradient in gradients.items():
        assert np.isfinite(gradient).all(), path
        # A batch norm takes the bias of the convolution before it away again.
        cancelled = path[-2:] == ("conv", "bias") and (*path[:-2], "bn", "scale") in gradients
        assert np.any(gradient != 0) or cancelled, path


@every_trained
def test_training_is_a_function_of_the_key(trained):
    (first, _), _ = trained(7)[0]
    (again, _), _ = trained(7)[0]
    (other, _), _ = trained(8)[0]
    assert first == again
    assert abs(first - other) > 1e-3 * abs(first)


@pytest.mark.parametrize(
    "family", [each for each in FAMILIES.values() if len(each.rates) > 1 or each.quiet]
)
def test_every_rate_drops_in_training(family, random_variables):
    x = images(family.side, n=8)
    quiet = dataclasses.replace(family.small, **dict(family.quiet))
    variables = random_variables(quiet, x, False)

    @jax.jit
    def run(key):
        return {
            rate: train(dataclasses.replace(quiet, **{rate: 0.5}), variables, x, dropout=key)[0]
            for rate in family.rates
        }

    first, other = (run(jax.random.key(seed)) for seed in (1, 2))
    for rate in family.rates:
        assert not np.allclose(first[rate], other[rate]), rate
