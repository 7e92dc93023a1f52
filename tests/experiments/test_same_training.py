"""Training is right beside the logits too: it is what PyTorch computes, step by step."""

import importlib.util

import numpy as np
import pytest

from experiments.benchmarks.same_training import ORDER, TORCH, SameTraining, _biased, compare, draw


def test_a_running_variance_is_converted_as_its_batches_are():
    rng = np.random.default_rng(0)
    count, steps, momentum = 6, 5, 0.9
    batches = rng.normal(2, 3, (steps, count))
    biased = unbiased = 1.0
    for batch in batches:
        biased = momentum * biased + (1 - momentum) * batch.var()
        unbiased = momentum * unbiased + (1 - momentum) * batch.var(ddof=1)
    assert abs(biased - unbiased) > 0.1
    assert _biased(np.array(unbiased), count, steps) == pytest.approx(biased, rel=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="waits for torch")
def test_two_hundred_steps_are_those_of_pytorch(tmp_path):
    rows = compare(SameTraining())
    exact = [row for row in rows if row["precision"] == "float64"]
    assert [row["against"] for row in exact] == [TORCH, TORCH]
    assert len(exact[0]["differences"]) == 200
    assert max(row["largest difference of a loss"] for row in exact) < 1e-12
    assert max(row["of the final weights"] for row in exact) < 1e-12
    assert all(row["last loss"] < row["first loss"] for row in rows)
    # Float32 comes apart by the rounding of sums, within senet_jax as between the two.
    assert {row["against"] for row in rows if row["precision"] == "float32"} == {TORCH, ORDER}
    draw(rows, tmp_path / "differences.png")
    assert (tmp_path / "differences.png").stat().st_size > 10_000
