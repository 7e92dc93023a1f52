import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.analysis.blocks import constant, find_blocks, replacing
from senet_jax.attention import ATTENTIONS, SelectiveKernelConfig, SplitAttentionConfig
from senet_jax.errors import UsageError
from senet_jax.models.cost import cost
from senet_jax.models.zoo import create_model


def test_parameters_of_gates_are_what_the_network_has_more_than_the_plain_one():
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
    assert sum(block.params for block in blocks) == whole - plain
    kept = cost(model.clone(stages=(2, 3, 4)), side).params
    assert sum(block.params for block in blocks if block.stage < 5) == kept - plain == 951_600
    # What is left of the extra parameters without those of the last stage.
    assert f"{(kept - plain) / plain:.1%}" == "3.7%"


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_every_attention_passes_its_gate_where_it_is_found(network, kind):
    model = network(attention=ATTENTIONS[kind]())
    blocks = find_blocks("it", model, (8, 8, 1))
    assert [(b.name, b.stage) for b in blocks] == [
        ("stage2/block1", 2),
        ("stage3/block1", 3),
        ("stage3/block2", 3),
    ]
    assert [b.shape[-1] for b in blocks] == [16, 24, 24]
    own = model.clone(stages=(2,))
    assert [b.stage for b in find_blocks("it", own, (8, 8, 1))] == [2]
    paths = len(blocks[0].shape) > 1
    assert paths == (kind in ("sk", "split"))
    if not paths:
        plain = cost(network(attention=None), 8, 1).params
        assert sum(b.params for b in blocks) == cost(model, 8, 1).params - plain > 0


def test_names_are_those_of_other_families_too():
    blocks = find_blocks("vgg", create_model("se_vgg11_bn"), (32, 32, 3))
    assert [block.name for block in blocks[2:4]] == ["stage3/layer1", "stage3/layer2"]


def applied(model, variables, images, gates):
    with replacing(gates):
        return np.asarray(jax.jit(lambda x: model.apply(variables, x, train=False))(images))


@pytest.mark.parametrize("placement", ["standard", "pre", "post", "identity"])
def test_a_gate_of_one_is_the_network_without_attention(
    network, random_variables, pixels, placement
):
    model = network(placement=placement)
    variables = random_variables(model, pixels[:1], False)
    ones = {block.path: jnp.ones_like for block in find_blocks("it", model, (8, 8, 1))}
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
    module = attention.build_conv(6)
    x = np.repeat(pixels, 4, axis=-1)
    variables = random_variables(module, x[:1], False)

    def with_weights(*weights):
        value = jnp.asarray(weights)[:, None]
        return applied(module, variables, x, {(): lambda gate: jnp.broadcast_to(value, gate.shape)})

    first, second = with_weights(1.0, 0.0), with_weights(0.0, 1.0)
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_allclose(with_weights(0.5, 0.25), first / 2 + second / 4, atol=1e-5)


def test_the_neutral_gate_weights_paths_alike(network):
    (block, *_) = find_blocks("it", network(attention=SelectiveKernelConfig()), (8, 8, 1))
    np.testing.assert_array_equal(block.neutral, np.full((2, 16), 0.5, np.float32))
    (block, *_) = find_blocks("it", network(), (8, 8, 1))
    np.testing.assert_array_equal(constant(block.neutral).value, np.ones(16, np.float32))


def test_a_network_without_attention_is_refused(network):
    with pytest.raises(UsageError, match="it has no attention, so no gate to look at: give"):
        find_blocks("it", network(attention=None), (8, 8, 1))
