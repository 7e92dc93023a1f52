"""Meshes of eight devices against one device, and what lies where on them."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmarks import meshes as benchmark
from senet_jax import cli
from senet_jax.config import MeshConfig, OptimizerConfig
from senet_jax.data.config import AugmentConfig
from senet_jax.data.normalization import Normalization
from senet_jax.errors import UsageError
from senet_jax.models import zoo
from senet_jax.models.resnet import ResNet
from senet_jax.models.vgg import VGG
from senet_jax.network import Network
from senet_jax.planning.sharding import draw_sharding
from senet_jax.tasks.classification import Classification
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.loop import train
from senet_jax.training.micro_batches import accumulate
from senet_jax.training.presets import preset
from senet_jax.training.run import Run
from senet_jax.training.state import init_state
from senet_jax.training.step import key_data, make_train_step
from tests.evaluated_run import evaluate_run


@pytest.fixture
def divided(monkeypatch):
    """Even the leaves of networks as small as those of the tests are divided."""
    monkeypatch.setattr(meshes, "SMALLEST_SHARDED", 1)


@pytest.mark.parametrize(
    ("dtype", "features"),
    [
        pytest.param("float64", benchmark.EVERYTHING, id="float64-everything"),
        # Everything in float64 has all that these have.
        pytest.param("float32", {}, id="float32", marks=pytest.mark.slow),
        pytest.param("float32", benchmark.EVERYTHING, id="everything", marks=pytest.mark.slow),
        pytest.param("float64", {}, id="float64", marks=pytest.mark.slow),
    ],
)
def test_a_mesh_changes_no_number(tiny, divided, features, dtype):
    settings = {"images": 16, "size": 8, "steps": benchmark.STEPS[dtype], "features": features}
    one = benchmark.trained("tiny", (1, 1), dtype, **settings)
    assert {x.dtype for x in jax.tree.leaves(one.params)} == {np.dtype(dtype)}
    eight = benchmark.trained("tiny", (2, 4), dtype, **settings)
    assert 0 < benchmark.apart(one, eight) < benchmark.LIMITS[dtype]


def test_a_batch_norm_by_device_is_that_of_the_groups_of_one(tiny, divided):
    settings = {"images": 16, "size": 8, "steps": 1, "norm_group": 2}
    one = benchmark.trained("tiny", (1, 1), "float32", **settings)
    assert benchmark.apart(one, benchmark.trained("tiny", (1, 8), "float32", **settings)) < 1e-5
    whole = benchmark.trained("tiny", (1, 1), "float32", **{**settings, "norm_group": None})
    assert benchmark.apart(one, whole) > 1e-3


@pytest.mark.slow
def test_a_divided_run_is_saved_and_taken_up_on_another_mesh(
    tiny, divided, shared_programs, run_of
):
    config = dataclasses.replace(tiny, mesh=MeshConfig(2, 4), epochs=1)
    last = train(config)
    kernel = run_of(config).abstract.params["stem"]["conv"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) != kernel.shape
    _, evaluated = evaluate_run(tiny.run_dir)
    assert evaluated["val/top1"] == last["val/top1"]
    again = train(dataclasses.replace(config, mesh=MeshConfig(1)))
    assert again == last


def test_a_state_is_divided_by_the_rules(tiny, divided):
    run = Run(dataclasses.replace(tiny, mesh=MeshConfig(2, 4)))
    state = run.fresh_state()
    kernel = state.params["stem"]["conv"]["kernel"]
    assert kernel.shape == (3, 3, 1, 4)
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(3, 3, 1, 1)}
    assert all(x.is_fully_replicated for x in jax.tree.leaves(state.batch_stats))
    assert all(x.is_fully_replicated for x in jax.tree.leaves(state.ema["batch_stats"]))
    for part in (state.opt_state, state.ema["params"]):
        held = [x for x in jax.tree.leaves(part) if x.shape == kernel.shape]
        assert held
        assert all(x.sharding == kernel.sharding for x in held)
    whole = Run(tiny).fresh_state()
    jax.tree.map(np.testing.assert_array_equal, state, whole)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((3, 3, 64, 256), (None, None, None, "fsdp")),
        ((3, 3, 256, 64), (None, None, "fsdp")),
        ((1, 1, 64, 64), (None, None, None, "fsdp")),
        ((2048, 1001), ("fsdp",)),
        ((3, 3, 7, 99), ()),
        ((512,), ()),
    ],
)
def test_the_longest_axis_that_can_be_divided_is(shape, spec):
    leaf = jax.ShapeDtypeStruct(shape, jnp.float32)
    placed = meshes.state_shardings({"params": {"kernel": leaf}}, meshes.make_mesh(1, 8))
    assert tuple(placed["params"]["kernel"].spec) == spec


def test_a_device_holds_under_a_seventh_of_a_sharded_senet154():
    whole, held = benchmark.share_on_a_device("senet154", 8)
    # Parameters and momentum, four bytes each, and the count of the schedule.
    assert whole == 2 * 4 * 115_088_984 + 4
    assert held / whole < 1 / 7


def test_what_lies_where_is_drawn(capsys):
    flags = ["--mesh.data", "2", "--mesh.fsdp", "4", "--show-sharding"]
    assert cli.main(["train", "demo", *flags]) == 0
    drawn = capsys.readouterr().out
    assert re.search(r"data 1 +\[ +4 +\]\[ +5 +\]\[ +6 +\]\[ +7 +\]", drawn)
    assert re.search(r"params/stage4/block1/conv2/kernel +3x3x64x64 +3x3x64x16 +axis 3", drawn)
    assert re.search(r"params/stem/bn/scale +16 +16 +-", drawn)
    run = Run(dataclasses.replace(preset("demo"), mesh=MeshConfig(2, 4)))
    state = run.fresh_state()
    first = jax.devices()[0]
    on_first = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(state)
        for shard in leaf.addressable_shards
        if shard.device == first
    )
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert re.search(rf"^all +{whole:,} +{on_first:,} ", drawn, re.MULTILINE)
    assert draw_sharding(run.abstract, run.mesh) + "\n" == drawn


@pytest.mark.slow
def test_accumulated_gradients_without_norms_are_of_the_batch(monkeypatch, tiny):
    fields = {"blocks": (1,), "widths": (4,), "fc_width": 8}
    monkeypatch.setitem(zoo.ZOO, "tiny", zoo.ZooEntry(VGG, fields, 8))
    data = dataclasses.replace(tiny.data, augment=AugmentConfig(mixup=0.3))
    optimizer = OptimizerConfig(learning_rate=1.0, momentum=0, nesterov=False)
    model = dataclasses.replace(tiny.model, dropout=0.0)
    tiny = dataclasses.replace(tiny, data=data, optimizer=optimizer, model=model)

    def stepped(parts):
        run = Run(dataclasses.replace(tiny, accumulate=parts))
        batch = meshes.to_devices(run.batches[0][0], run.mesh)
        return run.fresh_state(), *run.train_step(run.fresh_state(), batch)

    (start, state, metrics), (_, parts, part_metrics) = stepped(1), stepped(4)
    for before, a, b in zip(
        *(jax.tree.leaves(each.params) for each in (start, state, parts)), strict=True
    ):
        np.testing.assert_allclose(b - before, a - before, rtol=1e-4, atol=1e-6)
    assert {k: float(v) for k, v in part_metrics.items()} == pytest.approx(
        {k: float(v) for k, v in metrics.items()}, rel=1e-5
    )


def test_the_parts_of_a_batch_are_every_nth_image():
    def gradients(batch_stats, examples, key):
        seen = batch_stats.at[examples["part"][0]].set(batch_stats.max() + 1)
        return {"mean": examples["x"].mean(), "draw": jax.random.uniform(key)}, seen

    x = jnp.arange(12.0)
    examples = {"x": x, "part": jnp.arange(12) % 3}
    key, mesh = jax.random.key(1), meshes.make_mesh(2, 2)
    found, order = jax.jit(functools.partial(accumulate, gradients, parts=3, mesh=mesh))(
        jnp.zeros(3), examples, key
    )
    assert float(found["mean"]) == x.mean()
    np.testing.assert_array_equal(order, [1, 2, 3])
    draws = [jax.random.uniform(jax.random.fold_in(key, part)) for part in range(3)]
    assert float(found["draw"]) == pytest.approx(float(np.mean(draws)))


def network(blocks=4, remat=False):
    fields = {"widths": (16,), "stem": "cifar", "stem_width": 16, "bottleneck": False}
    return ResNet(blocks=(blocks,), **fields, remat=remat)


@pytest.mark.slow
def test_accumulation_needs_less_memory():
    model, optimizer = network(blocks=2), optax.sgd(0.1)
    image = (16, 16, 3)
    state = jax.eval_shape(
        lambda: init_state(model, optimizer, jax.random.key(0), image, ema=False)
    )
    batch = {
        "image": jax.ShapeDtypeStruct((64, *image), jnp.uint8),
        "label": jax.ShapeDtypeStruct((64,), jnp.int32),
    }

    def temporaries(parts):
        step = make_train_step(
            Classification(),
            Network(model, Normalization((0.5,) * 3, (0.25,) * 3), meshes.make_mesh(1)),
            optimizer,
            parts=parts,
        )
        return step.lower(state, batch, key_data(0)).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(4) < temporaries(1) / 3


# That it changes no number is in tests/models/test_contract.py.
def test_rematerialisation_remembers_less(tiny):
    config = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, remat=True))
    assert Run(config).model.remat
    images = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)
    init = functools.partial(network().init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)

    def remembered(model):
        def pullback(variables, images):
            def logits(params):
                return model.apply(
                    {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
                )

            return jax.vjp(logits, variables["params"], has_aux=True)[1]

        kept = jax.tree.leaves(jax.eval_shape(pullback, variables, images))
        return sum(math.prod(leaf.shape) for leaf in kept)

    assert remembered(network(remat=True)) < remembered(network()) / 3


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((3, 3), "needs 9 devices, but there are 8"), ((None, 16), "needs 16 devices")],
)
def test_a_mesh_of_more_devices_than_there_are_is_refused(sizes, message):
    with pytest.raises(UsageError, match=message):
        meshes.make_mesh(*sizes)


def test_a_batch_that_the_parts_do_not_divide_is_refused(tiny):
    config = dataclasses.replace(tiny, accumulate=5)
    with pytest.raises(UsageError, match="96 cannot be divided over 1 devices in 5 parts each"):
        train(config)
    assert not tiny.run_dir.exists()
