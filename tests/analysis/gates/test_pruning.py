import numpy as np
import pytest
from by_hand import answers, edited

from senet_jax.analysis.gates.excitation import Gates, read_gates
from senet_jax.analysis.gates.pruning import (
    GATE,
    OUTPUT,
    RANDOM,
    SEEDS,
    lowest,
    prune,
    pruning_csv,
    pruning_markdown,
    rank,
)
from senet_jax.analysis.gates.sites import Block
from senet_jax.attention import SelectiveKernelConfig
from senet_jax.errors import UsageError


def test_the_lowest_are_shut_and_of_equal_ones_the_first():
    scores = np.array([0.3, 0.1, 0.2, 0.1, 0.9])
    assert lowest(scores, 20).tolist() == [False, True, False, False, False]
    assert lowest(scores, 50).tolist() == [False, True, False, True, False]
    assert lowest(scores, 100).all()
    assert lowest(scores.reshape(1, 5), 60).tolist() == [[False, True, True, True, False]]


def test_a_shut_channel_is_one_of_a_bias_far_below_zero(network, probe, images, pixels):
    model = network(blocks=(1, 1))
    probe = probe(model)
    gates = read_gates(probe)
    report = prune(probe, gates, ["stage3/block1"], (25, 100))
    assert [(row.what, row.percent, row.channels) for row in report.rows] == [
        ("all", 25, 10),
        ("all", 100, 40),
        ("stage3/block1", 25, 6),
        ("stage3/block1", 100, 24),
    ]
    for ranking, score in ((GATE, gates[1].mean), (OUTPUT, gates[1].output)):
        gone = np.argsort(score)[:6]

        def edit(path, leaf, gone=gone):
            if path[1] != "stage3" or "expand" not in path:
                return leaf
            # The sigmoid of -200 is 0.
            return np.where(np.isin(np.arange(24), gone), -200 * ("bias" in path), leaf)

        right, loss = answers(model, edited(probe.member.variables, edit), pixels, images.labels)
        (said,) = report.rows[2].answers[ranking]
        np.testing.assert_array_equal(said.right, right)
        np.testing.assert_allclose(said.loss, loss, rtol=1e-3, atol=1e-4)
    # Without a channel left there is no choice.
    losses = [one.loss for of in report.rows[3].answers.values() for one in of]
    assert len(losses) == 2 + SEEDS
    for loss in losses:
        np.testing.assert_array_equal(loss, losses[0])


def gates_of(name, class_mean):
    block = Block(name, (("se",), "gate"), 2, class_mean.shape[1:], False, {})
    count = np.ones(len(class_mean), int)
    return Gates(block, count, class_mean, 0 * class_mean, 0.0, 0.0, np.ones(class_mean.shape[1]))


def test_the_control_is_random_seeded_and_of_each_block_another():
    first, second = (gates_of(name, np.ones((2, 16))) for name in ("block1", "block2"))
    np.testing.assert_array_equal(rank(first, RANDOM, 0), rank(first, RANDOM, 0))
    assert len({(*rank(first, RANDOM, seed).argsort(),) for seed in range(SEEDS)}) == SEEDS
    assert (rank(first, RANDOM).argsort() != rank(second, RANDOM).argsort()).any()


def test_gates_that_may_be_negative_are_ranked_by_magnitude():
    g = gates_of("block1", np.array([[0.1, -0.8, 0.3], [0.1, -0.6, -0.5]]))
    np.testing.assert_allclose(rank(g, GATE), [0.1, 0.7, 0.1])


def test_tables_and_weights_of_paths(network, probe):
    probe = probe(network(blocks=(1,), widths=(16,), attention=SelectiveKernelConfig()))
    report = prune(probe, read_gates(probe), (), (50,))
    (row,) = report.rows
    assert (row.what, row.channels) == ("all", 16)
    assert set(row.answers) == {GATE, RANDOM}
    errors = [one.error for one in row.answers[RANDOM]]
    text = pruning_markdown(report)
    spread = f"{np.mean(errors):.2f} [{min(errors):.2f}, {max(errors):.2f}]"
    assert f"| all | 16 (50 %) | {row.answers[GATE][0].error:.2f} |  | {spread} |" in text
    lines = pruning_csv(report)
    assert len(lines) == 2 + 1 + SEEDS
    assert lines[-1][:6] == ("all", 50, 16, RANDOM, SEEDS - 1, errors[-1])


@pytest.mark.parametrize("percent", [0, -1, 101, float("nan")])
def test_a_share_that_is_none_is_refused(percent):
    with pytest.raises(UsageError, match="a share of channels must be above 0 and at most 100 %"):
        prune(None, [], (), (percent,))
