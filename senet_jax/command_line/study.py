"""The main function of a study: its flags, the recipe of each data set, runs and report."""

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from senet_jax.analysis.study.cells import check_baseline, read_study, write_baseline
from senet_jax.analysis.study.report import report_study
from senet_jax.analysis.study.report_files import check_report_folder, write_report
from senet_jax.analysis.study.tables import markdown
from senet_jax.command_line.flags import read_config
from senet_jax.command_line.help_pages import Description
from senet_jax.command_line.interruption import say_interrupted
from senet_jax.command_line.output import open_streams, reader_may_leave
from senet_jax.config import TrainConfig
from senet_jax.errors import ExitCode, UsageError, choose, require
from senet_jax.ranges import MOST_BATCH, MOST_EPOCHS, Range, whole
from senet_jax.studies.grid import check_data, jobs, with_model
from senet_jax.studies.live import LiveTable, tell_failures
from senet_jax.studies.runner import CACHE, run_jobs
from senet_jax.studies.slots import slots
from senet_jax.studies.slurm import Detached, SlurmOptions, run_array
from senet_jax.terminal import escaped_output
from senet_jax.training.presets import SENET, preset
from senet_jax.training.records.lock import folder_lock
from senet_jax.training.records.run_dir import CARD, CONFIG


class Stopped(Exception):
    """The study was interrupted, and its runs have saved their state."""


Cells = Callable[[TrainConfig], dict[str, TrainConfig]]
"""From the recipe of a data set to the named configs of a study."""


DataName = Literal[
    "digits",
    "cifar10",
    "cifar100",
    "imagenet2012",
    "scenes",
    "camvid",
    "ade20k",
    "pascal_context",
    "cityscapes",
    "voc2012",
    "scenes-detection",
    "nuclei",
    "bccd",
    "coco-senet",
]


@dataclasses.dataclass(frozen=True)
class Options:
    """Run a study, or go on with it, and report it."""

    data: DataName = "digits"
    """The data set, with its recipe: of images with one class each; from "scenes" on, of scenes for
    semantic segmentation; from "scenes-detection" on, of objects."""
    data_dir: Path | None = None
    """Its folder; None as in `senet-jax train`."""
    model: str | None = None
    """Another network of the zoo; if None, the study's own. A study that names its networks refuses
    it."""
    epochs: Annotated[int | None, whole(1, MOST_EPOCHS, none="those of the recipe")] = None
    """Passes over the training images; None means those of the recipe. Milestones
    and warm-up move along."""
    fraction: Annotated[float, Range(0, 1, open_below=True)] = 1.0
    """Share of the training images."""
    batch_size: Annotated[int | None, whole(1, MOST_BATCH, none="that of the recipe")] = None
    """Images of a step; the learning rate is that of the recipe, in proportion."""
    # Each is a run.
    seeds: Annotated[int, whole(1, 10_000)] = 3
    """Seeds of each config, from 0."""
    # Processes of one machine, or tasks of SLURM.
    at_once: Annotated[int | None, whole(1, 10_000, none="as many as there are places")] = None
    """Runs at a time, which share the GPUs or cores: with 1 a run has all of them. None means one
    for each GPU or each core of a CPU, one on a TPU, or with SLURM as many as it starts."""
    launcher: Literal["local", "slurm"] = "local"
    """The place of the runs: this machine, or a task of a SLURM array for each."""
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
    **dict.fromkeys(
        ("ade20k", "pascal_context", "cityscapes", "voc2012"), "deeplabv3_legacy_seresnet50"
    ),
}
"""The networks whose attention is studied, where it is not that of the recipe."""


def recipe(options: Options, imagenet: TrainConfig = SENET) -> TrainConfig:
    """The config that the cells of a study start from.

    Args:
        options: Those of the command line.
        imagenet: The recipe for ImageNet.
    """
    presets = {"digits": "demo", "scenes": "scenes-segmentation"}
    photographs = options.data == "imagenet2012"
    config = imagenet if photographs else preset(presets.get(options.data, options.data))
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
    name = options.model or MODELS.get(options.data, config.model.name)
    return with_model(config, name=name)


@dataclasses.dataclass(frozen=True)
class Study:
    """A study: its cells, and what they are compared with."""

    name: str
    """Its folder has this name."""
    description: str
    """The text of ``--help``."""
    cells: Cells
    """The configs."""
    baseline: str
    """Name of the cell that the others are compared with, or of that cell in every group."""
    own_networks: bool = False
    """The cells name their networks, so that ``--model`` is refused."""
    imagenet: TrainConfig = SENET
    """The recipe for ImageNet."""
    data: DataName = "digits"
    """The data set that it is of if the command line names none."""


def main(
    study: str,
    description: str,
    cells: Cells,
    baseline: str,
    *,
    own_networks: bool = False,
    imagenet: TrainConfig = SENET,
    data: DataName = "digits",
) -> int:
    """Runs a study as the command line asks for.

    The arguments are the fields of ``Study``.

    Returns:
        The exit code: 0, or 1 if a run failed, 2 if the input cannot be used, 75 if its runs were
        stopped with Ctrl-C, or 130 if there were none yet or no more.
    """
    chosen = Study(study, description, cells, baseline, own_networks, imagenet, data)
    return _guarded(lambda: _read_and_run(chosen, study, sys.argv[1:]))


def main_of(script: str, description: str, studies: Mapping[str, Study]) -> int:
    """Runs the one of several studies that the first argument names.

    Args:
        script: Name of the script.
        description: The text of ``--help`` without a name.
        studies: The studies by name.

    Returns:
        The exit code of ``main``.
    """

    def run() -> int:
        name, *flags = sys.argv[1:] or ["--help"]
        if name in ("-h", "--help"):
            print(description)
            return 0
        return _read_and_run(studies[choose("study", name, studies)], f"{script} {name}", flags)

    return _guarded(run)


def _guarded(run: Callable[[], int]) -> int:
    open_streams()
    with escaped_output():
        try:
            with reader_may_leave():
                return run()
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr)
            return ExitCode.BAD_INPUT
        except (Stopped, Detached) as stopped:
            print(stopped, file=sys.stderr)
            return ExitCode.PREEMPTED
        except KeyboardInterrupt:
            return say_interrupted()


def _read_and_run(study: Study, command: str, flags: list[str]) -> int:
    prog = f"python -m experiments.{command}"
    options = read_config(prog, "", Description(study.description), Options(data=study.data), flags)
    if study.own_networks and options.model is not None:
        raise UsageError(f"{study.name} names its own networks: leave --model out.")
    base = recipe(options, study.imagenet)
    if study.own_networks and base.task != "classification":
        raise UsageError(
            f"{study.name} names its own networks, which are of classification: choose --data "
            f"digits, cifar10, cifar100 or imagenet2012, not {options.data}."
        )
    cells = study.cells(base)
    return _run(study.name, options, cells, options.baseline or study.baseline)


def _run(study: str, options: Options, cells: dict[str, TrainConfig], baseline: str) -> int:
    require(options.seeds >= 1, "seeds", options.seeds, "at least 1")
    if options.launcher != "slurm" and options.slurm != SlurmOptions():
        raise UsageError("--slurm.* are for --launcher slurm.")
    check_baseline(baseline, cells)
    folder = options.out or Path("runs") / study / options.data
    for place in (folder, *folder.parents):
        if (place / CONFIG).exists() and (place / CARD).exists():
            raise UsageError(
                f"{place} is the folder of a run: choose one outside it for the study with --out."
            )
    grid = jobs(cells, folder, range(options.seeds))
    check_report_folder(folder)
    if options.launcher == "local":
        check_data(grid)
    with folder_lock(folder, "choose another folder with --out"), LiveTable() as table:
        write_baseline(folder, baseline)
        if options.launcher == "slurm":
            progress = run_array(study, grid, folder, table.show, options.slurm, options.at_once)
        else:
            free = slots(options.at_once)
            try:
                progress = run_jobs(grid, free, folder / CACHE, table.show)
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
