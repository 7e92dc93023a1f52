"""Disks that are full or read-only, damaged files, two runs: one sentence, and nothing is lost."""

import dataclasses
import resource

import orbax.checkpoint as ocp
import pytest

from experiments.benchmarks.faults import abstract, damaged_files, numbers, same
from senet_jax import cli
from senet_jax.config import CheckpointConfig
from senet_jax.errors import UsageError
from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.checkpoints.snapshot import NotFinite
from senet_jax.training.loop import train
from senet_jax.training.records.lock import run_lock

pytestmark = pytest.mark.usefixtures("shared_programs")


def test_each_file_of_a_checkpoint_truncated_emptied_and_deleted(tmp_path):
    faults = list(damaged_files(tmp_path))
    assert len(faults) > 20
    assert [fault for fault in faults if not fault.survived] == []
    fell_back = [fault for fault in faults if "cannot be read" in fault.message]
    assert {fault.what.split("/")[1] for fault in fell_back} == {"meta", "state"}


@pytest.fixture
def full_disk():
    """A limit on the size of files, which is what this process may set by itself."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

    def mend():
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    yield fill, mend
    mend()


@pytest.mark.parametrize("noticed", ["save", "wait", "close"])
def test_a_disk_that_is_full_is_said_at_the_next_call(tmp_path, full_disk, noticed):
    fill, mend = full_disk
    size = 1_000_000
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(keep_last=1))
    checkpoints.save(numbers(1, size), {}, {})
    checkpoints.wait()
    fill()
    checkpoints.save(numbers(2, size), {}, {})
    call = {
        "save": lambda: checkpoints.save(numbers(3, size), {}, {}),
        "wait": checkpoints.wait,
        "close": checkpoints.close,
    }[noticed]
    with pytest.raises(UsageError, match=r"step 2 could not be saved in .*; those before it are"):
        call()
    mend()
    # The one that was to be replaced is still there, and room is all that it takes to go on.
    again = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(keep_last=1))
    assert again.steps() == [1]
    assert same(again.restore(1, abstract(size)).state, numbers(1, size))
    again.prepare()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
    again.save(numbers(2, size), {}, {})
    again.close()
    assert again.steps() == [2]


def test_a_run_whose_last_save_fails_claims_no_save(tiny, monkeypatch):
    config = dataclasses.replace(tiny, epochs=1)
    written = []
    save = ocp.Checkpointer.save

    def failing(self, path, *args, **kwargs):
        written.append(path.name)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        save(self, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ocp.Checkpointer, "save", failing)
        with pytest.raises(UsageError, match=r"step 14 could not be saved.*No space left"):
            train(config)
    checkpoints = Checkpoints(tiny.run_dir / "checkpoints")
    assert written == ["5", "10", "14"]
    assert checkpoints.steps() == [5, 10]
    for step in (5, 10):
        checkpoints.verify(step)


def test_what_ended_a_run_is_told_and_not_what_failed_after_it(tmp_path, monkeypatch, caplog):
    def failing(self, path, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ocp.Checkpointer, "save", failing)

    def run():
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            checkpoints.save(numbers(1), {}, {})
            raise NotFinite

    with pytest.raises(NotFinite):
        run()
    assert "step 1 could not be saved" in caplog.text


def test_a_read_only_folder_is_refused_before_the_first_step(tiny, tmp_path):
    (tmp_path / "file").write_text("no folder")
    where = dataclasses.replace(tiny.checkpoint, dir=str(tmp_path / "file" / "checkpoints"))
    with pytest.raises(UsageError, match=r"checkpoints cannot be written to .*--checkpoint\.dir"):
        train(dataclasses.replace(tiny, checkpoint=where))


def test_a_run_whose_checkpoints_lie_elsewhere_is_the_same_run(tiny, tmp_path):
    where = dataclasses.replace(tiny.checkpoint, dir=str(tmp_path / "elsewhere"))
    config = dataclasses.replace(tiny, epochs=1, checkpoint=where)
    last = train(config)
    assert not (tiny.run_dir / "checkpoints").exists()
    assert Checkpoints(tmp_path / "elsewhere").steps()[-1] == 14
    assert train(config) == last
    assert cli.main(["checkpoints", str(tiny.run_dir)]) == 0


def test_two_runs_in_one_folder(tiny):
    with run_lock(tiny.run_dir), pytest.raises(UsageError, match="is in use by process"):
        train(tiny)
