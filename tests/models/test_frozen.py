"""Batch norms with frozen statistics, by stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import FAMILIES
from flax.traverse_util import flatten_dict

from senet_jax import SqueezeExciteConfig
from senet_jax.models.resnet import ResNet
from senet_jax.models.segmentation.segmenter import FCN

KEY = jax.random.key(0)


def training(model, variables, x):
    rngs = {"dropout": KEY}
    return model.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"])


def kept(model, side, n=4):
    """The paths of the statistics that a training step returns as they were, and all paths."""
    x = jax.ShapeDtypeStruct((n, side, side, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(KEY, x, train=False), x)

    def run(stats, params, x):
        return training(model, {"params": params, "batch_stats": stats}, x)[1]["batch_stats"]

    jaxpr = jax.make_jaxpr(run)(variables["batch_stats"], variables["params"], x).jaxpr
    paths = list(flatten_dict(variables["batch_stats"], sep="/"))
    assert len(jaxpr.outvars) == len(paths)
    pairs = zip(paths, jaxpr.outvars, jaxpr.invars, strict=False)
    return {path for path, after, before in pairs if origin(jaxpr, after) is before}, set(paths)


def origin(jaxpr, variable):
    """The variable that one is a copy of, through the calls that only pass it on."""
    for equation in jaxpr.eqns:
        inner = equation.params.get("jaxpr")
        if inner is not None and variable in equation.outvars:
            inner = getattr(inner, "jaxpr", inner)
            result = inner.outvars[equation.outvars.index(variable)]
            passed = origin(inner, result)
            if passed in inner.invars:
                return origin(jaxpr, equation.invars[inner.invars.index(passed)])
    return variable


@pytest.mark.parametrize("remat", [False, True], ids=["kept", "remat"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_statistics_of_the_frozen_stages_stay(family, remat):
    backbone = family.model.clone(attention=SqueezeExciteConfig(reduction=2), remat=remat)
    last = backbone.stage_numbers[-1]
    frozen = tuple(sorted({1, *backbone.stage_numbers} - {last})) if remat else (last,)
    model = FCN(backbone=backbone, num_classes=3, frozen_norms=frozen)
    same, every = kept(model, max(family.side, 8))
    of_backbone = {path for path in every if path.startswith("backbone/")}
    stage_of = {path: backbone.stage_of(path.split("/")[1]) for path in of_backbone}
    assert same == {path for path in of_backbone if stage_of[path] in frozen}
    assert not stage_of or last in stage_of.values()


def test_a_frozen_stage_normalizes_as_in_evaluation(random_variables):
    backbone = ResNet(
        blocks=(1, 1),
        widths=(4, 8),
        stem_width=4,
        stem="cifar",
        attention=SqueezeExciteConfig(width=4),
        features_only=True,
        features_by="stage",
    )
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype(np.float32)
    frozen = FCN(backbone=backbone, num_classes=3, frozen_norms=(1, 2, 3))
    variables = random_variables(frozen, x, False)
    of_backbone = {kind: leaves["backbone"] for kind, leaves in variables.items()}

    @jax.jit
    def run(variables, of_backbone):
        _, state = frozen.apply(
            variables,
            x,
            train=True,
            rngs={"dropout": KEY},
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=True,
        )
        return state["intermediates"]["backbone"]["__call__"][0], backbone.apply(
            of_backbone, x, train=False
        )

    found, expected = run(variables, of_backbone)
    for stage in (2, 3):
        np.testing.assert_allclose(found[stage], expected[stage], rtol=1e-4, atol=1e-5)


def test_scales_and_biases_of_a_frozen_stage_learn(random_variables):
    backbone = ResNet(blocks=(1, 1), widths=(4, 8), stem_width=4, stem="cifar")
    model = FCN(backbone=backbone, num_classes=3, frozen_norms=(1, 2, 3))
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype(np.float32)
    variables = random_variables(model, x, False)

    @jax.jit
    def gradients(params):
        def loss(params):
            return jnp.sum(training(model, {**variables, "params": params}, x)[0]["out"] ** 2)

        return jax.grad(loss)(params)

    found = flatten_dict(gradients(variables["params"])["backbone"])
    scales = [gradient for path, gradient in found.items() if path[-1] == "scale"]
    assert len(scales) >= 7
    assert all(np.any(gradient != 0) for gradient in scales)
