"""Runs the jobs of a study, as many at once as there are slots, each slot a process of its own.

The process of a slot takes one run after the other, so that seeds of one config share what was
compiled; if it crashes or is killed, the run fails and another process takes the next one. What is
compiled is also kept in a folder of the study, for the processes of other slots and later ones.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from senet_jax.errors import UsageError
from senet_jax.files import os_reason, read_bytes
from senet_jax.studies.grid import Job
from senet_jax.studies.slots import Slot
from senet_jax.training.records.lock import is_held

State = Literal["waiting", "running", "done", "failed"]

POLL_S = 0.5

ENDS_WITHIN_S = 60.0
"""Seconds within which the runs of a study that was killed have noticed it and saved their state.
A run that is in use for longer is started, and fails with the sentence that says by whom."""

CACHE = ".compiled"
"""Folder of a study's compiled programs."""

SOURCES = Path(__file__).parents[2]
"""Folder in which the processes of a study find this code, wherever the study was started."""


@dataclasses.dataclass
class Progress:
    """The state of a job."""

    job: Job
    state: State
    began: float = 0.0
    """When it was started, in seconds of the monotonic clock."""
    reason: str = ""
    """Why a run failed: the last line that it printed, or the signal that killed its process."""

    def settle(self, code: int) -> None:
        """Notes how the run ended.

        Args:
            code: Its exit code; less than zero, the signal that killed its process.
        """
        if code == 0:
            self.state = "done"
            return
        self.state = "failed"
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", as Linux does where memory is short" if -code == signal.SIGKILL else ""
            self.reason = f"its process was killed by {name}{hint}"
            return
        try:
            lines = read_bytes(log_of(self.job)).decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        self.reason = lines[-1] if lines else f"exit code {code}"


Show = Callable[[Sequence[Progress]], None]


def where_they_stand(jobs: Sequence[Job]) -> list[Progress]:
    """The jobs before anything is started."""
    return [Progress(job, "done" if job.done else "waiting") for job in jobs]


def run_jobs(jobs: Sequence[Job], slots: Sequence[Slot], cache: Path, show: Show) -> list[Progress]:
    """Runs all jobs that have not ended; one that fails does not stop the others.

    Args:
        jobs: The runs. Those that have ended are not run again, interrupted ones are resumed.
        slots: The places for runs at once.
        cache: Folder of compiled programs.
        show: Is called with where all jobs stand, whenever that may have changed.

    Returns:
        Where each job stands in the end.

    Raises:
        KeyboardInterrupt: Asked to stop; the runs were told so and have saved their state.
    """
    progress = where_they_stand(jobs)
    began = time.monotonic()
    processes = [_SlotProcess(slot, cache) for slot in slots]
    try:
        while True:
            for process in processes:
                process.settle()
                patient = time.monotonic() - began < ENDS_WITHIN_S
                if process.free and (one := _next(progress, patient)) is not None:
                    process.start(one)
            show(progress)
            if all(one.state in ("done", "failed") for one in progress):
                return progress
            time.sleep(POLL_S)
    finally:
        for process in processes:
            process.dismiss()
        for process in processes:
            process.wait()


def _next(progress: Sequence[Progress], patient: bool) -> Progress | None:
    """The next run to start; while patient, none that a process of an earlier start still holds."""
    waiting = (one for one in progress if one.state == "waiting")
    return next((one for one in waiting if not (patient and is_held(one.job.config.run_dir))), None)


class _SlotProcess:
    """A slot, the process there, and the run that it trains."""

    def __init__(self, slot: Slot, cache: Path) -> None:
        self._slot, self._cache = slot, cache
        self._process: subprocess.Popen[bytes] | None = None
        self._orders: Connection | None = None
        self._current: Progress | None = None

    @property
    def free(self) -> bool:
        """Tells whether no run goes on here."""
        return self._current is None

    def start(self, one: Progress) -> None:
        """Starts a run, in the process that is there or in a new one."""
        one.state, one.began = "running", time.monotonic()
        self._current = one
        log = log_of(one.job)
        # It may have been killed while it waited.
        if self._process is None or self._process.poll() is not None:
            self._process, self._orders = self._launch(log)
        assert self._orders is not None
        self._orders.send({"config": one.job.config.to_json(), "log": str(log.absolute())})

    def _launch(self, log: Path) -> "tuple[subprocess.Popen[bytes], Connection]":
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            first = log.open("ab")
        except OSError as error:
            raise UsageError(f"{log} cannot be written: {os_reason(error)}.") from error
        ours, theirs = Pipe()
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")]),
            "JAX_COMPILATION_CACHE_DIR": str(self._cache.absolute()),
            **self._slot.variables,
        }
        with theirs, first:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "senet_jax.studies.worker", str(theirs.fileno())),
                    *map(str, self._slot.cores),
                ],
                env=variables,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=first,
                stderr=first,
                # A session of its own: Ctrl-C is for the runner, which then asks the runs to stop.
                start_new_session=True,
            )
        return process, ours

    def settle(self) -> None:
        """Notes it if the run has ended, or if its process has."""
        if self._current is None or self._process is None or self._orders is None:
            return
        if not self._orders.poll():
            return
        try:
            code = self._orders.recv()
        except (EOFError, ConnectionResetError):
            code = self._process.wait()
            self._process, self._orders = None, None
        self._current.settle(code)
        self._current = None

    def dismiss(self) -> None:
        """Lets the process save the state of its run, if there is one, and end."""
        if self._orders is not None:
            self._orders.close()

    def wait(self) -> None:
        """Waits for the process to end."""
        if self._process is not None:
            self._process.wait()


def log_of(job: Job) -> Path:
    """The file that takes what a run prints: beside its folder, in which nothing else may be."""
    folder = job.config.run_dir
    return folder.with_name(f"{folder.name}.log")
