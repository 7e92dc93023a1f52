import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.config import CheckpointConfig, TrainConfig
from senet_jax.errors import UsageError
from senet_jax.tasks import best_metric
from senet_jax.tasks.metrics import Metric
from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.checkpoints.snapshot import NotFinite
from senet_jax.training.records.inventory import take_inventory
from senet_jax.training.state import TrainState


def state(step, value=None, width=1000):
    value = float(step) if value is None else value
    leaf = jnp.arange(width, dtype=jnp.float32) + value
    return TrainState(jnp.int32(step), {"w": leaf}, {"m": leaf * 2}, (leaf * 3,), None)


def abstract(tree):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree)


LIKE = abstract(state(0))

TOP1 = Metric("top1", "top-1", True)


def same(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of the steps 1, 2 and 3, of which the first is the best."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(keep_last=2), TOP1)
    for step, top1 in ((1, 0.9), (2, 0.5), (3, 0.6)):
        checkpoints.save(state(step), {"meter": {"loss": step}}, {"val/top1": top1})
    checkpoints.close()
    return tmp_path / "checkpoints"


def test_what_was_saved_comes_back(folder):
    restored = Checkpoints(folder).restore_newest(LIKE)
    assert restored.step == 3
    assert restored.extra == {"meter": {"loss": 3}}
    assert same(restored.state, state(3))


def test_the_best_and_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(keep_last=2), TOP1)
    for step, top1 in ((1, 0.1), (2, 0.9), (3, None), (4, 0.5), (5, None), (6, 0.3)):
        checkpoints.save(state(step), {}, {} if top1 is None else {"val/top1": top1})
        checkpoints.wait()
    assert checkpoints.steps() == [2, 5, 6]
    assert checkpoints.best_step() == 2


def test_the_task_says_which_is_the_best(tmp_path, median):
    metric = best_metric(TrainConfig(task="median"))
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(keep_last=1), metric)
    for step, error in ((1, 0.5), (2, 0.25), (3, 0.75)):
        checkpoints.save(state(step), {}, {"epoch": step, "val/median": error})
        checkpoints.wait()
    assert checkpoints.steps() == [2, 3]
    assert checkpoints.best_step() == 2
    entries = take_inventory(tmp_path / "checkpoints", TrainConfig(task="median"))
    assert {entry.name: entry.kept for entry in entries} == {
        "2": ["newest", "best"],
        "3": ["newest"],
    }


def test_a_save_is_not_disturbed_by_the_buffers_it_came_from(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    wide = state(1, width=2_000_000)
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    checkpoints.save(wide, {}, {})
    jax.block_until_ready(overwrite(wide))
    checkpoints.wait()
    like = abstract(state(1, width=2_000_000))
    assert same(checkpoints.restore(1, like).state, state(1, width=2_000_000))


def test_nothing_there_is_nothing_restored_and_nothing_made(tmp_path):
    assert Checkpoints(tmp_path / "checkpoints").restore_newest(LIKE) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_not_saved(folder, value):
    checkpoints = Checkpoints(folder)
    with pytest.raises(NotFinite):
        checkpoints.save(state(4, value), {}, {})
    assert checkpoints.steps() == [1, 2, 3]


def truncate(checkpoint):
    files = [file for file in (checkpoint / "state").rglob("d/*") if file.is_file()]
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(checkpoint):
    for file in checkpoint.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


def lose_state(checkpoint):
    shutil.rmtree(checkpoint / "state")


def change_numbers(checkpoint):
    """Another state under the old fingerprint: what a lost chunk, read as zeros, amounts to."""
    other = Checkpoints(checkpoint.parent.parent / "other")
    other.save(state(3, 77.0), {}, {"val/top1": 0.1})
    other.close()
    shutil.rmtree(checkpoint / "state")
    shutil.move(checkpoint.parent.parent / "other" / "3" / "state", checkpoint / "state")


@pytest.mark.parametrize("damage", [truncate, empty, lose_state, change_numbers])
def test_a_damaged_checkpoint_gives_way_to_the_newest_good_one(folder, caplog, damage):
    damage(folder / "3")
    checkpoints = Checkpoints(folder)
    with caplog.at_level(logging.WARNING):
        restored = checkpoints.restore_newest(LIKE)
    assert restored.step == 2
    assert same(restored.state, state(2))
    assert "falling back to the checkpoint of step 2" in caplog.text
    assert checkpoints.steps() == [1, 2]
    assert (folder.with_name("checkpoints-damaged") / "3").is_dir()
    # The step can be saved again, and what was set aside stays.
    checkpoints.save(state(3), {}, {})
    checkpoints.wait()
    assert same(checkpoints.restore(3, LIKE).state, state(3))


def test_a_checkpoint_of_another_network_is_refused(folder):
    with pytest.raises(UsageError, match="cannot be read"):
        Checkpoints(folder).restore(3, abstract(state(0, width=999)))


def test_if_none_can_be_read_nothing_is_moved(folder):
    for step in (1, 2, 3):
        empty(folder / str(step))
    with pytest.raises(UsageError, match="none of the 3 checkpoints"):
        Checkpoints(folder).restore_newest(LIKE)
    assert {path.name for path in folder.iterdir()} >= {"1", "2", "3"}


def test_an_unfinished_save_is_no_checkpoint(folder):
    shutil.copytree(folder / "3", folder / "4.orbax-checkpoint-tmp-0")
    checkpoints = Checkpoints(folder)
    assert checkpoints.steps() == [1, 2, 3]
    checkpoints.save(state(4), {}, {})
    checkpoints.wait()
    assert checkpoints.restore_newest(LIKE).step == 4
