"""One run: trained, then reported."""

import sys
from typing import Any

from senet_jax.analysis.run_report import draw_run, report_run
from senet_jax.config import TrainConfig
from senet_jax.errors import ExitCode
from senet_jax.training import loop
from senet_jax.training.distributed.hosts import is_first


def train_and_report(config: TrainConfig, **arguments: Any) -> int:
    """Trains, or resumes, and prints the report of the run; returns an exit code.

    A run that diverged or was stopped has no report; standard error gets a sentence.

    Args:
        config: The experiment.
        **arguments: Those of ``loop.train``.

    Raises:
        UsageError: The config cannot be run.
    """
    try:
        loop.train(config, **arguments)
    except (loop.Diverged, loop.Preempted) as stopped:
        if is_first():
            print(f"senet-jax: {stopped}", file=sys.stderr)
        return ExitCode.DIVERGED if isinstance(stopped, loop.Diverged) else ExitCode.PREEMPTED
    if is_first():
        print(report_run(config.run_dir), flush=True)
        draw_run(config.run_dir)
    return 0
