import json

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.inference.average import batch_norm_statistics
from senet_jax.inference.trained import open_run, restore_run
from senet_jax.interchange import load_weights
from senet_jax.network import normalize


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


def tiny_weights(file):
    return flat(load_weights(file, "tiny", channels=1, num_classes=10))


def test_the_average_is_the_mean_of_what_is_evaluated(command, digits, tmp_path):
    out = tmp_path / "average.safetensors"
    code, said, _ = command("average", digits, "--out", out)
    assert code == 0
    assert "of 2 checkpoints" in said
    parts = [flat(restore_run(digits / "checkpoints" / step)[2]) for step in ("11", "22")]
    for name, leaf in tiny_weights(out).items():
        expected = np.mean([np.asarray(part[name], np.float64) for part in parts], axis=0)
        np.testing.assert_allclose(leaf, expected, rtol=1e-6)
        assert not np.array_equal(leaf, parts[0][name]) or np.array_equal(*[p[name] for p in parts])
    evaluation = said.splitlines()[1].split()
    assert evaluation[:2] == ["senet-jax", "evaluate"]
    code, measured, _ = command(*evaluation[1:], "--json")
    assert code == 0
    assert json.loads(measured)["val/count"] == 360


def test_the_newest_of_a_run_and_one_by_its_name(command, digits, tmp_path):
    out = tmp_path / "average.npz"
    command("average", digits, "--last", "1", "--out", out)
    newest = flat(restore_run(digits)[2])
    assert all(np.array_equal(leaf, newest[name]) for name, leaf in tiny_weights(out).items())
    _, said, _ = command("average", digits / "checkpoints" / "11", digits, "--out", out)
    assert "of 3 checkpoints" in said


def test_statistics_are_those_of_the_training_batches(command, digits, tmp_path):
    out = tmp_path / "swa.npz"
    code, said, _ = command("average", digits, "--bn-batches", "2", "--out", out)
    assert code == 0
    assert "taken over 2 training batches" in said
    found = tiny_weights(out)
    run, _, _ = open_run(digits, with_data=True)
    # The first batch norm sees the stem's output alone: no attention and no other norm before it.
    means, variances = [], []
    for step in range(2):
        images = normalize(jnp.asarray(run.preview(step).images), run.network.normalization)
        kernel = found["params/stem/conv/kernel"]
        maps = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        means.append(np.mean(maps, axis=(0, 1, 2)))
        variances.append(np.var(maps, axis=(0, 1, 2)))
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(found["batch_stats/stem/bn/mean"], np.mean(means, 0), **close)
    np.testing.assert_allclose(found["batch_stats/stem/bn/var"], np.mean(variances, 0), **close)


def test_what_cannot_be_averaged_is_refused(refused, digits, tmp_path):
    assert "average RUN --bn-batches N" in refused("evaluate", digits, "--bn-batches", "2")
    assert "--last: must be at least 1" in refused("average", digits, "--last", "0")
    assert "no checkpoint 7" in refused("average", digits / "checkpoints" / "7")
    assert "22 batches can be had" in refused("average", digits, "--bn-batches", "1000")
    nowhere = refused("average", digits, "--out", tmp_path / "nowhere" / "a.npz")
    assert "does not exist" in nowhere


@pytest.mark.parametrize("batches", [0, 23])
def test_so_many_batches_as_there_are(digits, batches):
    run, _, _ = open_run(digits, with_data=True)
    with pytest.raises(ValueError, match="22 batches can be had at the most"):
        batch_norm_statistics(run, {"params": run.abstract.params}, batches)
