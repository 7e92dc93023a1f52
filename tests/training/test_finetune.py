import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util

from senet_jax.config import ModelConfig
from senet_jax.errors import UsageError
from senet_jax.interchange import save_weights
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.loop import train
from senet_jax.training.run import Run


def flat(tree):
    return {k: np.asarray(v) for k, v in traverse_util.flatten_dict(tree, sep="/").items()}


@pytest.fixture
def weights(tiny, tmp_path):
    """A file of weights, and what is in it."""
    variables = Run(dataclasses.replace(tiny, seed=5)).fresh_state().eval_variables
    fields = {"num_classes": 10, "dropout": 0.1}
    save_weights(tmp_path / "w.npz", "tiny", variables, channels=1, **fields)
    return tmp_path / "w.npz", variables


def one_step(config):
    """Parameters before and after a step."""
    run = Run(config)
    state = run.fresh_state()
    before = flat(state.params)
    batch = meshes.to_devices(run.batches[0][0], run.mesh)
    return before, flat(run.train_step(state, batch)[0].params)


def without_warmup(config):
    return dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, warmup_epochs=0)
    )


def test_a_run_starts_from_the_weights_average_and_all(tiny, weights):
    file, variables = weights
    state = Run(dataclasses.replace(tiny, init_weights=str(file))).fresh_state()
    got = {"params": state.params, "batch_stats": state.batch_stats}
    for expected, a, b in zip(*map(jax.tree.leaves, (variables, got, state.ema)), strict=True):
        np.testing.assert_array_equal(a, expected)
        np.testing.assert_array_equal(b, expected)


def test_frozen_parameters_stay_to_the_bit_and_the_others_move(tiny):
    config = dataclasses.replace(without_warmup(tiny), frozen=("stem/*", "*/conv2/*"))
    before, after = one_step(config)
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    frozen = {path for path in before if path.startswith("stem/") or "/conv2/" in path}
    assert frozen
    assert not moved & frozen
    assert {path for path in before if path.endswith("kernel")} - frozen <= moved


def test_the_body_learns_at_its_own_rate(tiny):
    tiny = without_warmup(tiny)
    before, full = one_step(tiny)
    _, slow = one_step(dataclasses.replace(tiny, body_rate=0.25))
    for path, start in before.items():
        rate = 1 if path.startswith("head/") else 0.25
        moved = rate * (full[path] - start)
        np.testing.assert_allclose(slow[path] - start, moved, rtol=2e-3, atol=1e-7)


def test_a_frozen_run_resumes_like_any_other(tiny, weights):
    config = dataclasses.replace(tiny, init_weights=str(weights[0]), frozen=("stem/*",))
    last = train(config)
    # Finished: the file of the weights is not needed any more.
    weights[0].unlink()
    assert train(config) == last


def test_the_head_can_be_dropped(tiny, weights):
    config = dataclasses.replace(tiny, init_weights=str(weights[0]), drop_head=True)
    state = Run(config).fresh_state()
    got, source = flat(state.params), flat(weights[1]["params"])
    same = {path for path in got if np.array_equal(got[path], source[path])}
    assert "head/kernel" not in same
    assert {path for path in got if not path.startswith("head/")} <= same


def test_weights_are_evaluated_as_the_run_would(tiny, weights):
    file, variables = weights
    expected = Run(tiny).evaluate(variables)
    run = Run(dataclasses.replace(tiny, init_weights=str(file)))
    assert run.evaluate(run.init_variables) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frozen": ("stm/*",)}, r"no parameter matches 'stm/\*'"),
        ({"init_weights": "nowhere.npz"}, "no such file"),
        ({"drop_head": True}, "--init-weights"),
        ({"body_rate": -1.0}, "body_rate"),
        ({"model": ModelConfig(name="cifar_resnet8")}, "the weights do not fit cifar_resnet8"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tiny, weights, change, message):
    if "model" in change:
        change = {**change, "init_weights": str(weights[0])}
    with pytest.raises(UsageError, match=message):
        train(dataclasses.replace(tiny, **change))
    assert not tiny.run_dir.exists()
