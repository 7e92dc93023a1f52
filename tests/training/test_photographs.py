"""Training on a folder of tiny photographs: workers, resumption, what goes wrong."""

import dataclasses
import logging
import os
import signal

import jax
import numpy as np
import pytest
from PIL import Image

from senet_jax.data.config import AugmentConfig
from senet_jax.errors import UsageError
from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.loop import Preempted, train
from senet_jax.training.records.metrics import read_metrics
from senet_jax.training.run import Run


@pytest.fixture
def photographs(tiny, tmp_path):
    """Six epochs over 24 photographs in two sizes; 12 steps."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 3)):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:02}.jpg")
    data = dataclasses.replace(
        tiny.data,
        name="folder",
        dir=tmp_path / "data",
        image_size=16,
        train_sizes=(8, 16),
        batch_size=12,
        eval_batch_size=4,
        balanced=True,
        augment=AugmentConfig(flip=True),
    )
    return dataclasses.replace(tiny, epochs=6, data=data, eval_every_epochs=6)


def with_workers(config, workers):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, workers=workers))


def outcome(config):
    checkpoints = Checkpoints(config.run_dir / "checkpoints")
    state = checkpoints.restore(checkpoints.steps()[-1], Run(config).abstract).state
    lines = [
        {key: value for key, value in line.items() if not key.startswith("time/")}
        for line in read_metrics(config.run_dir)
    ]
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)], lines


def stop_after(steps):
    """A hook that sends this process a signal after so many steps."""
    counted = iter(range(1, 10**6))

    def count(step):
        if next(counted) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    return count


@pytest.mark.slow
@pytest.mark.usefixtures("shared_programs")
def test_a_run_resumed_with_other_workers_ends_alike(photographs, tmp_path):
    stopped = dataclasses.replace(photographs, run_dir=tmp_path / "stopped")
    last = train(photographs)
    assert last["val/count"] == 6
    for workers, stop in ((0, 3), (1, 4)):
        with pytest.raises(Preempted):
            train(with_workers(stopped, workers), on_step=stop_after(stop))
    train(with_workers(stopped, 0))
    assert outcome(stopped) == outcome(photographs)


def test_a_broken_validation_image_does_not_count_and_is_named(photographs, caplog):
    (photographs.data.dir / "val" / "cat" / "01.jpg").write_bytes(b"no image")
    with caplog.at_level(logging.WARNING, "senet_jax"):
        last = train(dataclasses.replace(photographs, epochs=1))
    assert last["val/count"] == 5
    assert "val/cat/01.jpg" in caplog.text


def test_a_vanished_data_set_ends_the_run_and_keeps_checkpoints(photographs):
    def vanish(step):
        if step == 6:
            # At once, as a disk that is unmounted.
            (photographs.data.dir / "train").rename(photographs.data.dir / "elsewhere")

    with pytest.raises(UsageError, match="can no longer be read"):
        train(dataclasses.replace(photographs, epochs=200), on_step=vanish)
    assert Checkpoints(photographs.run_dir / "checkpoints").steps()
