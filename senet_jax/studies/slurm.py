"""The jobs of a study as a SLURM array, a task for each run, through submitit.

The tasks are SLURM's: they go on when the process that submitted them ends. Given again, the same
command watches what is in the queue and submits only the rest.
"""

import contextlib
import dataclasses
import json
import os
import pickle
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from senet_jax.errors import ExitCode, UsageError, installs, require
from senet_jax.files import os_reason, read_json_object, write_text
from senet_jax.ranges import MOST_DEVICES, MOST_STEPS, whole
from senet_jax.studies.grid import Job
from senet_jax.studies.runner import CACHE, SOURCES, Progress, Show, log_of, where_they_stand
from senet_jax.training.machine.allocator import keep_freed_memory

POLL_S = 3.0

SEEN_AFTER_S = 60.0
"""Seconds after which a shared folder shows what a task wrote before it left the queue."""

RESTARTS = 50
"""The number of times that a task that was told to stop goes back into the queue."""


@dataclasses.dataclass(frozen=True)
class SlurmOptions:
    """The resources that each run asks SLURM for; a field of None is left to the cluster."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    # SLURM keeps minutes as uint32; a run saves its state 2 minutes before the end.
    minutes: Annotated[int, whole(5, MOST_STEPS)] = 1440
    """Longest time of a run. Two minutes before its end it saves its state and queues again."""
    gpus: Annotated[int | None, whole(1, 1024, none="left to the cluster")] = None
    """GPUs of a run."""
    cpus: Annotated[int | None, whole(1, 65_536, none="left to the cluster")] = None
    """CPU cores of a run."""
    memory_gb: Annotated[int | None, whole(1, MOST_DEVICES, none="left to the cluster")] = None
    """Gigabytes of memory of a run."""
    setup: tuple[str, ...] = ()
    """Shell commands before the run, such as "module load cuda"."""

    def parameters(self, name: str, at_once: int | None) -> dict[str, Any]:
        """The same as submitit names them."""
        require(self.minutes >= 5, "slurm.minutes", self.minutes, "at least 5")
        wanted = {
            "job_name": name,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "time": self.minutes,
            "gpus_per_node": self.gpus,
            "cpus_per_task": self.cpus,
            # From SLURM 22.05 on, srun does not take over the CPUs that sbatch was asked for.
            "srun_args": None if self.cpus is None else [f"--cpus-per-task={self.cpus}"],
            "mem": None if self.memory_gb is None else f"{self.memory_gb}GB",
            "setup": list(self.setup) or None,
            "signal_delay_s": 120,
            "array_parallelism": at_once,
            "additional_parameters": {"requeue": True},
        }
        return {field: value for field, value in wanted.items() if value is not None}


class Detached(Exception):
    """The watch over a queue was ended; the runs go on. The message says how to stop them."""


@dataclasses.dataclass(frozen=True)
class Task:
    """The work of a task of the array; it can be pickled."""

    config: dict[str, Any]
    """The run, as JSON's values."""
    log: str
    """File that takes what it prints."""
    cache: str
    """Folder of compiled programs."""

    def __call__(self) -> int:
        """Trains the run, or resumes it; returns the exit code of ``senet-jax train``."""
        os.environ["JAX_COMPILATION_CACHE_DIR"] = self.cache
        keep_freed_memory()
        # Only now, because they import jax.
        from senet_jax.config import TrainConfig
        from senet_jax.studies.worker import Worker, printing_to

        with printing_to(self.log):
            code = Worker().train(TrainConfig.from_json(self.config))
        if (
            code == ExitCode.PREEMPTED
            and int(os.environ.get("SLURM_RESTART_COUNT", "0")) < RESTARTS
        ):
            number = os.environ["SLURM_JOB_ID"]
            # A job that scancel stops is no longer running, and must stay out of the queue.
            if "RUNNING" in _states({number}).values():
                subprocess.run(["scontrol", "requeue", number], check=True)
            # No result, by which the watch would take the run for ended.
            raise SystemExit(code)
        return code

    def checkpoint(self, *args: Any) -> Any:
        """The task that submitit queues again at a signal before the training has begun."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_array(
    name: str,
    jobs: Sequence[Job],
    folder: Path,
    show: Show,
    options: SlurmOptions,
    at_once: int | None = None,
) -> list[Progress]:
    """Submits all jobs that have not ended and are not in the queue, and watches until all have.

    Args:
        name: Name of the study, which the array has in the queue.
        jobs: The runs.
        folder: Folder of the study, which all nodes see.
        show: Is called with where all jobs stand.
        options: The resources of each run.
        at_once: The most runs that SLURM starts at once; None means no such limit.

    Returns:
        Where each job stands in the end.

    Raises:
        UsageError: There is no SLURM here, submitit is missing, or SLURM refuses the array.
        Detached: Ctrl-C: the watch ends, and the runs go on.
    """
    submitit = _submitit()
    about = folder / ".slurm"
    queue = _Queue(submitit, about)
    progress = where_they_stand(jobs)
    absent = [one.job for one in progress if one.state == "waiting" and not queue.has(one.job)]
    if absent:
        queue.submit(absent, folder / CACHE, options.parameters(name, at_once))
    try:
        while True:
            queue.look(progress)
            show(progress)
            if all(one.state in ("done", "failed") for one in progress):
                return progress
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        numbers = sorted({queue.number(one.job) for one in progress if queue.has(one.job)})
        raise Detached(
            "the runs go on in SLURM: the same command watches them again, "
            f"`scancel {' '.join(numbers)}` stops them."
        ) from None


def _submitit() -> Any:
    # Read when submitit is imported, here and in the tasks: the signal that the training knows.
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"
    try:
        import submitit
    except ImportError as error:
        raise UsageError(f"--launcher slurm needs submitit: {installs('slurm')}.") from error
    return submitit


class _Queue:
    """The tasks of a study that were submitted, and where SLURM says they stand."""

    def __init__(self, submitit: Any, about: Path) -> None:
        self._submitit, self._about = submitit, about
        self._file = about / "tasks.json"
        self._tasks = _read_tasks(self._file)
        states = _states({task.partition("_")[0] for task in self._tasks.values()})
        self._tasks = {name: task for name, task in self._tasks.items() if task in states}
        self._gone: dict[str, float] = {}

    def has(self, job: Job) -> bool:
        """Tells whether the job was submitted and had not left the queue at first."""
        return job.name in self._tasks

    def number(self, job: Job) -> str:
        """The number of the array to which the task of a job belongs."""
        return self._tasks[job.name].partition("_")[0]

    def submit(self, jobs: Sequence[Job], cache: Path, parameters: dict[str, Any]) -> None:
        """Submits the jobs as one array."""
        try:
            executor = self._submitit.SlurmExecutor(self._about.absolute())
            executor.update_parameters(**parameters)
            tasks = [
                Task(job.config.to_json(), str(log_of(job).absolute()), str(cache.absolute()))
                for job in jobs
            ]
            # The tasks find this code wherever it was started from.
            with _on_path(SOURCES), executor.batch():
                submitted = [executor.submit(task) for task in tasks]
        except (RuntimeError, subprocess.CalledProcessError) as error:
            raise UsageError(f"SLURM takes no array here: {error}") from error
        except OSError as error:
            raise UsageError(
                f"the array cannot be written to {self._about}: {os_reason(error)}."
            ) from error
        self._tasks |= {job.name: task.job_id for job, task in zip(jobs, submitted, strict=True)}
        write_text(self._file, json.dumps(self._tasks, indent=1))

    def look(self, progress: Sequence[Progress]) -> None:
        """Brings up to date where the jobs stand."""
        states = _states({task.partition("_")[0] for task in self._tasks.values()})
        for one in progress:
            if one.state in ("done", "failed"):
                continue
            name = self._tasks[one.job.name]
            task = self._submitit.SlurmJob(folder=self._about.absolute(), job_id=name)
            if task.paths.result_pickle.exists():
                one.settle(_result(task))
            elif name in states:
                self._gone.pop(name, None)
                if states[name] == "RUNNING" and one.state == "waiting":
                    one.state, one.began = "running", time.monotonic()
                elif states[name] == "PENDING":
                    one.state = "waiting"
            elif time.monotonic() - self._gone.setdefault(name, time.monotonic()) > SEEN_AFTER_S:
                one.settle(0 if one.job.done else 1)
                one.reason = one.reason and f"left SLURM's queue without a result: {one.reason}"


def _read_tasks(file: Path) -> dict[str, str]:
    """The tasks that were submitted, by the names of their jobs.

    Raises:
        UsageError: The file cannot be read, or is none that ``_Queue.submit`` writes.
    """
    if not file.exists():
        return {}
    instead = "take it away if none of these runs is in SLURM's queue."
    try:
        tasks = read_json_object(file, "the tasks of a study in SLURM")
    except UsageError as error:
        raise UsageError(f"{str(error).rstrip('.')}: {instead}") from error
    if not all(isinstance(task, str) and _TASK.fullmatch(task) for task in tasks.values()):
        raise UsageError(f"{file} has tasks that SLURM does not number so: {instead}")
    return tasks


_TASK = re.compile(r"\d+(_\d+)?")


_UNREADABLE = (
    *(OSError, EOFError, pickle.UnpicklingError),
    # Unpickling a damaged file can raise these too.
    *(AttributeError, ImportError, LookupError, TypeError, ValueError),
)


def _result(task: Any) -> int:
    """The exit code of a task that wrote its result; 1 if that is an error, or is damaged."""
    try:
        return int(task.result()) if task.exception() is None else 1
    except _UNREADABLE:
        return 1


def _states(arrays: set[str]) -> dict[str, str]:
    """The state of each task of some arrays that is in SLURM's queue, by its name 12_3."""
    if not arrays:
        return {}
    command = ["squeue", "--noheader", "--array", "--format", "%i %T", "--jobs", ",".join(arrays)]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise UsageError(
            f"squeue cannot be asked where the runs stand: {error.strerror}."
        ) from error
    # An array that left the queue long ago is an error to squeue, if it is the only one.
    if asked.returncode and "Invalid job id" not in asked.stderr:
        raise UsageError(f"squeue cannot be asked: {asked.stderr.strip()}")
    return dict(line.split() for line in asked.stdout.splitlines())


@contextlib.contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), before or ""])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
