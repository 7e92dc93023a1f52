"""A process that trains the runs it is given, one after the other.

Runs that differ by the seed alone share their data, what was traced and what was compiled; runs of
one data set share its images.
"""

import contextlib
import dataclasses
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Hashable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from senet_jax.config import TrainConfig
from senet_jax.data.datasets import Dataset
from senet_jax.errors import ExitCode, UsageError
from senet_jax.studies.run import train_and_report
from senet_jax.terminal import escaped_output
from senet_jax.text import printable
from senet_jax.training.machine.allocator import keep_freed_memory
from senet_jax.training.records.goodput import process_age_s
from senet_jax.training.run import Run, data_key, open_data


class Worker:
    """Trains runs and keeps what others of them can use."""

    def __init__(self) -> None:
        self._runs: dict[TrainConfig, Run] = {}
        self._data: dict[Hashable, Dataset] = {}
        self._started = False

    def train(self, config: TrainConfig) -> int:
        """Trains, or resumes, a run and prints its report; returns the code of `senet-jax train`.

        An input that cannot be used is reported in a sentence on standard error.
        """
        age_s = 0.0 if self._started else process_age_s()
        self._started = True
        try:
            config.validate()
            return train_and_report(config, age_s=age_s, run=self._run(config))
        except UsageError as error:
            print(printable(f"error: {error}"), file=sys.stderr)
            return ExitCode.BAD_INPUT

    def _run(self, config: TrainConfig) -> Run:
        shape = dataclasses.replace(config, seed=0, run_dir=Path())
        if shape not in self._runs:
            data = data_key(config)
            if data not in self._data:
                self._data[data] = open_data(config)
            self._runs[shape] = Run(config, self._data[data])
        return self._runs[shape].with_seed(config.seed, config.run_dir)


@contextlib.contextmanager
def printing_to(log: str) -> Iterator[None]:
    """Appends all that this process prints, XLA too, to a file, and the trace of an exception."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    streams = (sys.stdout, sys.stderr)
    before = [os.dup(stream.fileno()) for stream in streams]
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        for stream in streams:
            stream.flush()
            os.dup2(file, stream.fileno())
        # The log is read on a terminal.
        with escaped_output():
            try:
                yield
            except Exception:
                traceback.print_exc()
                raise
    finally:
        for stream, own in zip(streams, before, strict=True):
            stream.flush()
            os.dup2(own, stream.fileno())
            os.close(own)
        os.close(file)


def main() -> int:
    """Serves the connection whose file descriptor is the first argument, until it is closed.

    The other arguments are the cores that the process keeps to; without them it has all.
    Each message is a config as JSON's values and the file that takes what its run prints, the
    answer is the exit code. After a signal to stop, or if the runner is gone, the run saves its
    state, and the process ends.
    """
    handle, *cores = map(int, sys.argv[1:])
    if cores:
        os.sched_setaffinity(0, cores)
    keep_freed_memory()
    connection = Connection(handle)
    orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, orders), daemon=True).start()
    worker = Worker()
    while (order := orders.get()) is not None:
        try:
            with printing_to(order["log"]):
                code = worker.train(TrainConfig.from_json(order["config"]))
        except Exception:  # Told in the log; the next run has a process that nothing is wrong with.
            return ExitCode.FAILED
        if code == ExitCode.PREEMPTED:
            return code
        connection.send(code)
    return 0


def _listen(connection: Connection, orders: "queue.SimpleQueue[dict[str, Any] | None]") -> None:
    """Passes on what the runner sends; when it is gone, stops what goes on."""
    while True:
        try:
            orders.put(connection.recv())
        except (EOFError, OSError):
            orders.put(None)
            os.kill(os.getpid(), signal.SIGTERM)
            return


if __name__ == "__main__":
    sys.exit(main())
