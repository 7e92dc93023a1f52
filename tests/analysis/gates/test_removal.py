import numpy as np
import pytest
from by_hand import answers, edited

from senet_jax.analysis.gates.excitation import read_gates
from senet_jax.analysis.gates.removal import (
    increase,
    removal_csv,
    removal_markdown,
    remove_attention,
)
from senet_jax.analysis.gates.sites import constant
from senet_jax.errors import UsageError
from senet_jax.models.cost import cost


def test_a_removed_stage_equals_a_network_that_never_had_it(network, probe, images, pixels):
    model = network()
    probe = probe(model)
    member = probe.member
    report = remove_attention(probe, read_gates(probe))
    assert [row.what for row in report.rows] == [
        "stage 2",
        "stage 3",
        "stage3/block1",
        "stage3/block2",
        "all",
    ]
    plain = cost(network(attention=None), 8, 1).params
    assert (report.params, report.plain_params) == (cost(model, 8, 1).params, plain)
    for row, kept in ((report.rows[0], (3,)), (report.rows[1], (2,))):
        left = model.clone(stages=kept)
        assert report.gate_params - row.params == cost(left, 8, 1).params - plain
        gone = f"stage{5 - kept[0]}"
        variables = edited(
            member.variables,
            lambda path, leaf, gone=gone: None if gone in path and "se" in path else leaf,
        )
        right, loss = answers(left, variables, pixels, images.labels)
        np.testing.assert_array_equal(row.neutral.right, right)
        np.testing.assert_allclose(row.neutral.loss, loss, rtol=1e-3, atol=1e-4)
    right, loss = answers(model, member.variables, pixels, images.labels)
    assert report.whole.error == pytest.approx(100 * (1 - right.mean()))
    np.testing.assert_allclose(report.whole.loss, loss, rtol=1e-3, atol=1e-4)
    assert np.abs(report.whole.loss - report.rows[0].neutral.loss).max() > 0.01


def test_a_mean_gate_is_a_bias_of_the_excitation(network, probe, images, pixels):
    model = network(blocks=(1, 1))
    probe = probe(model)
    gates = read_gates(probe)
    means = {f"stage{number}": g.mean for number, g in enumerate(gates, 2)}

    def edit(path, leaf):
        if "expand" not in path:
            return leaf
        mean = means[path[1]]
        return np.float32(np.log(mean / (1 - mean))) if "bias" in path else 0 * leaf

    right, loss = answers(model, edited(probe.member.variables, edit), pixels, images.labels)
    row = remove_attention(probe, gates).rows[-1]
    assert row.what == "all"
    np.testing.assert_array_equal(row.mean.right, right)
    np.testing.assert_allclose(row.mean.loss, loss, rtol=1e-3, atol=1e-4)


def test_the_table_says_what_is_saved_lost_and_how_sure_that_is(network, probe):
    probe = probe(network(blocks=(1, 1)))
    report = remove_attention(probe, read_gates(probe))
    row = report.rows[0]
    text = removal_markdown(report)
    left = report.gate_params - row.params
    assert f"| stage 2 | {row.params:,} | {left:,} ({left / report.plain_params:.1%} of" in text
    gap = increase(row.neutral, report.whole)
    differences = 100 * (np.float64(report.whole.right) - row.neutral.right)
    assert gap.mean == pytest.approx(row.neutral.error - report.whole.error)
    assert gap.std == pytest.approx(differences.std(ddof=1))
    assert f"| {row.neutral.error:.2f} | {gap.mean:+.2f} [{gap.low:.2f}, {gap.high:.2f}] |" in text
    lines = removal_csv(report)
    assert len(lines) == 2 + 2 * len(report.rows)
    assert lines[2][:5] == ("stage 2", row.params, left, "neutral", row.neutral.error)
    assert lines[2][6] == 50


def test_an_edit_of_a_block_that_is_not_there_is_refused(network, probe):
    probe = probe(network())
    with pytest.raises(UsageError, match="unknown block 'stage4/block1': did you mean stage3"):
        probe.answers([{"stage4/block1": constant(np.ones(24))}])
