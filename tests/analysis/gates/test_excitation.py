import jax
import numpy as np
import pytest
from scipy import stats

from senet_jax.analysis.gates.excitation import Moments, read_gates
from senet_jax.analysis.gates.report import gates_csv, gates_markdown
from senet_jax.attention import (
    ECAConfig,
    SelectiveKernelConfig,
    SplitAttentionConfig,
    SqueezeExciteConfig,
)


@pytest.fixture
def whole(pixels):
    """The gates of all images at once, as the network sows them."""

    def gates(member):
        _, state = jax.jit(
            lambda x: member.model.apply(
                member.variables, x, train=False, mutable=["intermediates"]
            )
        )(pixels)
        leaves = jax.tree_util.tree_leaves_with_path(state["intermediates"])
        return [np.asarray(leaf) for path, leaf in leaves if path[-2].key == "gate"]

    return gates


@pytest.mark.parametrize(
    ("attention", "devices"),
    [
        (SqueezeExciteConfig(), 8),
        (SqueezeExciteConfig(squeeze="none", gate="tanh"), 1),
        (ECAConfig(), 1),
        (SelectiveKernelConfig(), 1),
        (SplitAttentionConfig(), 1),
    ],
    ids=["se", "by pixel", "eca", "sk", "split"],
)
def test_streamed_over_devices_is_numpy_on_the_whole_array(
    network, probe, images, whole, attention, devices
):
    probe = probe(network(attention=attention), devices)
    labels = images.labels
    for g, gate in zip(read_gates(probe), whole(probe.member), strict=True):
        by_pixel = gate.shape[1:3] != (1, 1)
        assert g.block.by_pixel == by_pixel == (getattr(attention, "squeeze", "") == "none")
        of_images = gate.astype(np.float64).mean(axis=(1, 2))
        assert g.block.shape == of_images.shape[1:]
        np.testing.assert_array_equal(g.count, np.bincount(labels, minlength=4))
        for label in (0, 1, 3):
            of_class = of_images[labels == label]
            np.testing.assert_allclose(g.class_mean[label], of_class.mean(0), atol=1e-6)
            np.testing.assert_allclose(g.class_std[label], of_class.std(0), atol=1e-6)
        assert np.isnan(g.class_mean[2]).all()
        np.testing.assert_allclose(g.mean, of_images.mean(0), atol=1e-6)
        np.testing.assert_allclose(g.std, of_images.std(0), atol=1e-6)
        assert g.shut == pytest.approx((np.abs(gate) < 0.05).mean(), abs=1e-3)
        assert g.open == pytest.approx((np.abs(gate) > 0.95).mean(), abs=1e-3)


def test_what_leaves_the_attention_is_gate_times_input(network, probe, pixels):
    probe = probe(network(placement="post"))
    member = probe.member
    capture = {"capture_intermediates": True, "mutable": ["intermediates"]}
    _, state = jax.jit(lambda x: member.model.apply(member.variables, x, train=False, **capture))(
        pixels
    )
    # After the last attention nothing follows in a block.
    output = state["intermediates"]["stage3"]["block2"]["__call__"][0]
    expected = np.abs(output).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(read_gates(probe)[-1].output, expected, rtol=1e-4)


def test_moments_of_any_batches_lose_nothing_to_a_large_mean():
    rng = np.random.default_rng(0)
    values = 1e6 + 1e-3 * rng.standard_normal((1000, 3))
    labels = rng.integers(0, 5, 1000)
    moments = Moments(5, (3,))
    for part in np.split(np.arange(1000), [1, 2, 40, 700]):
        moments.add(values[part], labels[part])
    for label in range(5):
        of_class = values[labels == label]
        # In float64 the deviations of such values are themselves exact to about 1e-7 of them.
        variance = (of_class - 1e6).var(axis=0)
        np.testing.assert_allclose(moments.squares[label] / len(of_class), variance, rtol=1e-6)


def test_class_share_is_epsilon_squared_of_anova(network, probe, images, whole):
    probe = probe(network(blocks=(1,), widths=(16,)))
    (g,) = read_gates(probe)
    (gate,) = whole(probe.member)
    labels, there = images.labels, np.unique(images.labels)
    between, total = 0.0, 0.0
    for values in gate[:, 0, 0].T.astype(np.float64):
        f = stats.f_oneway(*(values[labels == label] for label in there)).statistic
        squares = np.square(values - values.mean()).sum()
        freedom = len(there) - 1, len(labels) - len(there)
        within = squares / (1 + f * freedom[0] / freedom[1])
        between += squares - within - freedom[0] * within / freedom[1]
        total += squares
    assert g.specificity == pytest.approx(between / total, abs=1e-4)
    assert 0.3 < g.specificity < 1


def test_class_share_of_labels_by_chance_is_nothing(network, probe, images):
    np.random.default_rng(1).shuffle(images.labels)
    (g,) = read_gates(probe(network(blocks=(1,), widths=(16,))))
    plain = (g.between / (g.between + g.within)).mean()
    assert abs(g.specificity) < 0.12
    assert plain > g.specificity + 0.02


def test_tables_have_a_line_for_each_block_and_channel(network, probe):
    gates = read_gates(probe(network(attention=SelectiveKernelConfig())))
    text = gates_markdown(gates)
    head, _, *rows = text.partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (head, *rows)]
    assert {len(row) for row in cells} == {9}
    assert [row[:3] for row in cells[1:]] == [
        ["stage2/block1", "2 x 16", "0.500"],
        ["stage3/block1", "2 x 24", "0.500"],
        ["stage3/block2", "2 x 24", "0.500"],
    ]
    assert "Gates of 50 images of 3 classes." in text
    assert "weights of paths" in text
    lines = gates_csv(gates)
    assert len(lines) == 1 + 2 * (16 + 24 + 24)
    assert lines[1][:4] == ("stage2/block1", 2, 0, 0)
    assert lines[17][:5] == ("stage2/block1", 2, 1, 0, gates[0].mean[1, 0])
