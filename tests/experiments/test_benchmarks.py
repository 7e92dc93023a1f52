"""The benchmarks really run, small; how fast anything is is not asserted."""

import dataclasses
import functools
import importlib.util
import json
import sys
from typing import get_args

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import (
    collectives,
    compile_time,
    race,
    se_overhead,
    where_time_goes,
)
from experiments.benchmarks.harness import contenders, jobs, measure, parity
from experiments.benchmarks.harness.contenders import (
    COMPILED,
    OURS,
    PLAIN_FLAX,
    TORCH,
    JaxContender,
    TorchError,
)
from experiments.benchmarks.harness.jobs import JOBS, Job, Mode, find_jobs
from experiments.benchmarks.harness.plain_flax import PLAIN, PlainBasicResNet, PlainResNet
from senet_jax.errors import UsageError
from senet_jax.interchange import to_torch
from senet_jax.models import zoo
from senet_jax.models.cost import cost
from senet_jax.models.resnet import SE, SE_ROUNDED, ResNet
from senet_jax.ops.conv_forms import Geometry

BASIC = {"bottleneck": False}
TWINS = {
    "resnet": (PlainResNet, {}, {}),
    "basic": (PlainBasicResNet, BASIC, {}),
    "sebasic": (PlainBasicResNet, {**BASIC, "attention": SE_ROUNDED}, {"se": True}),
    "cifar": (
        PlainBasicResNet,
        {**BASIC, "attention": SE, "stem": "cifar", "stem_width": 16, "shortcut": "A"},
        {"se": True, "cifar": True},
    ),
    "seresnext": (
        PlainResNet,
        {"cardinality": 4, "base_width": 16, "attention": SE_ROUNDED},
        {"groups": 4, "base_width": 16, "attention": "se"},
    ),
    "resnest": (
        PlainResNet,
        {
            "stem_width": (32, 32, 64),
            "shortcut": "D",
            "stride_by": "pool_after",
            "attention": zoo.find("resnest50d").fields["attention"],
        },
        {"deep_stem": True, "attention": "split"},
    ),
}


@pytest.fixture
def small(monkeypatch):
    """A network of one block, "small", in the zoo and in plain Flax, and "small_se"."""
    one_block = {"blocks": (1,), "widths": (16,)}
    entry = zoo.ZooEntry(ResNet, one_block, 32)
    attentive = zoo.ZooEntry(ResNet, {**one_block, "attention": SE_ROUNDED}, 32)
    monkeypatch.setitem(zoo.ZOO, "small", entry)
    monkeypatch.setitem(zoo.ZOO, "small_se", attentive)
    monkeypatch.setitem(PLAIN, "small", functools.partial(PlainResNet, **one_block))
    ten_classes = functools.partial(Job, classes=10)
    monkeypatch.setattr(se_overhead, "Job", ten_classes)
    small = ten_classes("small", batch=2, size=32)
    monkeypatch.setattr(jobs, "JOBS", (small,))
    return small


# SE-ResNets have all that ResNets have, and more.
PLAINER = ("resnet", "basic")


@pytest.mark.parametrize(
    ("twin", "train"),
    [
        *(
            pytest.param(twin, True, marks=[pytest.mark.slow] if twin in PLAINER else [])
            for twin in TWINS
        ),
        ("resnet", False),
    ],
)
def test_plain_flax_is_the_same_network(twin, train, random_variables):
    build, ours, plain = TWINS[twin]
    # The stem of the CIFAR twin and of the ImageNet ones with basic blocks is as wide as stage 2.
    sizes = {"blocks": (1, 1), "widths": (64, 32) if twin in ("basic", "sebasic") else (16, 32)}
    model = ResNet(**sizes, **ours, num_classes=10)
    textbook = build(**sizes, **plain, num_classes=10)
    images = np.random.default_rng(1).standard_normal((2, 64, 64, 3)).astype(np.float32)
    variables = random_variables(model, images, train)
    joined = {"_".join(k): v for k, v in flax.traverse_util.flatten_dict(variables).items()}
    shapes = jax.eval_shape(lambda: textbook.init(jax.random.key(0), images, train))
    names = flax.traverse_util.flatten_dict(shapes)
    assert {"_".join(k): v.shape for k, v in names.items()} == {
        name: value.shape for name, value in joined.items()
    }
    copied = flax.traverse_util.unflatten_dict({k: joined["_".join(k)] for k in names})

    def logits(model, variables):
        return model.apply(variables, images, train, mutable=["batch_stats"])[0]

    np.testing.assert_allclose(
        jax.jit(logits, static_argnums=0)(textbook, copied),
        jax.jit(logits, static_argnums=0)(model, variables),
        rtol=2e-3,
        atol=2e-3,
    )


@pytest.mark.parametrize("name", PLAIN)
def test_every_plain_twin_has_the_parameters_of_the_network(name):
    def shapes(model):
        image = jnp.zeros((1, 32, 32, 3))
        variables = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
        flat = flax.traverse_util.flatten_dict(variables)
        return {"_".join(path): leaf.shape for path, leaf in flat.items()}

    twin, model = PLAIN[name](), zoo.create_model(name)
    assert twin.blocks == model.blocks
    short = {"blocks": (2,) * len(model.blocks), "num_classes": 10}
    assert shapes(dataclasses.replace(twin, **short)) == shapes(dataclasses.replace(model, **short))


def test_contenders_take_turns_in_both_directions():
    asked = []

    def sampler(name):
        return lambda: asked.append(name) or float(len(asked))

    times = measure.interleave({n: sampler(n) for n in "abc"}, {"a": 3, "b": 1, "c": 3})
    assert "".join(asked) == "abc" + "ca" + "ac"
    assert times == {"a": [1.0, 5.0, 6.0], "b": [2.0], "c": [3.0, 4.0, 7.0]}


def test_ratios_are_those_of_the_rounds_that_both_took_part_in():
    found = measure.ratio([2.0, 6.0, 5.0, 99.0], [1.0, 2.0, 1.0])
    assert found == measure.Spread(median=3.0, low=2.5, high=4.0, pairs=3)


class Clockwork:
    """A contender whose steps take so many seconds, by its own account."""

    module, params, compile_s, peak_bytes = "clock", 7, 0.5, 2**20

    def __init__(self, step_s):
        self.step_s, self.asked = step_s, []

    def run(self, steps):
        self.asked.append(steps)
        return steps * self.step_s

    def close(self):
        pass


def test_slow_contenders_have_few_rounds_and_quick_ones_many():
    quick, slow = Clockwork(0.25), Clockwork(30.0)
    both = {OURS: quick, "slow": slow}
    times = contenders.compete(both, pairs=5, sample_s=1.0, slow_s=20.0, slow_pairs=2)
    assert times == {OURS: [0.25] * 5, "slow": [30.0] * 2}
    assert (quick.asked, slow.asked) == ([1, 1, *[4] * 5], [1, 1, 1])
    found = contenders.race_rows(Job("x", batch=8), both, times)
    assert [row["images/s"] for row in found] == [32.0, 8 / 30]
    assert found[1][f"{OURS} / this"] == measure.Spread(*[0.25 / 30] * 3, pairs=2)
    left_out = contenders.compete(both, pairs=5, slow_s=20.0)
    assert contenders.race_rows(Job("x"), both, left_out)[1]["images/s"] is None


def test_a_race_of_different_networks_is_refused():
    other = Clockwork(1.0)
    other.params = 8
    with pytest.raises(ValueError, match="not the same network"):
        contenders.check_same_network(Job("x"), {OURS: Clockwork(1.0), "other": other})


def test_a_training_step_trains_and_counts_its_memory(small):
    contender = JaxContender(small.build(), small)
    before = jax.device_get(contender._state[0]["params"]["head"])
    assert contender.run(2) > 0
    after = contender._state[0]["params"]["head"]
    assert np.abs(after["kernel"] - before["kernel"]).max() > 0
    # Parameters and momentum at the least, and the images.
    assert contender.peak_bytes > 8 * contender.params + 4 * 2 * 32 * 32 * 3


def test_a_network_has_its_own_batch_size_and_classes():
    names = ("cifar_seresnet20", "resnet18")
    cifar, small, large = find_jobs(names, ("infer",))
    assert (cifar.batch, cifar.size, cifar.classes) == (128, 32, 10)
    assert (small.size, large.size, large.classes) == (64, 224, 1000)
    assert {job.mode for job in (cifar, small, large)} == {"infer"}
    # The two jobs of ResNet-18 are now the same.
    found = find_jobs(names, ("train", "infer"), batch=4, size=32)
    assert [job.model for job in found] == [names[0]] * 2 + [names[1]] * 2
    assert {(job.batch, job.size) for job in found} == {(4, 32)}


def test_a_network_without_a_job_takes_images_of_its_size():
    (job,) = find_jobs(["inception_v3+eca"], ("train",))
    assert (job.model, job.batch, job.size, job.classes) == ("inception_v3+eca", 8, 299, 1000)
    (job,) = find_jobs(["cifar_resnet8"], ("train",))
    assert (job.size, job.classes) == (32, 10)
    with pytest.raises(UsageError, match="resnet50"):
        find_jobs(["resent50"], ("train",))


def test_the_race_writes_a_table_and_a_chart(small, tmp_path):
    out = tmp_path / "results" / "race.json"
    found = race.run(race.Race(models=("small",), pairs=2, sample_s=0, out=out))
    result = json.loads(out.read_text())
    assert result["machine"]["versions"]["jax"] == jax.__version__
    assert result["machine"]["date"][:2] == "20"
    assert [(row["mode"], row["contender"]) for row in result["rows"]] == [
        (mode, name) for mode in ("train", "infer") for name in (PLAIN_FLAX, OURS)
    ]
    for row in result["rows"]:
        assert row[f"{OURS} / this"]["pairs"] == len(row["all_step_s"]) == 2
        assert min(row["all_step_s"]) > 0
        assert row["images/s"] == pytest.approx(2 / row["step_s"]["median"])
        assert row["compile s"] > 0
        assert row["peak MiB"] > 0
    modules = [row["network of"] for row in result["rows"][:2]]
    assert modules == ["experiments.benchmarks.harness.plain_flax", "senet_jax.models.resnet"]
    assert result["rows"][1][f"{OURS} / this"]["median"] == 1
    race.draw(found, tmp_path / "race.png")
    assert (tmp_path / "race.png").read_bytes().startswith(b"\x89PNG")
    text = measure.table(found, contenders.COLUMNS).splitlines()
    assert len(text) == 2 + 4
    assert {line.count("|") for line in text} == {len(contenders.COLUMNS) + 1}


WORKER = """
import json, sys
job = json.loads(sys.stdin.readline())
assert job["model"] == "small"
if "compile" in job["options"]:
    print(json.dumps({"error": "InvalidCxxCompiler: none found"}), flush=True)
    sys.exit()
ready = {
    "module": "timm.small", "params": PARAMS, "first_step_s": 1.5, "peak_bytes": 10,
    "about": {"torch": " ".join(job["options"])}
}
print(json.dumps(ready), flush=True)
for line in sys.stdin:
    if json.loads(line) == 3:
        sys.exit("no more")
    print(json.dumps({"seconds": 2.0 * json.loads(line), "peak_bytes": 20}), flush=True)
"""


@pytest.fixture
def fake_worker(tmp_path, monkeypatch):
    """Puts a program in the place of the PyTorch worker."""

    def put(program):
        (tmp_path / "torch_worker.py").write_text(program)
        monkeypatch.setattr(contenders, "__file__", str(tmp_path / "contenders.py"))

    return put


def test_a_worker_is_asked_over_a_pipe_and_its_end_is_said(small, fake_worker):
    fake_worker(WORKER.replace("PARAMS", "5"))
    worker = contenders.TorchContender(sys.executable, small, ("amp",))
    worker.wait()
    assert (worker.module, worker.params, worker.compile_s) == ("timm.small", 5, 1.5)
    assert worker.about == {"torch": "amp"}
    assert worker.run(2) == 4.0
    assert worker.peak_bytes == 20
    with pytest.raises(TorchError, match="process ended"):
        worker.run(3)


def test_what_cannot_be_compiled_is_left_out_with_its_reason(small, fake_worker, tmp_path):
    params = JaxContender(small.build(), small).params
    fake_worker(WORKER.replace("PARAMS", str(params)))
    out = tmp_path / "race.json"
    settings = race.Race(models=("small",), modes=("train",), pairs=1, sample_s=0, out=out)
    found = race.run(
        dataclasses.replace(settings, torch_python=sys.executable, check=False, plain=False)
    )
    assert [row["contender"] for row in found] == [TORCH, OURS, COMPILED]
    assert found[2]["left out"] == "InvalidCxxCompiler: none found"
    assert json.loads(out.read_text())["peer"] == {
        "torch": "channels_last",
        "torch_options": "channels_last",
    }
    assert "torch.compile is left out of small (train): InvalidCxxCompiler" in race.show(found)
    race.draw(found, tmp_path / "race.png")


def test_convolutions_are_counted_without_those_of_one_pixel():
    # SE has dense layers; what it rescales, two convolutions a block, is counted.
    found = where_time_goes.convolutions(Job("cifar_seresnet20", batch=2, size=32, classes=10))
    assert {(c.images[1], c.kernel[2:], c.geometry.strides[0]): n for c, n in found.items()} == {
        (32, (3, 16), 1): 1,
        (32, (16, 16), 1): 6,
        (32, (16, 32), 2): 1,
        (16, (32, 32), 1): 5,
        (16, (32, 64), 2): 1,
        (8, (64, 64), 1): 5,
    }
    assert [c.kernel[2] for c in found if not c.needs_input_gradient] == [3]
    # The two convolutions of ResNeSt's attention see one pixel each.
    found = where_time_goes.convolutions(Job("resnest14d", batch=2, size=64))
    assert all(convolution.images[1] > 1 for convolution in found)
    assert sum(found.values()) == 3 + 4 * (3 + 1)


def test_compiled_passes_are_those_of_the_convolution():
    geometry = Geometry((2, 2), ((1, 1), (1, 1)), groups=2)
    layer = where_time_goes.Convolution((2, 8, 8, 4), (3, 3, 2, 6), geometry, True)
    passes = where_time_goes.compiled_passes(layer)
    shapes = {name: call().shape for name, call in passes.items()}
    assert shapes == {"forward": (2, 4, 4, 6), "input": (2, 8, 8, 4), "kernel": (3, 3, 2, 6)}
    assert str(layer) == "8x8, 4 to 6, 2 groups, 3x3, stride 2"


def test_the_parts_of_a_step_add_up_to_the_whole(small):
    times = {"forward": (2.0, 3.0), "input": (4.0, 6.0), "kernel": (5.0, 18.0)}
    alone = [
        {"count": 2, "pass": name, f"{OURS} ms": ours, f"{TORCH} ms": theirs}
        for name, (ours, theirs) in times.items()
    ]
    wholes = {f"{OURS} train": [0.1], f"{OURS} forward": [0.03]}
    wholes |= {f"{TORCH} train": [0.2], f"{TORCH} forward": [0.05]}
    operators = {"forward_s": 0.01, "gradients_s": 0.04}
    rows = where_time_goes.divide(small, wholes, alone, operators)
    ours, theirs = ([row[f"{side} ms"] for row in rows] for side in (OURS, TORCH))
    assert ours == pytest.approx([4, 8, 10, 26, 52, 100])
    # One operator gives both gradients: it is divided as 6 to 18.
    assert theirs == pytest.approx([10, 10, 30, 40, 110, 200])
    assert [rows[0][where_time_goes.RATIO], rows[-1][where_time_goes.RATIO].median] == [0.4, 0.5]
    (*_, whole) = where_time_goes.divide(small, wholes, alone, None)
    assert whole[where_time_goes.RATIO] is None


def test_the_parts_are_measured_without_pytorch(small):
    settings = where_time_goes.Settings(model="small", pairs=1, repeats=1, sample_s=0)
    found = where_time_goes.run(settings)
    # The stem, whose images need no gradient, and the three convolutions of a block.
    assert len(found["convolutions"]) == 2 + 3 * 3
    assert found["operators"] == []
    *parts, whole = (row[f"{OURS} ms"] for row in found["rows"])
    assert sum(parts) == pytest.approx(whole)


needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs PyTorch in the tests' Python"
)
needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="needs PyTorch and timm in the tests' Python"
)
TWIN_JOBS = [job for job in JOBS if job.model.startswith(("cifar", "mobilenet"))]


# PyTorch runs in processes of its own, as in the race: its threads would slow the other tests.
@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("job", TWIN_JOBS, ids=[job.model for job in TWIN_JOBS])
def test_pytorch_twins_give_the_same_logits(job):
    small = dataclasses.replace(job, size=min(job.size, 64))
    parity.check_logits(sys.executable, small)


@pytest.mark.slow
@needs_torch
def test_logits_of_other_weights_are_refused(monkeypatch):
    def altered(*arguments, **fields):
        weights = to_torch(*arguments, **fields)
        return {**weights, "linear.bias": weights["linear.bias"] + np.float32(0.01)}

    monkeypatch.setattr(parity, "to_torch", altered)
    with pytest.raises(ValueError, match="another network in PyTorch"):
        parity.check_logits(sys.executable, Job("cifar_resnet8", size=32, classes=10))


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("mode", get_args(Mode))
def test_a_twin_takes_steps(mode, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    job = Job("cifar_seresnet8", mode, batch=2, size=32, classes=10)
    worker = contenders.TorchContender(sys.executable, job, ("channels_last",))
    worker.wait()
    assert worker.run(1) > 0
    assert worker.module == "experiments.benchmarks.harness.torch_networks"
    assert worker.peak_bytes > 0
    assert worker.about["freed memory"] == "kept"
    assert "timm" not in worker.about
    worker.close()


@pytest.mark.slow
@needs_torch
def test_the_parts_are_measured_on_both_sides():
    found = where_time_goes.run(
        where_time_goes.Settings(
            model="cifar_seresnet8",
            batch=2,
            torch_python=sys.executable,
            pairs=1,
            repeats=1,
            sample_s=0,
        )
    )
    times = [row[f"{TORCH} ms"] for row in found["rows"]]
    assert sum(times[:-1]) == pytest.approx(times[-1])
    assert min(times[:3]) > 0
    assert min(row[f"{TORCH} ms"] for row in found["convolutions"]) > 0
    assert "aten::native_batch_norm" in {row["operator"] for row in found["operators"]}


@pytest.mark.slow
@needs_timm
def test_timm_takes_the_same_steps():
    # Imported by the worker alone, which does without torchvision's compiled operators.
    job = Job("resnet18", batch=2, size=32)
    worker = contenders.TorchContender(sys.executable, job)
    worker.wait()
    assert worker.run(1) > 0
    worker.close()
    parity.check_logits(sys.executable, dataclasses.replace(job, size=64))


def test_overhead_is_that_over_the_network_without(small, tmp_path):
    settings = se_overhead.Overhead(
        without="small", variants=("small_se", "small+eca"), modes=("infer",), batch=2, size=32
    )
    found = se_overhead.run(dataclasses.replace(settings, pairs=2, sample_s=0))
    assert [row["contender"] for row in found] == ["small", "small_se", "small+eca"]
    assert found[0]["this / without"].median == 1
    assert all(row["this / without"].pairs == 2 for row in found)
    params = [row["params"] for row in found]
    # 64 channels, a hidden layer of 8, and a kernel of ECA of 3.
    assert params[1] - params[0] == 2 * 8 * 64 + 8 + 64
    assert params[2] - params[0] == 3


@pytest.mark.slow
def test_a_mesh_is_compiled_for_in_a_process_of_its_own():
    row = collectives.measure("cifar_resnet8", size=8, devices=16, images=1, norm="device")
    assert row["bytes"] == 16 * row["bytes / device"]
    params = 4 * cost(zoo.create_model("cifar_resnet8", num_classes=1000), 8).params
    assert row["parameters"] == params
    # Gradients, running statistics, and two numbers of the metrics.
    assert row["by_kind"] == {"all-reduce": params + row["statistics"] + 2 * 4}


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True),
        ({"/ parameters": 1.02}, False),
        ({"by_kind": {"all-reduce": 100, "all-gather": 1}}, False),
        ({"/ parameters": 1.02, "norm": "global"}, True),
        ({"/ parameters": 2.0, "fsdp": 8}, True),
    ],
)
def test_only_collectives_of_data_parallelism_are_in_the_limit(change, holds):
    row = {"norm": "device", "fsdp": 1, "devices": 8, "/ parameters": 1.002}
    row["by_kind"] = {"all-reduce": 100}
    assert collectives.within({**row, **change}) == holds


def test_what_a_user_waits_for_is_the_sum_of_its_phases():
    row = compile_time._here("cifar_resnet8", batch=2, size=8, dtype="float32")
    parts = [row[column] for column in compile_time.COLUMNS[2:-2]]
    assert len(parts) == 1 + 2 * 3
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(row["before step 1 s"])


@pytest.mark.slow
def test_waiting_is_measured_without_and_with_a_cache():
    cold, warm = compile_time.measure("cifar_resnet8", batch=2, size=8, dtype="float32")
    assert (cold["cache"], warm["cache"]) == ("cold", "warm")
    assert cold["cache hits"] == 0
    assert warm["cache hits"] >= 1
