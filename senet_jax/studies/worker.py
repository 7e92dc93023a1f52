"""A process that trains the runs it is given, one after the other.

Runs that differ by the seed alone share their data, what was traced and what was compiled; runs of
one data set share its images.
"""

import dataclasses
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from senet_jax.commands.train import PREEMPTED, train_and_report
from senet_jax.data.datasets import Dataset
from senet_jax.errors import BAD_INPUT, UsageError
from senet_jax.training.config import TrainConfig
from senet_jax.training.goodput import process_age_s
from senet_jax.training.run import Run, image_side, open_data


class Worker:
    """Trains runs and keeps what others of them can use."""

    def __init__(self) -> None:
        self._runs: dict[TrainConfig, Run] = {}
        self._data: dict[tuple[Any, ...], Dataset] = {}
        self._started = False

    def train(self, config: TrainConfig) -> int:
        """Trains, or resumes, a run and prints its report; returns the code of `senet-jax train`.

        What cannot be used is told in a sentence on standard error.
        """
        age_s = 0.0 if self._started else process_age_s()
        self._started = True
        try:
            config.validate()
            return train_and_report(config, age_s=age_s, run=self._run(config))
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
            return BAD_INPUT

    def _run(self, config: TrainConfig) -> Run:
        shape = dataclasses.replace(config, seed=0, run_dir=Path())
        if shape not in self._runs:
            data = (config.data.name, config.data.dir, config.data.fraction, image_side(config))
            if data not in self._data:
                self._data[data] = open_data(config)
            self._runs[shape] = Run(config, self._data[data])
        return self._runs[shape].with_seed(config.seed, config.run_dir)


def print_to(log: str) -> None:
    """Appends all that this process prints from now on to a file."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file, stream.fileno())
    os.close(file)


def main() -> int:
    """Serves the connection whose file descriptor is the first argument, until it is closed.

    Each message is a config as JSON's values and the file that takes what its run prints, the
    answer is the exit code. After a signal to stop the run saves its state, and the process ends.
    """
    worker, orders = Worker(), Connection(int(sys.argv[1]))
    while True:
        try:
            order: dict[str, Any] = orders.recv()
        except EOFError:
            return 0
        print_to(order["log"])
        code = worker.train(TrainConfig.from_json(order["config"]))
        sys.stdout.flush()
        orders.send(code)
        if code == PREEMPTED:
            return code


if __name__ == "__main__":
    sys.exit(main())
