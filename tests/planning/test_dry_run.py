"""The numbers of a dry run, against counts by hand."""

import dataclasses
import re

import jax
import pytest
from flax import linen as nn

from senet_jax import cli
from senet_jax.config import MeshConfig, ModelConfig, TrainConfig
from senet_jax.data.card import known_card
from senet_jax.data.config import DataConfig
from senet_jax.data.scene_cards import known_scenes
from senet_jax.data.scene_sets import SCENE_SETS
from senet_jax.errors import ExitCode, UsageError
from senet_jax.models import zoo
from senet_jax.models.backbone import Backbone
from senet_jax.planning import dry_run
from senet_jax.planning.collectives import Collective, by_kind
from senet_jax.planning.dry_run import StepCost, bound, collective_seconds, compile_step, set_up
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.machine.accelerators import Accelerator
from senet_jax.training.presets import preset

PARAMS = 3 * 3 * 1 * 4 + 4 * 10 + 10
METRICS = 2


class Plain(Backbone):
    """A convolution and a classifier."""

    normed: bool = False

    @property
    def stage_numbers(self):
        return ()

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(4, (3, 3), use_bias=False, dtype=self.dtype)(images)
        if self.normed:
            x = nn.BatchNorm(use_running_average=not train, use_bias=False, use_scale=False)(x)
        return nn.Dense(self.num_classes)(nn.relu(x).mean(axis=(1, 2)))


@pytest.fixture
def plain(tiny, monkeypatch) -> TrainConfig:
    """64 digits a step on 8 devices."""
    monkeypatch.setitem(zoo.ZOO, "plain", zoo.ZooEntry(Plain, {}, 8))
    return dataclasses.replace(
        tiny,
        model=ModelConfig(name="plain"),
        data=dataclasses.replace(tiny.data, batch_size=64),
        mesh=MeshConfig(8),
        ema_decay=None,
    )


def compiled(config: TrainConfig) -> StepCost:
    return compile_step(set_up(config, topology=None))


@pytest.mark.parametrize("normed", [False, True])
def test_a_step_reduces_the_gradients_and_little_else(plain, monkeypatch, normed):
    entry = zoo.ZooEntry(Plain, {"normed": normed}, 8)
    monkeypatch.setitem(zoo.ZOO, "plain", entry)
    # The sums of x and x squared of a batch norm, and in the backward pass their gradients.
    statistics = 4 * 4 if normed else 0
    found = by_kind(list(compiled(plain).collectives))
    assert {kind: size for kind, (_, size) in found.items()} == {
        "all-reduce": 4 * (PARAMS + statistics + METRICS)
    }


def test_a_device_by_itself_sends_nothing(plain):
    step = compiled(dataclasses.replace(plain, mesh=MeshConfig(1)))
    assert step.collectives == ()


def test_a_sharded_state_is_halved_and_its_parameters_gathered(plain, monkeypatch):
    monkeypatch.setattr(meshes, "SMALLEST_SHARDED", 1)
    whole = compiled(plain)
    half = compiled(dataclasses.replace(plain, mesh=MeshConfig(4, 2)))
    divided = 2 * 4 * PARAMS  # Parameters and momenta.
    images = 64 // 8 * (8 * 8 + 4)
    counters = whole.arguments - divided - images
    assert 0 < counters <= 16
    assert half.arguments == divided // 2 + images + counters
    gathered = [each for each in half.collectives if each.kind == "all-gather"]
    assert sum(each.bytes for each in gathered) == 4 * PARAMS
    assert {each.groups for each in gathered} == {((0, 1), (2, 3), (4, 5), (6, 7))}


def test_memory_is_that_of_state_images_and_temporaries(plain):
    step = compiled(plain)
    # Images and labels, and the two words of the key.
    assert step.aliased == step.arguments - 64 // 8 * (8 * 8 + 4) - 2 * 4
    assert step.memory == step.arguments + step.temporaries + step.outputs - step.aliased
    larger = dataclasses.replace(plain, data=dataclasses.replace(plain.data, batch_size=256))
    assert compiled(larger).temporaries > 2 * step.temporaries


def test_a_mac_is_six_operations_and_more_with_remat(tiny):
    step = compiled(tiny)
    # Three 3x3 convolutions at 8x8, of 1 -> 4, 4 -> 4 and 4 -> 4 channels, SE and the classifier.
    macs = 64 * 9 * (4 + 2 * 4 * 4) + 2 * 4 * 2 + 4 * 10
    assert step.model_flops == 6 * macs * 96
    remat = dataclasses.replace(tiny.model, remat=True)
    again = compiled(dataclasses.replace(tiny, model=remat))
    assert again.model_flops == step.model_flops
    assert again.temporaries != step.temporaries or again.flops != step.flops


def test_parts_of_a_batch_need_less_memory(plain):
    whole, parts = compiled(plain), compiled(dataclasses.replace(plain, accumulate=4))
    assert parts.temporaries < whole.temporaries
    assert parts.arguments == whole.arguments


def test_bfloat16_on_cpus_is_known_to_be_float32(plain):
    step = compiled(dataclasses.replace(plain, model=ModelConfig("plain", dtype="bfloat16")))
    assert step.as_float32
    assert step.least_memory == step.memory - step.temporaries // 2


CHIP = Accelerator(
    "chip", 100e12, 50e12, memory=16e9, memory_bandwidth=1e12, node=8, link=100e9, network=10e9
)
STEP = StepCost(
    platform="gpu",
    device_kind="chip",
    devices=8,
    dtype="float32",
    batch=64,
    image_shape=(8, 8, 3),
    arguments=5,
    outputs=4,
    aliased=3,
    temporaries=20,
    code=1,
    flops=5e12,
    model_flops=4e12,
    bytes_accessed=0.2e12,
    collectives=(Collective("all-reduce", int(8e9)),),
    compile_s=1.0,
)


def test_the_bound_is_the_largest_of_three_times():
    limit = bound(STEP, CHIP)
    assert limit.compute == pytest.approx(5e12 / 50e12)
    assert limit.memory == pytest.approx(0.2)
    assert limit.network == pytest.approx(2 * 7 / 8 * 8e9 / 100e9)
    assert (limit.by, limit.step) == ("memory", pytest.approx(0.2))
    assert limit.images_per_s == pytest.approx(64 / 0.2)
    assert limit.mfu == pytest.approx(4e12 / 50e12 / 0.2)


def test_the_program_of_a_cpu_has_twice_the_bytes_of_bfloat16():
    on_cpu = dataclasses.replace(STEP, platform="cpu", dtype="bfloat16")
    limit = bound(on_cpu, CHIP)
    assert limit.memory == pytest.approx(0.1)
    assert limit.compute == pytest.approx(5e12 / 100e12)
    assert limit.by == "network"


@pytest.mark.parametrize(
    ("collective", "devices", "seconds"),
    [
        (Collective("all-reduce", 1000), 1, 0),
        (Collective("all-gather", 1000), 8, 7 / 8 * 1000 / 100e9),
        # 125 bytes are left of 1000.
        (Collective("reduce-scatter", 125), 8, 7 / 8 * 1000 / 100e9),
        (Collective("all-reduce", 1000), 4, 2 * 3 / 4 * 1000 / 100e9),
        # Four nodes of eight: each device sends an eighth to other nodes.
        (Collective("all-reduce", 1000), 32, 2 * 3 / 4 * 125 / 10e9),
        (Collective("all-gather", 1000, ((0, 1), (2, 3))), 4, 1 / 2 * 1000 / 100e9),
        # Both in nodes of their own.
        (Collective("all-gather", 1000, ((0, 8), (1, 9))), 16, 1 / 2 * 1000 / 10e9),
        (Collective("all-gather", 1000, (), times=3), 8, 3 * 7 / 8 * 1000 / 100e9),
        (Collective("collective-permute", 1000), 8, 1000 / 100e9),
    ],
)
def test_the_time_of_a_collective_is_that_of_its_bytes(collective, devices, seconds):
    assert collective_seconds(collective, CHIP, devices) == pytest.approx(seconds)


def test_published_sets_need_not_be_there():
    imagenet = known_card("imagenet2012", 192).stand_in()
    assert (len(imagenet.train), len(imagenet.classes)) == (1_281_167, 1000)
    assert imagenet.image_shape == (192, 192, 3)
    cifar = known_card("cifar10", 224).stand_in()
    assert cifar.image_shape == (32, 32, 3)
    assert known_card("digits", 8) is None


def test_published_scenes_need_not_be_there(tmp_path):
    ade = preset("ade20k")
    model = ModelConfig(name="fcn_resnet18", blocks=(1, 1), widths=(4, 4), stem_width=4)
    config = dataclasses.replace(ade, model=model, run_dir=tmp_path / "run", mesh=MeshConfig(8))
    run = set_up(config, topology=None)
    assert (len(run.dataset.train), len(run.dataset.val)) == (20_210, 2_000)
    assert (len(run.dataset.classes), run.dataset.image_shape) == (150, (480, 480, 3))
    assert run.batches.steps_per_epoch == 20_210 // 16
    with pytest.raises(UsageError, match=r"images of ade20k have several sizes: .*crop.size"):
        set_up(dataclasses.replace(config, data=DataConfig(name="ade20k")), topology=None)


def test_cards_of_published_scenes_are_valid():
    published = {name: known_scenes(name, (64, 96)) for name in SCENE_SETS}
    assert [name for name, card in published.items() if card is None] == ["scenes", "masks"]
    for card in filter(None, published.values()):
        card.validate()
        assert card.image_shape == (64, 96, 3)
    assert known_scenes("cityscapes", None).image_shape == (1024, 2048, 3)
    assert known_scenes("voc2012", (9, 9)).classes[15] == "person"


def test_the_command_prints_what_a_step_needs_and_writes_nothing(plain, capsys):
    command = ["train", "--data.name", "imagenet2012", "--model.name", "plain"]
    command += ["--data.image-size", "16", "--data.batch-size", "64", "--run-dir"]
    command += [str(plain.run_dir), "--mesh.data", "8", "--dry-run", "--accelerators", "h100"]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    parameters = 3 * 3 * 3 * 4 + 4 * 1000 + 1000
    assert f"{parameters:,} parameters" in text
    assert f"{4 * (parameters + METRICS):,}" in text
    assert "8 images of 16x16 a device, mesh: data 8 x fsdp 1, float32" in text
    rows = [line.split() for line in text.splitlines() if line.startswith(("h100", "v5e"))]
    assert [row[:3] for row in rows] == [["h100", "0%", "fits"]]
    assert not plain.run_dir.exists()


def test_the_largest_of_several_sizes_is_compiled(plain):
    data = DataConfig(name="imagenet2012", image_size=16, train_sizes=(8, 24, 16), batch_size=8)
    step = compiled(dataclasses.replace(plain, epochs=3, data=data))
    assert step.image_shape == (24, 24, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--accelerators", "h10"], "unknown accelerator 'h10': did you mean .*h100"),
        (["--mesh.data", "4096"], "compiled for 1024 at most"),
        (["--mesh.data", "16"], "needs 16 devices, but there are 8"),
        (["--mesh.data", "5"], "cannot be divided over 5 devices: use 95 or 100"),
        (["--topology", "v5"], "unknown topology 'v5': did you mean v5"),
        (["--topology", "v5e"], "write the shape of the slice as v5e:4x4"),
    ],
)
def test_what_cannot_be_compiled_is_said_in_a_sentence(tiny, capsys, flags, message):
    command = ["train", "demo", "--data.batch-size", "96", "--dry-run", *flags]
    assert cli.main(command) == ExitCode.BAD_INPUT
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error


def test_the_flags_of_a_dry_run_need_it(capsys):
    assert cli.main(["train", "demo", "--topology", "v5e:4x4"]) == ExitCode.BAD_INPUT
    assert "need --dry-run" in capsys.readouterr().err


def test_tpus_are_compiled_for_by_their_own_compiler_alone(tiny, monkeypatch):
    monkeypatch.setattr(dry_run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install .*'\.\[tpu\]'"):
        set_up(tiny, topology="v5e:4x4")


def test_a_step_that_is_too_large_says_by_how_much(tiny, monkeypatch):
    error = jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.51G of 15.75G hbm. "
        "Exceeded hbm capacity by 4.76G."
    )

    class Lowered:
        def lower(self, *arguments):
            return self

        def compile(self, compiler_options):
            raise error

    run = set_up(tiny, topology=None)
    monkeypatch.setattr(type(run.programs), "train", Lowered())
    with pytest.raises(UsageError, match=r"it needs 20\.51G of 15\.75G"):
        compile_step(run)
