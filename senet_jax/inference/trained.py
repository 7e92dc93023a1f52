"""A run, a checkpoint or a file of weights, taken up to be evaluated, shown images or passed on."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from senet_jax.config import MeshConfig
from senet_jax.data.card import Card
from senet_jax.data.config import DataConfig
from senet_jax.data.normalization import normalization
from senet_jax.data.views import ViewKind, Views
from senet_jax.errors import UsageError
from senet_jax.inference.ensemble import Member
from senet_jax.interchange import load_weights, network_of
from senet_jax.interchange.state_dict import WeightsOf
from senet_jax.models import zoo
from senet_jax.models.backbone import Backbone
from senet_jax.models.configured import model_fields
from senet_jax.ops.lowerings import Lowering
from senet_jax.tasks import best_metric, find_task
from senet_jax.tasks.base import Task
from senet_jax.tasks.classification import Classification
from senet_jax.training.checkpoints.folder import checkpoints_of
from senet_jax.training.checkpoints.manager import Checkpoints
from senet_jax.training.records.owner import check_config
from senet_jax.training.records.run_dir import read_card, read_config
from senet_jax.training.run import Run


def restore_run(
    path: Path, which: Literal["last", "best"] = "last", *, with_data: bool = False
) -> tuple[Run, int, dict[str, Any]]:
    """Reads the variables of a run that were, or would be, evaluated.

    Args:
        path: Folder of a run, or of one of its checkpoints (``RUN/checkpoints/STEP``).
        which: For the folder of a run, the newest checkpoint or the best by its metric.
        with_data: Open the data set; else what the run wrote down of it is enough, and its images
            cannot be read.

    Returns:
        The run, the step of the checkpoint, and its ``params`` and ``batch_stats``.

    Raises:
        UsageError: There is no such run or checkpoint, or it cannot be read.
    """
    run, checkpoints, named = open_run(path, with_data=with_data)
    steps = checkpoints.steps()
    step = steps[-1] if named is None else named
    if which == "best" and named is None:
        step = checkpoints.best_step() or step
    state = checkpoints.restore(step, run.abstract).state
    return run, step, state.eval_variables


def open_run(path: Path, *, with_data: bool = False) -> tuple[Run, Checkpoints, int | None]:
    """Sets a run up, on all devices that are here, to read its checkpoints.

    Args:
        path: Folder of a run, or of one of its checkpoints (``RUN/checkpoints/STEP``).
        with_data: As in ``restore_run``.

    Returns:
        The run, its checkpoints, of which there is at least one, and the step that is named.

    Raises:
        UsageError: There is no such run or checkpoint.
    """
    run_dir, named = _run_dir(path)
    config = dataclasses.replace(read_config(run_dir), mesh=MeshConfig())
    folder = checkpoints_of(run_dir, config)
    checkpoints = Checkpoints(folder, config.checkpoint, best_metric(config))
    steps = checkpoints.steps()
    if not steps:
        raise UsageError(f"{run_dir} has no finished checkpoint in {checkpoints.folder}.")
    for step in steps if named is None else [named]:
        check_config(
            checkpoints.folder, step, config, f"those of {run_dir} are no longer in this folder"
        )
    if named is not None and named not in steps:
        raise UsageError(f"{run_dir} has no checkpoint {named}: there are {steps}.")
    card = None if with_data else read_card(run_dir)
    return Run(config, None if card is None else card.stand_in()), checkpoints, named


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network."""

    name: str
    """Its name as the user gave it."""
    step: int | None
    """The step of a checkpoint; None for a file of weights."""
    network: str
    """Name in the zoo."""
    model: Backbone
    variables: dict[str, Any]
    data: DataConfig
    """The data that it was trained on, and how it takes images."""
    card: Card
    """The facts of that data set."""
    conv_lowering: Lowering | None = None

    def member(
        self,
        *,
        sizes: tuple[int, ...] = (),
        kind: ViewKind = "center",
        crop_pct: float | None = None,
        interpolation: Literal["bilinear", "bicubic"] | None = None,
        exif_orientation: bool | None = None,
    ) -> Member:
        """The network with the views that it is shown.

        Args:
            sizes: Sides of the views, pixels; empty means the one of its validation.
            kind: The centre, or ten crops.
            crop_pct: As in ``center_view``; None means that of its validation: for small images,
                which have the size of their set, 1.
            interpolation: None means that of its validation.
            exif_orientation: Turn encoded images as their EXIF says; None means as in its
                validation.
        """
        photographs = self.card.photographs
        own = self.card.image_shape[0]
        if photographs:
            own = self.data.image_size or zoo.find(self.network).input_size
        if crop_pct is None:
            crop_pct = self.data.crop_pct if photographs else 1.0
        interpolation = interpolation or self.data.eval_interpolation
        if exif_orientation is None:
            exif_orientation = self.data.exif_orientation
        views = tuple(
            Views(size, kind, crop_pct, interpolation, exif_orientation) for size in sizes or (own,)
        )
        card = self.card
        return Member(
            self.name,
            self.model,
            self.variables,
            normalization(self.data.normalization, card.mean, card.std),
            views,
            len(card.classes),
            self.conv_lowering,
        )


def trained_run(path: Path, which: Literal["last", "best"] = "last") -> Trained:
    """A run's network; arguments and errors as ``restore_run``. Its data need not be there."""
    check_task(path, [Classification.name])
    run, step, variables = restore_run(path, which)
    assert isinstance(run.model, Backbone), "classification has a network of the zoo"
    return Trained(
        name=str(path),
        step=step,
        network=run.config.model.name,
        model=run.model,
        variables=variables,
        data=run.config.data,
        card=read_card(_run_dir(path)[0]) or Card.of(run.dataset),
        conv_lowering=run.config.conv_lowering,
    )


def check_task(path: Path, allowed: Collection[str]) -> None:
    """Checks that the task of a run is one of some.

    Args:
        path: Folder of a run, or of one of its checkpoints.
        allowed: Names of tasks.

    Raises:
        UsageError: It is of another task, or there is no such run.
    """
    task = read_config(_run_dir(path)[0]).task
    if task not in allowed:
        raise UsageError(
            f"{path} is a run of the task {task}, and the command takes networks of "
            f"{' and '.join(allowed)}: `senet-jax evaluate RUN` evaluates a run of any task."
        )


IMAGES_ALONE = ("classification", "segmentation")
"""The tasks whose networks take images alone."""


def run_task(path: Path) -> type[Task]:
    """The task of a run, whose folder or one of whose checkpoints is named.

    Raises:
        UsageError: There is no such run, or its task is not installed.
    """
    return find_task(read_config(_run_dir(path)[0]).task)


def _run_dir(path: Path) -> tuple[Path, int | None]:
    """The folder of a run, and the step if one of its checkpoints is named."""
    path = path.absolute()
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        return path.parent.parent, int(path.name)
    return path, None


def trained_weights(
    source: str,
    network: str,
    data: DataConfig,
    card: Card,
    *,
    weights_of: WeightsOf = "auto",
) -> Trained:
    """The network of a file of weights.

    Args:
        source: A file, or "hf-hub:owner/repository".
        network: Name in the zoo; a file that ``save_weights`` wrote says what differs from it.
        data: The views of its images.
        card: The facts of the data set; it has the classes and the channels.
        weights_of: As in ``load_arrays``.

    Raises:
        UsageError: The weights cannot be had or read, or do not fit the network.
    """
    fields = model_fields(network_of(source, network), len(card.classes))
    channels = card.image_shape[2]
    variables = load_weights(source, network, weights_of=weights_of, channels=channels, **fields)
    model = zoo.create_model(network, **fields)
    if not isinstance(model, Backbone):
        raise UsageError(
            f"{network} classifies pixels, and weights without a run are evaluated by the classes "
            "of images: name a classifier, or a run of segmentation."
        )
    return Trained(source, None, network, model, variables, data, card)
