"""The set of measurements for one GPU: its parts run small, and their deadlines hold."""

import argparse
import dataclasses
import functools
import json
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.benchmarks import gpu
from experiments.benchmarks.harness import cifar_seeds, contenders
from experiments.benchmarks.harness.contenders import OURS, PLAIN_FLAX
from experiments.benchmarks.harness.gpu_parts import PARTS, TINY, Setting
from experiments.benchmarks.harness.gpu_report import TITLES, report, with_bytes
from experiments.benchmarks.harness.plain_flax import PLAIN, PlainResNet
from senet_jax.errors import UsageError
from senet_jax.models import zoo
from senet_jax.models.resnet import SE_ROUNDED, ResNet

SCALE = dataclasses.replace(
    TINY,
    race=("small",),
    variants=("small", "small_se"),
    cifar=("small", "small_se"),
    cifar_batch=16,
    cifar_epochs=1,
)


@pytest.fixture
def small(monkeypatch):
    """A network of one block, "small", in the zoo and in plain Flax, and "small_se"."""
    one_block = {"blocks": (1,), "widths": (16,)}
    monkeypatch.setitem(zoo.ZOO, "small", zoo.ZooEntry(ResNet, one_block, 32))
    attentive = zoo.ZooEntry(ResNet, {**one_block, "attention": SE_ROUNDED}, 32)
    monkeypatch.setitem(zoo.ZOO, "small_se", attentive)
    monkeypatch.setitem(PLAIN, "small", functools.partial(PlainResNet, **one_block))


def setting(folder, name, seconds=600.0, **changes):
    given = {"torch_python": None, "images": None, **changes}
    ends = time.monotonic() + seconds
    return Setting(scale=SCALE, ends=ends, out=folder / f"{name}.json", **given)


def measured(folder, name, **changes):
    """The rows that a part wrote, and its list of skipped work."""
    PARTS[name].measure(setting(folder, name, **changes))
    result = json.loads((folder / f"{name}.json").read_text())
    return result["rows"], result["skipped"]


def test_the_parts_import_no_more_than_is_there():
    code = "import sys, experiments.benchmarks.gpu; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    absent = {"tyro", "dacite", "grain", "tensorflow_datasets", "orbax", "matplotlib", "torch"}
    assert absent.isdisjoint(done.stdout.split())


def test_the_race_and_the_overhead_run_small_and_are_reported(small, tmp_path):
    race, skipped = measured(tmp_path, "race")
    assert [(row["mode"], row["contender"]) for row in race] == [
        ("train", OURS),
        ("train", PLAIN_FLAX),
        ("infer", OURS),
    ]
    assert skipped == []
    overhead, _ = measured(tmp_path, "overhead")
    assert [row["contender"] for row in overhead] == ["small", "small_se"]
    assert overhead[0]["this / without"]["median"] == 1
    text = report(tmp_path)
    assert (tmp_path / "README.md").read_text() == text
    assert "## ResNet-50 and SE-ResNet-50" in text
    assert "| small | train | 32 | 2 | senet_jax |" in text


def test_operations_are_measured_small(tmp_path):
    lowerings, skipped = measured(tmp_path, "lowerings")
    forms = [(row["pass"], row["form"]) for row in lowerings]
    assert forms == [
        (each, form) for each in ("forward", "input", "kernel") for form in ("native", "chunked")
    ]
    assert lowerings[0]["this / native"]["median"] == 1
    norms, _ = measured(tmp_path, "norms")
    assert [row["case"] for row in norms] == ["batch norm, relu 2x112x112x64"]
    assert skipped == []


def test_a_peer_that_fails_is_listed_and_spoils_nothing(small, tmp_path, monkeypatch, capfd):
    (tmp_path / "torch_worker.py").write_text("import sys; sys.exit('out of memory')")
    monkeypatch.setattr(contenders, "__file__", str(tmp_path / "contenders.py"))
    rows, skipped = measured(tmp_path, "race", torch_python=sys.executable, seconds=60)
    assert skipped == [
        f"PyTorch small {mode}: the process ended; see above for why" for mode in ("train", "infer")
    ]
    assert "out of memory" in capfd.readouterr().err
    # 60 seconds are too few for plain Flax.
    assert [row["contender"] for row in rows] == [OURS, OURS]


@pytest.mark.parametrize(
    ("name", "work"),
    [
        ("race", ["small train", "small infer"]),
        ("large", ["resnest14d train"]),
        ("lowerings", ["lowerings of (8, 16, 16, 3, 1, 4)"]),
        ("detector", ["maskrcnn_resnet18_fpn train", "maskrcnn_resnet18_fpn infer"]),
        ("overhead", ["overhead of small", "overhead of small_se"]),
        ("norms", ["batch norm, relu 2x112x112x64"]),
    ],
)
def test_work_that_does_not_fit_into_the_time_is_listed(small, tmp_path, name, work):
    assert measured(tmp_path, name, seconds=0) == ([], work)


def options(folder, **changes):
    given = {"images": None, "torch_python": None, "tiny": True, "minutes": 1, "parts": ["norms"]}
    return argparse.Namespace(out=folder, **{**given, **changes})


def test_a_part_is_killed_at_its_deadline(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "LEAST_S", 0.0)
    # Too short to import jax.
    assert gpu.run(options(tmp_path, minutes=0.2 / 60, parts=["norms", "race"])) == 0
    parts = json.loads((tmp_path / "parts.json").read_text())
    assert parts[0]["ended"] == "killed at its deadline"
    assert parts[1]["ended"] == "skipped: no time is left"
    assert not (tmp_path / "norms.json").exists()


def test_a_part_that_fails_is_named(tmp_path):
    (tmp_path / "norms.json").mkdir()
    assert gpu.run(options(tmp_path)) == 1
    (part,) = json.loads((tmp_path / "parts.json").read_text())
    assert part["ended"] == "failed with exit code 1"


def test_the_subset_is_balanced_and_stored_without_loss(tmp_path):
    splits = cifar_seeds.noise(400, 90)
    kept = {name: cifar_seeds.balanced(split, 5) for name, split in splits.items()}
    train = kept["train"]
    assert np.bincount(train.labels).tolist() == [5] * 10
    for label in range(10):
        first = splits["train"].images[splits["train"].labels == label][:5]
        np.testing.assert_array_equal(train.images[train.labels == label], first)
    with pytest.raises(UsageError, match=r"a class has [0-9]+ images, and 60 are asked for"):
        cifar_seeds.balanced(splits["train"], 60)
    cifar_seeds.pack(kept, tmp_path / "subset.npz")
    read = cifar_seeds.unpack(tmp_path / "subset.npz")
    for name, split in kept.items():
        np.testing.assert_array_equal(read[name].images, split.images)
        np.testing.assert_array_equal(read[name].labels, split.labels)


@pytest.mark.slow
def test_seeds_follow_each_other_until_the_time_ends(small, tmp_path):
    rows, skipped = measured(tmp_path, "cifar")
    assert [(row["network"], row["seed"]) for row in rows] == [
        (name, seed) for seed in (0, 1) for name in SCALE.cifar
    ]
    assert skipped == ["CIFAR-10: no images were given, and noise takes their place"]
    assert measured(tmp_path, "cifar", seconds=0)[0] == []


def test_the_errors_of_two_networks_are_compared_by_seed(tmp_path):
    errors = {"cifar_resnet56": (9.0, 9.4, 9.2), "cifar_seresnet56": (8.6, 8.8, 8.8)}
    rows = [
        {"network": name, "seed": seed, "test error, %": error}
        for name, own in errors.items()
        for seed, error in enumerate(own)
    ]
    machine = {"commit": "abc", "date": "2026-11-30T", "device": "H200", "versions": {"jax": "1"}}
    result = {"machine": machine, "rows": rows, "skipped": ["seed 3"]}
    (tmp_path / "cifar.json").write_text(json.dumps(result))
    text = report(tmp_path)
    assert "cifar_resnet56 9.20 %, cifar_seresnet56 8.73 %" in text
    # Differences of 0.4, 0.6 and 0.4, and Student's quantile of two degrees of freedom.
    assert "-0.47 points [-0.75, -0.18]" in text
    assert "Left out: seed 3." in text
    assert (tmp_path / "cifar.png").stat().st_size > 5_000


@pytest.mark.slow
def test_a_run_learns_and_its_errors_are_of_its_images(small):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 160).astype(np.int32)
    # Each class has a brightness of its own.
    images = np.broadcast_to((20 + 23 * labels)[:, None, None, None], (160, 32, 32, 3))
    split = cifar_seeds.Split(images.astype(np.uint8), labels)
    splits = {"train": split, "test": split}
    training = cifar_seeds.Training("small", splits, epochs=6, batch=16, dtype="float32")
    row = training.run(0, lambda: True)
    assert row["test error, %"] < 60
    assert row["train error, %"] < 60
    assert training.run(0, lambda: True)["test error, %"] == row["test error, %"]
    assert training.run(0, lambda: False) is None


def test_steps_stand_beside_the_bytes_of_the_account(tmp_path):
    account = {"size": 224, "batch": 256, "rows": [{"network": "resnet50", "GB": 64.0}]}
    (tmp_path / "h100.json").write_text(json.dumps(account))
    row = {"model": "resnet50", "mode": "train", "size": 224, "batch": 128, "contender": OURS}
    timed = {**row, "step_s": {"median": 0.02}}
    (found,) = with_bytes(
        [timed, {**timed, "mode": "infer"}, {**timed, "size": 320}, {**row, "step_s": None}],
        tmp_path,
    )
    assert found["GB of the account"] == 32
    assert found["ms a step"] == 20
    assert found["TB/s"] == pytest.approx(1.6)


def test_each_part_has_a_title_and_all_fit_into_fifteen_minutes():
    assert TITLES.keys() == PARTS.keys()
    assert sum(part.seconds for part in PARTS.values()) < 15 * 60


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no results of a part"):
        report(tmp_path)
