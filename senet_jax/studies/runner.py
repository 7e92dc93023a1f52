"""Runs the jobs of a study, each in a process of its own, as many at once as there are places.

A process of its own so that a run that crashes, or is killed, takes nothing else with it. What is
compiled is kept in a cache of the study, so that a run that is resumed need not compile again; the
step of another seed is another program.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from senet_jax.errors import BAD_INPUT, UsageError
from senet_jax.studies.grid import Job

State = Literal["waiting", "running", "done", "failed"]

POLL_S = 0.5


@dataclasses.dataclass
class Progress:
    """Where a job stands."""

    job: Job
    state: State
    began: float = 0.0
    """When it was started, in seconds of the monotonic clock."""
    reason: str = ""
    """The last line that a failed run printed."""


def run_jobs(
    jobs: Sequence[Job],
    places: Sequence[Mapping[str, str]],
    cache: Path,
    show: Callable[[Sequence[Progress]], None],
) -> list[Progress]:
    """Runs all jobs that have not ended; one that fails does not stop the others.

    Args:
        jobs: The runs. Those that have ended are not run again, interrupted ones are resumed.
        places: What runs at once: for each place the environment variables of its processes, such
            as ``CUDA_VISIBLE_DEVICES``.
        cache: Folder of compiled programs.
        show: Is called with where all jobs stand, whenever that may have changed.

    Returns:
        Where each job stands in the end.

    Raises:
        KeyboardInterrupt: Asked to stop; the runs were told so and have saved their state.
    """
    progress = [Progress(job, "done" if job.done else "waiting") for job in jobs]
    running: dict[int, tuple[Progress, subprocess.Popen[bytes]]] = {}
    try:
        while True:
            for place, (ended, process) in list(running.items()):
                if process.poll() is not None:
                    _settle(ended, process.returncode)
                    del running[place]
            for place in range(len(places)):
                if place not in running and (one := _next(progress)) is not None:
                    one.state, one.began = "running", time.monotonic()
                    running[place] = (one, _start(one.job, places[place], cache))
            show(progress)
            if not running:
                return progress
            time.sleep(POLL_S)
    finally:
        for _, process in running.values():
            process.send_signal(signal.SIGTERM)
        for _, process in running.values():
            process.wait()


def _next(progress: Sequence[Progress]) -> Progress | None:
    return next((one for one in progress if one.state == "waiting"), None)


def _start(job: Job, environment: Mapping[str, str], cache: Path) -> subprocess.Popen[bytes]:
    folder = job.config.run_dir
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "senet_jax.studies.runner", json.dumps(job.config.to_json())]
    variables = {
        **os.environ,
        # Looked up in any folder from which the script is started.
        "PYTHONPATH": os.pathsep.join([str(_SOURCES), os.environ.get("PYTHONPATH", "")]),
        "JAX_COMPILATION_CACHE_DIR": str(cache.absolute()),
        **environment,
    }
    with log_of(job).open("ab") as log:
        # A session of its own: Ctrl-C is for the runner, which then asks the runs to stop.
        return subprocess.Popen(
            command, env=variables, stdout=log, stderr=log, start_new_session=True
        )


_SOURCES = Path(__file__).parents[2]


def log_of(job: Job) -> Path:
    """The file that takes what a run prints: beside its folder, in which nothing else may be."""
    folder = job.config.run_dir
    return folder.with_name(f"{folder.name}.log")


def _settle(one: Progress, code: int) -> None:
    if code == 0:
        one.state = "done"
        return
    one.state = "failed"
    lines = log_of(one.job).read_text(errors="replace").strip().splitlines()
    one.reason = lines[-1] if lines else f"exit code {code}"


def main() -> int:
    """Trains by the config in the first argument; returns the exit code of ``senet-jax train``."""
    from senet_jax.commands import train
    from senet_jax.training.config import TrainConfig

    config = TrainConfig.from_json(json.loads(sys.argv[1]))
    try:
        return train.run_flags("senet-jax train", "", train.SUMMARY, config, [])
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
