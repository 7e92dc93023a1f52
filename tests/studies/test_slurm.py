"""The array on a stand-in for SLURM: its commands as scripts that run the tasks in this machine."""

import dataclasses
import os
import re
import stat

import pytest

from senet_jax.errors import ExitCode, UsageError
from senet_jax.studies import slurm
from senet_jax.studies.grid import jobs
from senet_jax.studies.runner import log_of
from senet_jax.studies.slurm import Detached, SlurmOptions, run_array
from senet_jax.studies.worker import Worker
from senet_jax.training.presets import preset
from senet_jax.training.records.metrics import read_metrics

SMALL = dataclasses.replace(
    preset("demo"),
    epochs=1,
    model=dataclasses.replace(
        preset("demo").model, name="cifar_resnet8", blocks=(1,), widths=(16,)
    ),
    data=dataclasses.replace(preset("demo").data, fraction=0.1),
)

SBATCH = """#!/bin/bash
# Runs the tasks of the array one after the other, behind the back of who submits them.
echo "$@" >> $FAKE/submitted
cp "${@: -1}" $FAKE/script
tasks=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' $FAKE/script)
for task in $(seq 0 ${tasks:-0}); do echo "7_$task PENDING" > $FAKE/state.$task; done
[ -e $FAKE/hold ] && tasks=-1
{
    for task in $(seq 0 ${tasks:-0}); do
        echo "7_$task RUNNING" > $FAKE/state.$task
        SLURM_JOB_ID=$((70 + task)) SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task \\
            bash $FAKE/script > $FAKE/out.$task 2>&1
        rm $FAKE/state.$task
    done
} > /dev/null 2>&1 &
echo "Submitted batch job 7"
"""
SRUN = """#!/bin/bash
while [ "$1" != "-u" ] && [[ "$1" != *python* ]]; do shift; done
exec "$@"
"""
SQUEUE = """#!/bin/bash
cat $FAKE/state.* 2> /dev/null
exit 0
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "squeue": SQUEUE}.items():
        script = folder / name
        script.write_text(text)
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "POLL_S", 0.2)
    return folder


@pytest.mark.slow
def test_each_run_is_a_task_of_an_array(tmp_path, cluster):
    absent = dataclasses.replace(SMALL.data, name="cifar10", dir=tmp_path / "nowhere")
    broken = dataclasses.replace(SMALL, data=absent)
    folder = tmp_path / "study"
    grid = jobs({"small": SMALL, "broken": broken}, folder, [0])
    shown = []
    options = SlurmOptions(partition="gpu", minutes=30, cpus=2, memory_gb=8, setup=("export X=1",))
    progress = run_array(
        "gates", grid, folder, lambda now: shown.append([one.state for one in now]), options, 3
    )
    assert [one.state for one in progress] == ["done", "failed"]
    assert progress[1].reason.startswith("error: cifar10 is not in")
    assert ["running", "waiting"] in shown
    assert read_metrics(grid[0].config.run_dir)[-1]["val/count"] == 360
    assert "360 held-out" in log_of(grid[0]).read_text()
    script = (cluster / "script").read_text()
    for line in (
        *("--array=0-1%2", "--job-name=gates", "--partition=gpu", "--time=30", "--mem=8GB"),
        *("--cpus-per-task=2", "--signal=USR1@120", "--requeue"),
    ):
        assert f"#SBATCH {line}\n" in script
    assert re.search(r"^srun .*--cpus-per-task=2 ", script, re.M)
    assert "\nexport X=1\n" in script


@pytest.mark.parametrize(("state", "requeued"), [("RUNNING", ["requeue 70"]), ("COMPLETING", [])])
def test_what_is_stopped_queues_again_unless_scancel_stopped_it(
    tmp_path, cluster, monkeypatch, state, requeued
):
    calls = cluster / "scontrol.calls"
    calls.touch()
    (cluster / "scontrol").write_text('#!/bin/bash\necho "$@" >> $FAKE/scontrol.calls\n')
    (cluster / "scontrol").chmod(0o755)
    (cluster / "state.0").write_text(f"7_0 {state}\n")
    monkeypatch.setenv("SLURM_JOB_ID", "70")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setattr(slurm, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(Worker, "train", lambda self, config: ExitCode.PREEMPTED)
    config = dataclasses.replace(SMALL, run_dir=tmp_path / "run").to_json()
    with pytest.raises(SystemExit, match="75"):
        slurm.Task(config, str(tmp_path / "log"), str(tmp_path / "cache"))()
    assert calls.read_text().splitlines() == requeued


def test_what_is_in_the_queue_is_watched_and_not_submitted_again(tmp_path, cluster):
    (cluster / "hold").touch()
    folder = tmp_path / "study"
    grid = jobs({"small": SMALL, "other": dataclasses.replace(SMALL, epochs=2)}, folder, [0])

    def interrupt(progress):
        assert [one.state for one in progress] == ["waiting", "waiting"]
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(Detached, match="scancel 7"):
            run_array("gates", grid, folder, interrupt, SlurmOptions())
    assert len((cluster / "submitted").read_text().splitlines()) == 1


def test_a_task_that_vanishes_has_failed(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(slurm, "SEEN_AFTER_S", 0.5)
    (cluster / "hold").touch()
    folder = tmp_path / "study"
    grid = jobs({"small": SMALL, "other": dataclasses.replace(SMALL, epochs=2)}, folder, [0])

    def cancel(progress):
        for file in cluster.glob("state.*"):
            file.unlink()

    progress = run_array("gates", grid, folder, cancel, SlurmOptions())
    assert [one.state for one in progress] == ["failed", "failed"]
    assert progress[0].reason.startswith("left SLURM's queue without a result")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null", "it holds no JSON object: take it away if none of"),
        ('{"a', "Unterminated string .*: take it away if none of"),
        ('{"small/seed0": 7}', "has tasks that SLURM does not number so"),
        ('{"small/seed0": "--me"}', "has tasks that SLURM does not number so"),
    ],
)
def test_a_damaged_list_of_tasks_is_named(tmp_path, cluster, text, message):
    grid = jobs({"small": SMALL}, tmp_path / "study", [0])
    file = tmp_path / "study" / ".slurm" / "tasks.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(UsageError, match=rf"tasks\.json .*{message}"):
        run_array("gates", grid, tmp_path / "study", print, SlurmOptions())
    assert not (cluster / "submitted").exists()


def test_a_damaged_result_of_a_task_is_a_failure(tmp_path):
    submitit = slurm._submitit()
    task = submitit.SlurmJob(folder=tmp_path, job_id="7_0")
    for data in (b"\x80\x04torn", b"cnowhere\nnothing\n.", b"N."):
        task.paths.result_pickle.parent.mkdir(parents=True, exist_ok=True)
        task.paths.result_pickle.write_bytes(data)
        assert slurm._result(task) == 1


def test_without_slurm_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    grid = jobs({"small": SMALL}, tmp_path / "study", [0])
    with pytest.raises(UsageError, match="SLURM takes no array here"):
        run_array("gates", grid, tmp_path / "study", print, SlurmOptions())
    (tmp_path / "study" / ".slurm").mkdir(parents=True)
    (tmp_path / "study" / ".slurm" / "tasks.json").write_text('{"small/seed0": "7_0"}')
    with pytest.raises(UsageError, match="squeue cannot be asked"):
        run_array("gates", grid, tmp_path / "study", print, SlurmOptions())
    with pytest.raises(UsageError, match=r"slurm\.minutes must be at least 5"):
        SlurmOptions(minutes=1).parameters("gates", None)
