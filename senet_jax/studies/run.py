"""One run: trained, then reported."""

import sys
from typing import Any

from senet_jax.analysis.run_report import draw_run, report_run
from senet_jax.errors import ExitCode
from senet_jax.training.config import TrainConfig
from senet_jax.training.distributed.hosts import is_first
from senet_jax.training.loop import Diverged, Preempted, train


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
        train(config, **arguments)
    except (Diverged, Preempted) as stopped:
        if is_first():
            print(f"senet-jax: {stopped}", file=sys.stderr)
        return ExitCode.DIVERGED if isinstance(stopped, Diverged) else ExitCode.PREEMPTED
    if is_first():
        print(report_run(config.run_dir), flush=True)
        draw_run(config.run_dir)
    return 0
