import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from senet_jax.analysis.gates.excitation import read_gates
from senet_jax.analysis.gates.pruning import prune
from senet_jax.analysis.gates.removal import remove_attention
from senet_jax.analysis.gates.sites import find_blocks, params_saved, replacing
from senet_jax.attention import (
    ATTENTIONS,
    Attention,
    Gated,
    SelectiveKernelConfig,
    SplitAttentionConfig,
    SqueezeExciteConfig,
)
from senet_jax.errors import UsageError
from senet_jax.models.backbone import Backbone
from senet_jax.models.cost import cost
from senet_jax.models.vgg import VGG
from senet_jax.models.zoo import create_model
from senet_jax.ops.compute import EVALUATION


def test_gates_have_the_parameters_beyond_a_small_plain_network():
    model, side = create_model("seresnet18"), 32
    blocks = find_blocks("seresnet18", model, (side, side, 3))
    assert len(blocks) == 8
    plain = cost(create_model("resnet18"), side).params
    assert params_saved(blocks, blocks) == cost(model, side).params - plain > 0


@pytest.mark.slow
def test_gates_have_the_parameters_beyond_the_plain_network():
    model, side = create_model("seresnet50"), 32
    blocks = find_blocks("seresnet50", model, (side, side, 3))
    assert [block.name for block in blocks[:4]] == [
        "stage2/block1",
        "stage2/block2",
        "stage2/block3",
        "stage3/block1",
    ]
    plain, whole = cost(create_model("resnet50"), side).params, cost(model, side).params
    assert (plain, whole) == (25_557_032, 28_088_024)
    assert params_saved(blocks, blocks) == whole - plain
    kept = cost(model.clone(stages=(2, 3, 4)), side).params
    earlier = [block for block in blocks if block.stage < 5]
    assert params_saved(blocks, earlier) == kept - plain == 951_600
    # The share of extra parameters that is left without those of the last stage.
    assert f"{(kept - plain) / plain:.1%}" == "3.7%"


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_every_attention_passes_its_gate_where_it_is_found(network, kind):
    model = network(attention=ATTENTIONS[kind]())
    found = find_blocks("it", model, (8, 8, 1))
    blocks = [block for block in found if block.place[1] == "gate"]
    assert [(b.name, b.stage) for b in blocks] == [
        ("stage2/block1", 2),
        ("stage3/block1", 3),
        ("stage3/block2", 3),
    ]
    assert [b.shape[-1] for b in blocks] == [16, 24, 24]
    own = model.clone(stages=(2,))
    assert {b.stage for b in find_blocks("it", own, (8, 8, 1))} == {2}
    paths = len(blocks[0].shape) > 1
    assert paths == (kind in ("sk", "split"))
    np.testing.assert_array_equal(blocks[0].neutral, np.full(blocks[0].shape, 0.5 if paths else 1))
    if not paths:
        plain = cost(network(attention=None), 8, 1).params
        assert params_saved(found, found) == cost(model, 8, 1).params - plain


@dataclasses.dataclass(frozen=True)
class Twice(Attention):
    """A gate for each channel and then one for each pixel."""

    name = "twice"

    def build(self, compute):
        return TwiceModule(name="twice")


class TwiceModule(Gated):
    @nn.compact
    def __call__(self, x):
        squeezed = x.mean(axis=(1, 2), keepdims=True)
        x = x * self.expose_gate(nn.sigmoid(nn.Dense(x.shape[-1], name="channels")(squeezed)))
        return x * self.expose_gate(nn.sigmoid(nn.Dense(1, name="pixels")(x)), "spatial_gate")


def test_two_gates_of_one_attention_are_told_apart(network, probe):
    probe = probe(network(blocks=(1,), widths=(16,), attention=Twice()))
    first, second = probe.blocks
    assert (first.name, first.shape, first.by_pixel) == ("stage2/block1", (16,), False)
    assert (second.name, second.shape) == ("stage2/block1/spatial_gate", (1,))
    assert second.by_pixel
    saved = [params_saved(probe.blocks, [block]) for block in (first, second)]
    assert saved == [16 * 16 + 16, 16 + 1]
    gates = read_gates(probe)
    report = remove_attention(probe, gates)
    assert report.rows[0].params == 16 * 17 + 17
    # A single gate leaves no choice of channels.
    assert {row.channels for row in prune(probe, gates, [second.name], (50,)).rows} == {8}


@dataclasses.dataclass(frozen=True)
class Shared(Attention):
    """A gate for each row and one for each column, with a layer in common."""

    name = "shared"

    def build(self, compute):
        return SharedModule(name="shared")


class SharedModule(Gated):
    @nn.compact
    def __call__(self, x):
        hidden = nn.Dense(4, name="reduce")
        rows, columns = (hidden(x.mean(axis=axis, keepdims=True)) for axis in (2, 1))
        x = x * self.expose_gate(nn.sigmoid(nn.Dense(x.shape[-1], name="rows")(rows)))
        gate = nn.sigmoid(nn.Dense(x.shape[-1], name="columns")(columns))
        return x * self.expose_gate(gate, "column_gate")


def test_a_layer_of_two_gates_counts_once_and_stays_for_one(network, probe):
    probe = probe(network(blocks=(1,), widths=(16,), attention=Shared()))
    rows, columns = probe.blocks
    layer, gate = 16 * 4 + 4, 4 * 16 + 16
    assert params_saved(probe.blocks, probe.blocks) == layer + 2 * gate
    assert params_saved(probe.blocks, [rows]) == params_saved(probe.blocks, [columns]) == gate
    report = remove_attention(probe, read_gates(probe))
    assert report.plain_params == probe.params - layer - 2 * gate
    assert [row.params for row in report.rows] == [layer + 2 * gate, gate, gate]


def test_names_are_those_of_other_families_too():
    model = VGG(blocks=(1, 2), widths=(4, 6), attention=SqueezeExciteConfig(reduction=2))
    blocks = find_blocks("vgg", model, (8, 8, 1))
    assert [(block.name, block.stage, block.place[0][-1]) for block in blocks] == [
        ("stage1/layer1", 1, "se"),
        ("stage2/layer1", 2, "se"),
        ("stage2/layer2", 2, "se"),
    ]


def applied(model, variables, images, gates):
    arguments = {"train": False} if isinstance(model, Backbone) else {}
    with replacing(gates):
        return np.asarray(jax.jit(lambda x: model.apply(variables, x, **arguments))(images))


@pytest.mark.parametrize("placement", ["standard", "pre", "post", "identity"])
def test_a_gate_of_one_is_the_network_without_attention(
    network, random_variables, pixels, placement
):
    model = network(placement=placement)
    variables = random_variables(model, pixels[:1], False)
    ones = {block.place: jnp.ones_like for block in find_blocks("it", model, (8, 8, 1))}
    plain = network(attention=None).apply(without(variables, "se"), pixels, train=False)
    said = applied(model, variables, pixels, ones)
    np.testing.assert_allclose(said, plain, rtol=1e-4, atol=1e-4)
    own = model.apply(variables, pixels, train=False)
    assert np.abs(own - plain).max() > 0.01


def without(tree, name):
    """A tree of dictionaries without the entries of a name."""
    if not isinstance(tree, dict):
        return tree
    return {key: without(value, name) for key, value in tree.items() if key != name}


@pytest.mark.parametrize("attention", [SelectiveKernelConfig(), SplitAttentionConfig()])
def test_weights_of_paths_are_replaced_each_for_itself(random_variables, pixels, attention):
    module = attention.build_conv(6, EVALUATION)
    x = np.repeat(pixels, 4, axis=-1)
    variables = random_variables(module, x[:1])

    def with_weights(*weights):
        value = jnp.asarray(weights)[:, None]
        return applied(
            module, variables, x, {((), "gate"): lambda gate: jnp.broadcast_to(value, gate.shape)}
        )

    first, second = with_weights(1.0, 0.0), with_weights(0.0, 1.0)
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_allclose(with_weights(0.5, 0.25), first / 2 + second / 4, atol=1e-5)


def test_a_network_without_attention_is_refused(network):
    with pytest.raises(UsageError, match="it has no attention, so no gate to look at: give"):
        find_blocks("it", network(attention=None), (8, 8, 1))
