"""What a person wants to see at the end of a run, or of a study."""

import datetime
from pathlib import Path

from senet_jax.analysis.plots import draw_curves
from senet_jax.analysis.study_plots import draw_study
from senet_jax.analysis.study_report import StudyReport
from senet_jax.analysis.study_tables import (
    comma_separated,
    comma_separated_runs,
    latex,
    markdown,
)
from senet_jax.errors import UsageError
from senet_jax.training.goodput import Goodput, goodput_of, read_sessions
from senet_jax.training.logging import read_metrics, training_speed
from senet_jax.training.run_dir import read_config


def report_run(run_dir: Path) -> str:
    """Draws the curves of a finished run and says in a few lines what came out.

    Args:
        run_dir: Folder of a run that has metrics.
    """
    config, lines = read_config(run_dir), read_metrics(run_dir)
    last = lines[-1]
    draw_curves(run_dir, f"{config.model.name} on {config.data.name}")
    rate = training_speed(lines)
    speed = "too short to time" if rate is None else f"{rate:,.0f} images/s"
    account = _account(goodput_of(read_sessions(run_dir)))
    return (
        f"top-1 {last['val/top1']:.2%} of {last['val/count']:,.0f} held-out images, "
        f"loss {last['val/loss']:.4f}, after {last['step']:,.0f} steps; {speed} in training\n"
        f"{account}\n"
        f"{run_dir}/: config.json, dataset.json, metrics.jsonl, sessions.jsonl, curves.png, "
        "checkpoints/, tensorboard/"
    )


def write_report(report: StudyReport, folder: Path) -> str:
    """Writes the tables and figures of a study into a folder, which is made if it is not there.

    Returns:
        The table in Markdown, which ``report.md`` has too.

    Raises:
        UsageError: The folder cannot be written.
    """
    text = markdown(report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.md").write_text(text + "\n")
        (folder / "report.tex").write_text(latex(report))
        (folder / "report.csv").write_text(comma_separated(report))
        (folder / "runs.csv").write_text(comma_separated_runs(report))
        draw_study(report, folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return text


def _account(run: Goodput) -> str:
    """What the time of a run went to, a line for each kind that had some."""
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
"""What is less would be told as nothing."""
