"""The report at the end of a run: its metrics, its time, and its curves.

It imports nothing that only the report of a study needs (SciPy's statistics take a second).
"""

import datetime
from pathlib import Path

from senet_jax.analysis.plots import draw_curves
from senet_jax.models.configured import changes_of_attention
from senet_jax.tasks import find_task
from senet_jax.tasks.base import reported
from senet_jax.training.records.goodput import Goodput, goodput_of, read_sessions
from senet_jax.training.records.metrics import read_last_metrics, read_metrics, training_speed
from senet_jax.training.records.run_dir import read_card, read_config


def draw_run(run_dir: Path) -> Path:
    """Draws the curves of a finished run into its folder, as ``curves.png``.

    Raises:
        UsageError: The run cannot be read, or the file cannot be written.
    """
    config = read_config(run_dir)
    task = find_task(config.task)
    card = read_card(run_dir)
    name = config.data.name if card is None else card.name
    network = task.network_name(config) + changes_of_attention(config.model)
    return draw_curves(run_dir, f"{network} on {name}", task)


def report_run(run_dir: Path) -> str:
    """Describes in a few lines what came out of a finished run.

    Args:
        run_dir: Folder of the run.

    Raises:
        UsageError: The run has not ended, or its records cannot be read.
    """
    config = read_config(run_dir)
    metrics = reported(find_task(config.task))
    last = read_last_metrics(run_dir, *(metric.validation for metric in metrics))
    lines = read_metrics(run_dir)
    rate = training_speed(lines)
    speed = "too short to time" if rate is None else f"{rate:,.0f} images/s"
    account = _account(goodput_of(read_sessions(run_dir)))
    checkpoints = config.checkpoint.dir
    measured = [f"{metric.title} {metric.text(last[metric.validation])}" for metric in metrics]
    measured[0] += f" of {last['val/count']:,.0f} held-out images"
    return (
        f"{', '.join(measured)}, after {last['step']:,.0f} steps; {speed} in training\n"
        f"{account}\n"
        f"{run_dir}/: config.json, dataset.json, metrics.jsonl, sessions.jsonl, curves.png, "
        f"{'' if checkpoints else 'checkpoints/, '}tensorboard/"
        f"{f'; checkpoints in {checkpoints}' if checkpoints else ''}"
    )


def _account(run: Goodput) -> str:
    """The time of a run by kind, a line for each kind that had some."""
    starts = "1 start" if run.starts == 1 else f"{run.starts:,} starts"
    between = f", {_clock(run.between_s)} between them" if run.starts > 1 else ""
    redone = f", {run.redone_steps:,} steps redone" if run.redone_steps else ""
    rows = [
        f"  {kind.replace('_', ' '):<12}{_clock(seconds):>12}{seconds / run.wall_s:>8.1%}"
        for kind, seconds in run.seconds.items()
        if seconds >= _LEAST_S
    ]
    head = f"{_clock(run.wall_s)} in {starts}{between}{redone}; goodput {run.share:.1%}:"
    return "\n".join([head, *rows])


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds; of less than a minute, seconds with a tenth."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return str(datetime.timedelta(seconds=round(seconds)))


_LEAST_S = 0.05
"""A smaller share would be printed as nothing."""
