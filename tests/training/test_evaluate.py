import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.data.sources import ArraySource
from senet_jax.errors import UsageError
from senet_jax.training.evaluate import evaluate
from senet_jax.training.run import Run
from senet_jax.training.step import make_eval_step


@pytest.mark.parametrize(("devices", "size"), [(1, 360), (1, 100), (8, 7), (8, 200)])
def test_every_image_counts_once_whatever_the_batch(tiny, devices, size):
    data = dataclasses.replace(tiny.data, eval_batch_size=size)
    run = Run(dataclasses.replace(tiny, devices=devices, data=data))
    state = run.fresh_state()
    result = run.evaluate(state.eval_variables)

    val = run.dataset.val
    images = jnp.float32((val.images / 255 - 0.305) / 0.376)
    logits = run.model.apply(jax.device_get(state.eval_variables), images, train=False)
    log_p = np.asarray(jax.nn.log_softmax(logits))
    assert result.count == 360
    assert result.top1 == pytest.approx((log_p.argmax(-1) == val.labels).mean(), abs=1e-9)
    assert result.loss == pytest.approx(-log_p[np.arange(360), val.labels].mean(), rel=1e-5)


def test_what_cannot_be_read_is_not_counted(tiny):
    class HalfBroken(ArraySource):
        def read(self, indices):
            images, _ = super().read(indices)
            return images, indices >= 180

    run = Run(tiny)
    state = run.fresh_state()
    step = make_eval_step(run.model, run.mesh, **run.channel_stats)
    val = run.dataset.val
    rest = ArraySource(val.images[180:], val.labels[180:])
    half = evaluate(step, state.eval_variables, HalfBroken(val.images, val.labels), 96, run.mesh)
    whole = evaluate(step, state.eval_variables, rest, 96, run.mesh)
    assert half.count == whole.count == 180
    assert half.top1 == pytest.approx(whole.top1)
    assert half.loss == pytest.approx(whole.loss, rel=1e-6)

    class Broken(ArraySource):
        def read(self, indices):
            return super().read(indices)[0], np.zeros(len(indices), bool)

    with pytest.raises(UsageError, match="not one image"):
        evaluate(step, state.eval_variables, Broken(val.images, val.labels), 96, run.mesh)
