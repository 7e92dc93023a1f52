"""The table of a study that is running, on terminals of any height."""

import io
import json
import sys

import pytest
from rich.console import Console

from senet_jax.config import TrainConfig
from senet_jax.studies.grid import jobs
from senet_jax.studies.live import LiveTable, _table, tell_failures
from senet_jax.studies.runner import Progress
from senet_jax.terminal import escaped_output


@pytest.fixture
def progress(tmp_path):
    """Forty jobs: ten that have ended, one that failed, two that run; the others wait."""
    grid = jobs({"a": TrainConfig()}, tmp_path, range(40))
    states = ["done"] * 10 + ["failed"] + ["running"] * 2 + ["waiting"] * 27
    return [Progress(job, state) for job, state in zip(grid, states, strict=True)]


@pytest.mark.parametrize("height", [20, 60])
def test_running_and_failed_runs_are_seen_at_any_height(progress, height):
    table = LiveTable()
    table._console = Console(force_terminal=True, height=height, width=100, record=True)
    table._live.console = table._console
    with table:
        table.show(progress)
        shown = table._live.get_renderable()
    console = Console(width=100, height=height, record=True, file=io.StringIO())
    console.print(shown)
    lines = console.export_text().splitlines()
    assert len(lines) <= height
    text = "\n".join(lines)
    assert "10 of 40 runs have ended" in text
    for name in ("a/seed10", "a/seed11", "a/seed12"):
        assert name in text
    assert ("and 10 done, 16 waiting" in text) == (height == 20)
    assert ("a/seed39" in text) == (height == 60)


def test_a_name_is_no_markup_and_acts_on_no_terminal(tmp_path, capsys):
    grid = jobs({"[red]a[/red]\x1b[2J": TrainConfig()}, tmp_path, [0])
    one = Progress(grid[0], "running")
    grid[0].config.run_dir.mkdir(parents=True)
    (grid[0].config.run_dir / "metrics.jsonl").write_text("null\n")
    table = LiveTable()
    table._console = Console(force_terminal=True, width=100, file=io.StringIO())
    table._live.console = table._console
    with table:
        table.show([one])
    shown = table._console.file.getvalue()
    assert "[red]a[/red]\\x1b[2J" in shown
    assert "unreadable" in shown
    assert "\x1b[2J" not in shown
    one.state, one.reason = "failed", "no\x1b disk"
    LiveTable().show([one])
    tell_failures([one])
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert "[red]a[/red]\\x1b[2J/seed0" in text
        assert "no\\x1b disk" in text


def test_the_table_draws_below_the_escaping_stream(capsys):
    below = sys.stdout
    with escaped_output():
        assert LiveTable()._console.file is below


def test_runs_that_failed_for_one_reason_are_named_together(progress, capsys):
    for one in progress[10:13]:
        one.state, one.reason = "failed", "no disk"
    progress[12].reason = "no memory"
    assert tell_failures(progress) == 3
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("a/seed10, a/seed11 failed: no disk (all of it: ")
    assert second.startswith("a/seed12 failed: no memory")


def test_the_column_of_the_metric_is_that_of_the_task(tmp_path, median):
    metrics = {"median": {"val/median": 0.25}, "classification": {"val/top1": 0.75}}
    grid = jobs({task: TrainConfig(task=task) for task in metrics}, tmp_path, [0])
    for job in grid:
        job.config.run_dir.mkdir(parents=True)
        line = {"step": 10, "epoch": 1, "val/loss": 2.0, **metrics[job.config.task]}
        (job.config.run_dir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    progress = [Progress(job, "running") for job in grid]

    def column(*shown):
        found = _table(shown, 20).columns[3]
        return [str(found.header), *map(str, found.cells)]

    assert column(progress[0]) == ["median error", "0.2500 m"]
    assert column(progress[1]) == ["error", "25.00%"]
    assert column(*progress) == ["metric", "0.2500 m", "25.00%"]
