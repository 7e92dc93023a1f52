import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from senet_jax.config import MeshConfig
from senet_jax.data.normalization import Normalization
from senet_jax.data.sources import ArraySource
from senet_jax.errors import UsageError
from senet_jax.network import Network
from senet_jax.tasks.classification import Classification
from senet_jax.training.distributed.mesh import make_mesh
from senet_jax.training.evaluate import eval_groups, evaluate
from senet_jax.training.run import Run
from senet_jax.training.step import make_eval_step


@pytest.mark.parametrize(("devices", "size"), [(1, 360), (1, 100), (8, 7), (8, 200)])
def test_every_image_counts_once_whatever_the_batch(tiny, devices, size):
    data = dataclasses.replace(tiny.data, eval_batch_size=size)
    run = Run(dataclasses.replace(tiny, mesh=MeshConfig(devices), data=data))
    state = run.fresh_state()
    result = run.evaluate(state.eval_variables)

    val = run.dataset.val
    images = jnp.float32((val.images / 255 - 0.305) / 0.376)
    logits = run.model.apply(jax.device_get(state.eval_variables), images, train=False)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    assert result["val/count"] == 360
    assert result["val/top1"] == pytest.approx((log_p.argmax(-1) == val.labels).mean(), abs=1e-9)
    place = (log_p > log_p[np.arange(360), val.labels][:, None]).sum(-1)
    assert result["val/top5"] == pytest.approx((place < 5).mean(), abs=1e-9)
    assert result["val/loss"] == pytest.approx(-log_p[np.arange(360), val.labels].mean(), rel=1e-5)
    assert result.keys() == {"val/loss", "val/top1", "val/top5", "val/count"}


@pytest.mark.parametrize(
    ("devices", "size", "padded"), [(1, 500, 360), (8, 500, 360), (8, 361, 360), (8, 100, 104)]
)
def test_a_batch_is_no_larger_than_the_split(tiny, devices, size, padded):
    data = dataclasses.replace(tiny.data, eval_batch_size=size)
    run = Run(dataclasses.replace(tiny, mesh=MeshConfig(devices), data=data))
    assert [group.batch_size for group in eval_groups(run.val, size, run.mesh).groups] == [padded]


class Constant(nn.Module):
    """The same logits for every image."""

    logits: tuple[float, ...]

    @nn.compact
    def __call__(self, images, train):
        return jnp.tile(jnp.array(self.logits), (len(images), 1))


def place_by_place(logits):
    """The metrics of images each of which shows another class."""
    mesh = make_mesh(1)
    network = Network(Constant(logits), Normalization((0.0,), (1.0,)), mesh)
    step = make_eval_step(Classification(), network)
    count = len(logits)
    source = ArraySource(np.zeros((count, 2, 2, 1), np.uint8), np.arange(count, dtype=np.int32))
    return evaluate(Classification(), step, {}, [source], count, mesh)


def test_of_equal_logits_the_first_comes_first_and_nan_is_wrong():
    result = place_by_place((1.0,) * 8)
    assert (result["val/top1"], result["val/top5"]) == (1 / 8, 5 / 8)
    result = place_by_place((3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0))
    assert (result["val/top1"], result["val/top5"]) == (1 / 8, 5 / 8)
    result = place_by_place((2.0, 1.0, float("nan"), 0.0, 0.0, 0.0))
    assert (result["val/top1"], result["val/top5"]) == (0, 0)
    assert np.isnan(result["val/loss"])


def test_five_classes_have_no_top_5():
    result = place_by_place((1.0, 2.0, 3.0, 4.0, 5.0))
    assert "val/top5" not in result


def test_images_that_are_lost_on_the_way_are_an_error(tiny):
    run = Run(tiny)
    step = make_eval_step(run.task, run.network)

    def forgetful(variables, batch):
        return step(variables, {**batch, "weight": batch["weight"].at[0].set(0)})

    variables = run.fresh_state().eval_variables
    with pytest.raises(RuntimeError, match="358 images were counted where there are 360"):
        evaluate(run.task, forgetful, variables, [run.dataset.val], 200, run.mesh)


def test_what_cannot_be_read_is_not_counted(tiny):
    run = Run(tiny)
    state = run.fresh_state()
    step = make_eval_step(run.task, run.network)
    val = run.dataset.val
    rest = ArraySource(val.images[180:], val.labels[180:])
    half = evaluate(
        run.task,
        step,
        state.eval_variables,
        [ArraySource(val.images, val.labels, dict.fromkeys(range(180), "torn"))],
        96,
        run.mesh,
    )
    whole = evaluate(run.task, step, state.eval_variables, [rest], 96, run.mesh)
    assert half["val/count"] == whole["val/count"] == 180
    assert half["val/top1"] == pytest.approx(whole["val/top1"])
    assert half["val/loss"] == pytest.approx(whole["val/loss"], rel=1e-6)

    broken = ArraySource(val.images, val.labels, dict.fromkeys(range(len(val)), "torn"))
    with pytest.raises(UsageError, match="not one image"):
        evaluate(run.task, step, state.eval_variables, [broken], 96, run.mesh)
