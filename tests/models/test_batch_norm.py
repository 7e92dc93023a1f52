"""Batch norm in the blocks: attention joined to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from single_blocks import block

from senet_jax import ECAConfig, SqueezeExciteConfig, UsageError, create_model
from senet_jax.models.blocks import BasicBlock, Bottleneck
from senet_jax.ops.compute import Compute


def test_a_group_of_no_sample_is_refused():
    with pytest.raises(UsageError, match=r"norm_group must be at least 1, or None .*, not 0"):
        create_model("resnet18", norm_group=0)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Bottleneck, {}),
        (Bottleneck, {"attention": ECAConfig(), "compute": Compute(train=True, norm_group=2)}),
        (Bottleneck, {"placement": "conv3x3"}),
        (Bottleneck, {"compute": Compute(train=True, dtype=jnp.bfloat16)}),
        (BasicBlock, {}),
        (BasicBlock, {"relu_before_attention": True}),
    ],
)
def test_attention_joined_to_the_batch_norm_is_that_after_it(random_variables, kind, fields):
    x = np.random.default_rng(0).standard_normal((4, 5, 6, 8)).astype(np.float32)
    fields = {
        "attention": SqueezeExciteConfig(reduction=2),
        "compute": Compute(train=True),
        **fields,
    }
    joined, plain = (block(kind, 8, fused=fused, **fields) for fused in (True, False))
    variables = random_variables(plain, x)
    assert jax.tree.structure(random_variables(joined, x)) == jax.tree.structure(variables)

    def run(module):
        def loss(params, x):
            state = {**variables, "params": params}
            y, new = module.apply(state, x, mutable=["batch_stats", "intermediates"])
            return jnp.sum(jnp.sin(y.astype(jnp.float32))), (y.astype(jnp.float32), new)

        run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        return run(variables["params"], x)

    def close(found, expected):
        # bfloat16 has 8 bits, and the plain form rounds once more.
        tolerance = 0.1 if fields["compute"].dtype else 1e-5
        assert np.linalg.norm(found - expected) <= tolerance * max(1, np.linalg.norm(expected))

    found, expected = run(joined), run(plain)
    gates = jax.tree.leaves(expected[0][1][1]["intermediates"])
    assert [gate.shape for gate in gates] == [
        (4, 1, 1, x.shape[-1] if kind is BasicBlock or "placement" in fields else 32)
    ]
    jax.tree.map(close, found, expected)


def test_joined_attention_reads_nothing_for_its_squeeze():
    x = jnp.zeros((4, 5, 6, 32))

    def reductions(fused):
        se, compute = SqueezeExciteConfig(), Compute(train=True)
        module = block(Bottleneck, 8, compute=compute, attention=se, fused=fused)
        variables = module.init(jax.random.key(0), x)
        jaxpr = jax.make_jaxpr(lambda x: module.apply(variables, x, mutable="batch_stats"))(x)
        return sum(
            eqn.primitive.name == "reduce_sum" and eqn.invars[0].aval.ndim == 4
            for eqn in jaxpr.eqns
        )

    assert (reductions(True), reductions(False)) == (0, 1)
