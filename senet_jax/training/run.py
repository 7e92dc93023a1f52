"""A run that is set up: model, data, mesh and optimizer, checked before anything is written."""

import copy
import dataclasses
import functools
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from senet_jax.config import TrainConfig
from senet_jax.data.datasets import Dataset
from senet_jax.data.examples import ArraySpec
from senet_jax.data.loader import Host, TrainBatches
from senet_jax.data.normalization import normalization
from senet_jax.data.subset import training_share
from senet_jax.errors import UsageError
from senet_jax.interchange import MisfitError, load_weights
from senet_jax.models.configured import changes_of_attention, model_fields
from senet_jax.models.cost import cost
from senet_jax.network import Network
from senet_jax.tasks import task_of
from senet_jax.tasks.base import Accumulator, Arrays, Task
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.evaluate import eval_groups, evaluate, without_index
from senet_jax.training.machine.compile_cache import use_compile_cache
from senet_jax.training.optimizer import (
    make_optimizer,
    make_schedule,
    matching,
    observe_validation,
    plateau_scale,
    scaled_to,
)
from senet_jax.training.preview import Preview, preview_batch
from senet_jax.training.programs import Programs
from senet_jax.training.state import TrainState
from senet_jax.training.step import Metrics, key_data


def open_data(config: TrainConfig) -> Dataset:
    """Opens the data set of a config, of which it may train on a share.

    Raises:
        UsageError: There is no such data set, or it cannot be read.
    """
    return training_share(task_of(config).open(config), config.data.fraction)


def data_key(config: TrainConfig) -> Hashable:
    """All of a config that ``open_data`` reads."""
    return config.task, config.data.fraction, task_of(config).same_data(config)


class Run:
    """A run that is set up: everything checked, nothing written.

    Args:
        config: The experiment.
        dataset: Its data, if that is open already or only a ``Card.stand_in``.
        devices: Those of the mesh, if not the ones of this machine.

    Raises:
        UsageError: Anything of the config that cannot be done on this machine.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset | None = None,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        # Not validated: a run that older code accepted is still evaluated.
        self.config = config
        if config.deterministic:
            _set_deterministic()
        use_compile_cache(config.compilation_cache)
        self.mesh = meshes.make_mesh(config.mesh.data, config.mesh.fsdp, devices)
        kind = task_of(config)
        self.dataset = dataset or open_data(config)
        self.task = kind.of(config, self.dataset)
        self.model = self.task.build(self.dataset)
        pixels = normalization(config.data.normalization, self.dataset.mean, self.dataset.std)
        self.network = Network(self.model, pixels, self.mesh, config.conv_lowering)
        self.batches = _batches(config, self.task, self.dataset)
        optimizer = scaled_to(config.optimizer, config.data.batch_size)
        self.schedule = make_schedule(optimizer, self.batches.steps_per_epoch, config.epochs)
        self.optimizer = make_optimizer(
            optimizer,
            self.schedule,
            frozen=config.frozen,
            body_rate=config.body_rate,
            head=self.task.head,
            decays=self.task.decays,
        )
        self.val = self.task.examples(self.dataset, "val")
        self.programs = Programs(
            config, self.task, self.network, self.optimizer, self.batches.steps, self.val[0]
        )
        self.abstract = self.programs.abstract

    def check_trainable(self) -> None:
        """Checks that the training can change what the network says of an image.

        Raises:
            UsageError: The data have nothing to learn, or no parameter is left to train.
        """
        self.task.check(self.dataset)
        frozen = self.config.frozen
        if frozen and all(jax.tree.leaves(matching(self.abstract.params, frozen))):
            raise UsageError(
                f"--frozen {' '.join(map(repr, frozen))} (frozen) matches every parameter, so that "
                "nothing is left to train."
            )

    def with_seed(self, seed: int, run_dir: Path) -> "Run":
        """The same run with another seed and folder; both have one data set and their programs."""
        other = copy.copy(self)
        other.config = dataclasses.replace(self.config, seed=seed, run_dir=run_dir)
        other.batches = dataclasses.replace(self.batches, seed=seed)
        return other

    @functools.cached_property
    def init_variables(self) -> dict[str, Any] | None:
        """The weights that the config starts from, read and checked. If None, they are drawn.

        Raises:
            UsageError: They cannot be had or read, or do not fit the network.
        """
        if self.config.init_weights is None:
            return None
        try:
            return load_weights(
                self.config.init_weights,
                self.config.model.name,
                drop_head=self.config.drop_head,
                weights_of=self.config.weights_of,
                channels=self.dataset.image_shape[2],
                **model_fields(self.config.model, self._outputs),
            )
        except MisfitError as error:
            # The number of classes is that of the data set.
            raise UsageError(error.advise("--drop-head", None)) from error

    @property
    def _outputs(self) -> int:
        """Classes that the network tells apart: detectors also know the background."""
        return getattr(self.model, "num_classes", len(self.dataset.classes))

    def fresh_state(self) -> TrainState:
        """The state of step 0, laid out over the mesh."""
        variables = self.init_variables
        if variables is None:
            variables = self.programs.draw(self.config.seed)
        state: TrainState = self.programs.start(variables)
        return state

    def train_step(self, state: TrainState, batch: Arrays) -> tuple[TrainState, Metrics]:
        """Returns the state after a step, and its metrics; the state given is donated."""
        return self.programs.train(state, batch, key_data(self.config.seed))

    def learning_rate(self, state: TrainState) -> float:
        """The learning rate of the step that led to a state."""
        scale = plateau_scale(self.config.optimizer, state.opt_state)
        return float(self.schedule(int(state.step) - 1)) * scale

    def on_validation(self, state: TrainState, watched: float) -> TrainState:
        """Tells the schedule of the watched metric; returns the state to go on with."""
        opt_state = observe_validation(self.config.optimizer, state.opt_state, watched)
        return dataclasses.replace(state, opt_state=opt_state)

    def preview(self, step: int) -> Preview:
        """The training images of a step as the network is shown them, before normalization."""
        batch, _ = self.batches[step]
        return preview_batch(self.task, self.network.normalization, batch, step, self.config.seed)

    def trace(self) -> None:
        """Traces training and evaluation for all sizes of images, without compiling.

        Errors that only the shapes within the network show come out here, before anything is
        written. ``jax.jit`` keeps the traces: the first step of each size compiles them.

        Raises:
            UsageError: The network cannot be trained on such batches.
        """
        key = key_data(self.config.seed)
        for form in range(len(self.batches.examples)):
            self.programs.train.trace(self.abstract, self.abstract_batch(form), key)
        for batches in eval_groups(self.val, self.config.data.eval_batch_size, self.mesh).groups:
            batch = self._abstract(without_index(batches.arrays), batches.batch_size)
            self.programs.evaluate.trace(self.abstract.eval_variables, batch)

    def abstract_batch(self, form: int = 0) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of a training batch over all hosts.

        Args:
            form: The form of the examples, by its place among those of the task.
        """
        arrays = {**self.batches.examples[form].arrays}
        if jax.distributed.is_initialized():
            arrays["stop"] = STOP
        return self._abstract(arrays, self.config.data.batch_size)

    def _abstract(
        self, arrays: Mapping[str, ArraySpec], images: int
    ) -> dict[str, jax.ShapeDtypeStruct]:
        sharding = meshes.over_batch(self.mesh)
        return {
            name: jax.ShapeDtypeStruct((images, *spec.shape), spec.dtype, sharding=sharding)
            for name, spec in arrays.items()
        }

    def evaluate(
        self, variables: dict[str, Any], accumulator: Accumulator | None = None
    ) -> dict[str, float]:
        """Evaluates ``params`` and ``batch_stats`` on the validation split; see ``evaluate``."""
        size, workers = self.config.data.eval_batch_size, _workers(self.config, self.dataset)
        step = self.programs.evaluate
        return evaluate(self.task, step, variables, self.val, size, self.mesh, workers, accumulator)

    def device_batches(self, start: int, stop: Sequence[int] = ()) -> Iterator[Arrays]:
        """Yields the training batches from step ``start`` on, as global arrays.

        A batch is sent to the devices when it is asked for, which is while they compute the step
        before. Under ``hosts.distributed_session`` it has ``stop`` (see ``make_train_step``).

        Args:
            start: The first step.
            stop: Filled, at any time, when this host wants to stop.

        Raises:
            UsageError: Too many images cannot be read, or the data set is gone.
        """
        for batch in self.batches.prefetch(start):
            arrays: dict[str, Any] = {**batch}
            if jax.distributed.is_initialized():
                arrays["stop"] = STOP.rows(len(batch["image"])) + bool(stop)
            yield meshes.to_devices(arrays, self.mesh)

    def describe(self) -> str:
        """The network, the data and the devices, in a few lines."""
        height, width, channels = self.dataset.image_shape
        others = self.programs.other_inputs
        per_image = cost(self.model, max(height, width), channels, others)
        kind, classes = self.mesh.devices.flat[0].device_kind, len(self.dataset.classes)
        return (
            f"{self.task.network_name(self.config)}{changes_of_attention(self.config.model)} on "
            f"{self.dataset.name}: "
            f"{per_image.params:,} parameters, {per_image.macs / 1e6:,.2f} MMACs an image of "
            f"{height}x{width}x{channels}\n"
            f"{len(self.dataset.train):,} training and {len(self.dataset.val):,} "
            f"validation images of {classes:,} class{'es' * (classes > 1)}, {self.batches.steps:,} "
            f"steps of {self.config.data.batch_size} on {self.mesh.size} x {kind}\n"
            f"{self._describe_rate()}"
        )

    def _describe_rate(self) -> str:
        batch, base = self.config.data.batch_size, self.config.optimizer.base_batch
        text = f"peak learning rate {scaled_to(self.config.optimizer, batch).learning_rate:g}"
        late = [f"{m:g}" for m in self.config.optimizer.milestones if m >= self.config.epochs]
        if late:
            text += f" (it does not fall at epochs {', '.join(late)}, after the end of the run)"
        if base in (None, batch):
            return text
        rate = self.config.optimizer.learning_rate
        return f"{text}, scaled to batches of {batch}: {rate:g} is for {base}"


STOP = ArraySpec((), np.float32)
"""The array by which hosts tell each other to stop: 1 if this host wants to."""


def _workers(config: TrainConfig, dataset: Dataset) -> int:
    """Processes that prepare batches: none if the images lie in memory, which each would copy."""
    return config.data.workers if dataset.photographs else 0


def _batches(config: TrainConfig, task: Task, dataset: Dataset) -> TrainBatches:
    data, forms = config.data, task.examples(dataset, "train")
    groups = task.groups(dataset)
    images = len(forms[0]) if groups is None else max(map(len, groups))
    if images < data.batch_size:
        raise UsageError(
            f"a batch of {data.batch_size} is larger than the {images} training images: lower "
            "--data.batch-size."
        )
    host = Host(jax.process_index(), jax.process_count())
    if data.batch_size % host.count:
        raise UsageError(
            f"a batch of {data.batch_size} cannot be divided over {host.count} hosts: use a "
            "multiple of their number."
        )
    batches = TrainBatches(
        forms,
        data.batch_size,
        config.seed,
        steps=0,
        classes=functools.partial(task.classes, dataset),
        groups=groups,
        host=host,
        workers=_workers(config, dataset),
        max_corrupt=data.max_corrupt,
    )
    return dataclasses.replace(batches, steps=batches.steps_per_epoch * config.epochs)


def _set_deterministic() -> None:
    """Must come before the first use of a device."""
    flag = "--xla_gpu_deterministic_ops=true"
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
