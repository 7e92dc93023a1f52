"""Data-parallel steps of networks with grouped convolutions, in the compiled program."""

import functools
import re

import jax
import numpy as np
import optax
import pytest

from senet_jax.attention import SplitAttentionConfig
from senet_jax.data.normalization import Normalization
from senet_jax.models.resnet import SE, ResNet
from senet_jax.network import Network
from senet_jax.tasks.classification import Classification
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.state import init_state
from senet_jax.training.step import key_data, make_eval_step, make_train_step

PIXELS = Normalization((0.5,) * 3, (0.25,) * 3)

small = functools.partial(ResNet, blocks=(1,), widths=(8,), stem="cifar", stem_width=8)
grouped = functools.partial(small, cardinality=4, base_width=16, num_classes=5)
NETWORKS = {
    "resnext": grouped(),
    "senet154": grouped(attention=SE, projection_kernel=3, reduce_first=2),
    "resnest": grouped(
        attention=SplitAttentionConfig(radix=2), cardinality=2, stride_by="pool_after"
    ),
}


def batch(images):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (images, 8, 8, 3), np.uint8),
        "label": np.arange(images) % 5,
        "weight": np.ones(images, np.float32),
    }


def compiled(model, devices, name):
    """The step of plain SGD of rate 1, and its input."""
    mesh, optimizer = meshes.make_mesh(devices), optax.sgd(1.0)
    init = functools.partial(init_state, model, optimizer, image_shape=(8, 8, 3), ema=False)
    state = jax.jit(init, out_shardings=meshes.replicated(mesh))(jax.random.key(0))
    images = meshes.to_devices(batch(16), mesh)
    network = Network(model, PIXELS, mesh, name)
    train = make_train_step(Classification(), network, optimizer)
    return train.lower(state, images, key_data(0)).compile(), (state, images, key_data(0))


GATHERING = "all-gather|all-to-all|collective-permute"


# GPUs take the native form. The CPU's own needs no help; the slow tests look at one network in it.
@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param("resnext", None, marks=pytest.mark.slow),
        pytest.param("resnext", "native", marks=pytest.mark.slow),
        pytest.param("senet154", "native", marks=pytest.mark.slow),
        ("resnest", "native"),
    ],
)
def test_no_device_gathers_what_belongs_to_another(family, name):
    model = NETWORKS[family]
    one, one_inputs = compiled(model, 1, name)
    eight, eight_inputs = compiled(model, 8, name)
    assert not re.search(GATHERING, eight.as_text())
    # The update of the parameters does not shrink.
    assert eight.cost_analysis()["flops"] < one.cost_analysis()["flops"] / 4
    before = jax.tree.map(np.asarray, one_inputs[0].params)
    (state, metrics), (state8, metrics8) = one(*one_inputs), eight(*eight_inputs)
    np.testing.assert_allclose(metrics8["loss"], metrics["loss"], rtol=1e-5)
    for start, a, b in zip(
        *map(jax.tree.leaves, (before, state.params, state8.params)), strict=True
    ):
        np.testing.assert_allclose(start - b, start - a, rtol=1e-3, atol=1e-5)


def test_neither_does_evaluation():
    mesh, model = meshes.make_mesh(8), NETWORKS["resnext"]
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32), False)
    )
    step = make_eval_step(Classification(), Network(model, PIXELS, mesh, "native"))
    program = step.lower(variables, meshes.to_devices(batch(16), mesh)).compile()
    assert not re.search(GATHERING, program.as_text())
