"""The main function of a study: its flags, the recipe of each data set, runs and report."""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from senet_jax.analysis.study.cells import check_baseline, read_study, write_baseline
from senet_jax.analysis.study.report import report_study
from senet_jax.analysis.study.report_files import check_report_folder, write_report
from senet_jax.analysis.study.tables import markdown
from senet_jax.command_line.flags import read_config
from senet_jax.command_line.interruption import say_interrupted
from senet_jax.command_line.output import open_streams, reader_may_leave
from senet_jax.config import TrainConfig
from senet_jax.errors import ExitCode, UsageError, require
from senet_jax.studies.grid import check_data, jobs, with_model
from senet_jax.studies.live import LiveTable, tell_failures
from senet_jax.studies.places import places
from senet_jax.studies.runner import CACHE, run_jobs
from senet_jax.studies.slurm import Detached, SlurmOptions, run_array
from senet_jax.terminal import escaped_output
from senet_jax.training.presets import SENET, preset
from senet_jax.training.records.lock import held


class Stopped(Exception):
    """The study was interrupted, and its runs have saved their state."""


Cells = Callable[[TrainConfig], dict[str, TrainConfig]]
"""From the recipe of a data set to the named configs of a study."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Run a study, or go on with it, and report it."""

    data: Literal["digits", "cifar10", "cifar100", "imagenet2012"] = "digits"
    """The data set, with its recipe."""
    data_dir: Path | None = None
    """Where it lies; None as in `senet-jax train`."""
    model: str | None = None
    """Another network of the zoo than the study's own, if that is of one network."""
    epochs: int | None = None
    """Passes over the training images; None means those of the recipe. Milestones
    and warm-up move along."""
    fraction: float = 1.0
    """Share of the training images."""
    batch_size: int | None = None
    """Images of a step; the learning rate is that of the recipe, in proportion."""
    seeds: int = 3
    """Seeds of each config, from 0."""
    at_once: int | None = None
    """Runs at a time; None means one for each GPU or each core of a CPU, one on a TPU, or with
    SLURM as many as it starts."""
    launcher: Literal["local", "slurm"] = "local"
    """Where the runs go: to this machine, or each to a task of a SLURM array."""
    slurm: SlurmOptions = SlurmOptions()
    out: Path | None = None
    """Folder of the study; None means runs/STUDY/DATA. The same command goes on where it
    stopped."""
    baseline: str | None = None
    """The cell that the others are compared with; None means the study's own."""


MODELS = {
    "digits": "cifar_seresnet8",
    "cifar10": "cifar_seresnet20",
    "cifar100": "cifar_seresnet20",
    "imagenet2012": "legacy_seresnet50",
}
"""The networks whose attention is studied."""


def recipe(options: Options, imagenet: TrainConfig = SENET) -> TrainConfig:
    """The config that the cells of a study start from.

    Args:
        options: What the command line asks for.
        imagenet: The recipe for ImageNet.
    """
    base = {"digits": preset("demo"), "imagenet2012": imagenet}.get(options.data)
    config = base or preset(options.data)
    epochs = config.epochs if options.epochs is None else options.epochs
    shrink = epochs / config.epochs
    data, optimizer = config.data, config.optimizer
    batch = data.batch_size if options.batch_size is None else options.batch_size
    optimizer = dataclasses.replace(
        optimizer,
        milestones=tuple(shrink * epoch for epoch in optimizer.milestones),
        warmup_epochs=shrink * optimizer.warmup_epochs,
        base_batch=optimizer.base_batch or data.batch_size,
    )
    data = dataclasses.replace(
        data, dir=options.data_dir, fraction=options.fraction, batch_size=batch
    )
    config = dataclasses.replace(config, epochs=epochs, data=data, optimizer=optimizer)
    return with_model(config, name=options.model or MODELS[options.data])


def main(
    study: str,
    description: str,
    cells: Cells,
    baseline: str,
    *,
    own_networks: bool = False,
    imagenet: TrainConfig = SENET,
) -> int:
    """Runs what the command line asks for.

    Args:
        study: Name of the study, which its folder has.
        description: What ``--help`` says.
        cells: The configs.
        baseline: Name of the one that the others are compared with, or what it is called in every
            group.
        own_networks: The cells name their networks, so that ``--model`` is refused.
        imagenet: The recipe for ImageNet.

    Returns:
        The exit code: 0, or 1 if a run failed, 2 if the input cannot be used, 75 if its runs were
        stopped with Ctrl-C, or 130 if there were none yet or no more.
    """
    open_streams()
    with escaped_output():
        return _guarded(study, description, cells, baseline, own_networks, imagenet)


def _guarded(
    study: str,
    description: str,
    cells: Cells,
    baseline: str,
    own_networks: bool,
    imagenet: TrainConfig,
) -> int:
    try:
        with reader_may_leave():
            prog = f"python -m experiments.{study}"
            options = read_config(prog, "", description, Options(), sys.argv[1:])
            if own_networks and options.model is not None:
                raise UsageError(f"{study} names its own networks: leave --model out.")
            grid = cells(recipe(options, imagenet))
            return _run(study, options, grid, options.baseline or baseline)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT
    except (Stopped, Detached) as stopped:
        print(stopped, file=sys.stderr)
        return ExitCode.PREEMPTED
    except KeyboardInterrupt:
        return say_interrupted()


def _run(study: str, options: Options, cells: dict[str, TrainConfig], baseline: str) -> int:
    require(options.seeds >= 1, "seeds", options.seeds, "at least 1")
    if options.launcher != "slurm" and options.slurm != SlurmOptions():
        raise UsageError("--slurm.* are for --launcher slurm.")
    check_baseline(baseline, cells)
    folder = options.out or Path("runs") / study / options.data
    grid = jobs(cells, folder, range(options.seeds))
    check_report_folder(folder)
    if options.launcher == "local":
        check_data(grid)
    with held(folder, "choose another folder with --out"), LiveTable() as table:
        write_baseline(folder, baseline)
        if options.launcher == "slurm":
            progress = run_array(study, grid, folder, table.show, options.slurm, options.at_once)
        else:
            seats = places(options.at_once)
            try:
                progress = run_jobs(grid, seats, folder / CACHE, table.show)
            except KeyboardInterrupt:
                raise Stopped(
                    "stopped; the runs have saved their state: the same command goes on."
                ) from None
    failed = tell_failures(progress)
    if failed == len(grid):
        print("no run has ended, so that there is nothing to report.", file=sys.stderr)
        return ExitCode.FAILED
    report = report_study(read_study(folder))
    # Before it is written: a disk that is full does not take it from who waited for it.
    print(f"\n{markdown(report)}\n", flush=True)
    write_report(report, folder)
    print(f"{folder}{os.sep}: report.md, report.tex, report.csv, runs.csv; figures")
    return ExitCode.FAILED if failed else 0
