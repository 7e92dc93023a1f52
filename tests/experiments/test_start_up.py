import pytest

from experiments.benchmarks import start_up
from experiments.benchmarks.harness.worktree import ROOT


def test_both_trees_are_timed_without_the_first_round():
    row = start_up.compare(ROOT, ROOT, "models --help", rounds=1)
    assert row["seconds"].pairs == row["CPU seconds"].pairs == len(row["runs"]["now"]) == 1
    assert 0.01 < row["CPU seconds"].median < 100
    assert row["s"] == row["runs"]["now"][0] > 0.01


def test_a_command_that_fails_is_an_error(capfd):
    with pytest.raises(RuntimeError, match="`senet-jax models --hlp` failed in "):
        start_up.timed(ROOT, "models --hlp")
    assert "unknown argument" in capfd.readouterr().err
