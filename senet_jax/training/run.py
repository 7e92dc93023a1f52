"""A run that is set up: model, data, mesh and optimizer, checked before anything is written."""

import copy
import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, UInt32

from senet_jax.config import TrainConfig
from senet_jax.data.config import AugmentConfig
from senet_jax.data.datasets import Dataset, open_dataset
from senet_jax.data.loader import Host, TrainBatches
from senet_jax.data.normalization import normalization
from senet_jax.data.sources import ArraySource, ViewedSource
from senet_jax.data.subset import training_share
from senet_jax.data.transforms import EvalTransform, TrainTransform
from senet_jax.errors import UsageError
from senet_jax.interchange import MisfitError, load_weights
from senet_jax.models import zoo
from senet_jax.models.configured import build_model, model_fields
from senet_jax.models.cost import cost
from senet_jax.network import Network
from senet_jax.text import printable
from senet_jax.training.distributed import mesh as meshes
from senet_jax.training.evaluate import Evaluation, evaluate, padded_size
from senet_jax.training.machine.compile_cache import use_compile_cache
from senet_jax.training.optimizer import (
    make_optimizer,
    make_schedule,
    matching,
    observe_validation,
    plateau_scale,
    scaled_to,
)
from senet_jax.training.shown import ShownBatch, show_batch
from senet_jax.training.state import TrainState, draw_variables, state_of
from senet_jax.training.step import (
    DeviceBatch,
    EvalStep,
    TrainStep,
    key_data,
    make_eval_step,
    make_train_step,
)

_INIT_GENERATOR = "rbg"
"""XLA:CPU compiles this generator two to three times faster than the default one."""


def image_side(config: TrainConfig) -> int:
    """Side of the images, pixels: the config's, or that which the network was published for."""
    return config.data.image_size or zoo.find(config.model.name).input_size


def open_data(config: TrainConfig) -> Dataset:
    """Opens the data set of a config, of which it may train on a share.

    Raises:
        UsageError: There is no such data set, or it cannot be read.
    """
    dataset = open_dataset(config.data.name, config.data.dir, image_side(config))
    return training_share(dataset, config.data.fraction)


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
        build_model(config.model, num_classes=1)
        self.dataset = dataset or open_data(config)
        config.data.check_images(not isinstance(self.dataset.train, ArraySource))
        self.model = build_model(config.model, len(self.dataset.classes))
        pixels = normalization(config.data.normalization, self.dataset.mean, self.dataset.std)
        self.network = Network(self.model, pixels, self.mesh, config.conv_lowering)
        self.batches = _batches(config, self.dataset)
        optimizer = scaled_to(config.optimizer, config.data.batch_size)
        self.schedule = make_schedule(optimizer, self.batches.steps_per_epoch, config.epochs)
        self.optimizer = make_optimizer(
            optimizer, self.schedule, frozen=config.frozen, body_rate=config.body_rate
        )
        self.abstract = self._abstract_state()

    def check_trainable(self) -> None:
        """Checks that the training can change what the network says of an image.

        Raises:
            UsageError: There is one class, or no parameter is left to train.
        """
        if len(self.dataset.classes) == 1:
            raise UsageError(
                f"{self.dataset.name} has one class, {printable(self.dataset.classes[0])!r}, so "
                "that there is nothing to learn: training needs two or more."
            )
        frozen = self.config.frozen
        if frozen and all(jax.tree.leaves(matching(self.abstract.params, frozen))):
            raise UsageError(
                f"--frozen {' '.join(map(repr, frozen))} (frozen) matches every parameter, so that "
                "nothing is left to train."
            )

    def with_seed(self, seed: int, run_dir: Path) -> "Run":
        """The same run with another seed and folder; both have one data set and one program."""
        for shared in ("train_step", "_draw_program", "_start_program", "_eval_step", "_val"):
            getattr(self, shared)
        other = copy.copy(self)
        other.config = dataclasses.replace(self.config, seed=seed, run_dir=run_dir)
        other.batches = dataclasses.replace(self.batches, seed=seed)
        other.train_step = dataclasses.replace(self.train_step, seed=seed)
        return other

    def _draw_variables(self, data: UInt32[Array, " words"]) -> dict[str, Any]:
        key = jax.random.wrap_key_data(data, impl=_INIT_GENERATOR)
        return draw_variables(self.model, key, self.dataset.image_shape)

    def _state_of(self, variables: dict[str, Any]) -> TrainState:
        return state_of(variables, self.optimizer, self.config.ema_decay is not None)

    @functools.cached_property
    def _draw_program(self) -> Any:
        # Whole on every device at first: what is drawn depends on how the program is divided.
        return jax.jit(self._draw_variables, out_shardings=meshes.replicated(self.mesh))

    @functools.cached_property
    def _start_program(self) -> Any:
        return jax.jit(self._state_of, out_shardings=self.state_shardings)

    def _abstract_state(self) -> TrainState:
        key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=_INIT_GENERATOR)))
        state = jax.eval_shape(lambda data: self._state_of(self._draw_variables(data)), key)
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            state,
            meshes.state_shardings(state, self.mesh),
        )

    @functools.cached_property
    def state_shardings(self) -> TrainState:
        """Where each leaf of the state lies."""
        return jax.tree.map(lambda x: x.sharding, self.abstract)

    @functools.cached_property
    def init_variables(self) -> dict[str, Any] | None:
        """The weights that the config starts from, read and checked; None where it draws them.

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
                **model_fields(self.config.model, len(self.dataset.classes)),
            )
        except MisfitError as error:
            # The number of classes is that of the data set.
            raise UsageError(error.advise("--drop-head", None)) from error

    def fresh_state(self) -> TrainState:
        """The state of step 0, laid out over the mesh."""
        variables = self.init_variables
        if variables is None:
            variables = self._draw_program(key_data(self.config.seed, _INIT_GENERATOR))
        state: TrainState = self._start_program(variables)
        return state

    @property
    def device_augment(self) -> AugmentConfig:
        """What the training step does to its images; the host has mirrored photographs already."""
        augment = self.config.data.augment
        if isinstance(self.dataset.train, ArraySource):
            return augment
        return dataclasses.replace(augment, flip=False)

    @functools.cached_property
    def train_step(self) -> TrainStep:
        """The jitted training step."""
        return make_train_step(
            self.network,
            self.optimizer,
            state_shardings=self.state_shardings,
            seed=self.config.seed,
            augmentation=self.device_augment,
            label_smoothing=self.config.label_smoothing,
            ema_decay=self.config.ema_decay,
            drop_block_steps=self.batches.steps,
            parts=self.config.accumulate,
        )

    def learning_rate(self, state: TrainState) -> float:
        """The learning rate of the step that led to a state."""
        scale = plateau_scale(self.config.optimizer, state.opt_state)
        return float(self.schedule(int(state.step) - 1)) * scale

    def observe(self, state: TrainState, loss: float) -> TrainState:
        """Tells the schedule of a validation loss; returns the state to go on with."""
        opt_state = observe_validation(self.config.optimizer, state.opt_state, loss)
        return dataclasses.replace(state, opt_state=opt_state)

    def shown_batch(self, step: int) -> ShownBatch:
        """The training images of a step as the network is shown them, before normalisation."""
        return show_batch(
            self.batches[step],
            step,
            seed=self.config.seed,
            mean=self.network.normalization.mean,
            augmentation=self.device_augment,
        )

    @functools.cached_property
    def _eval_step(self) -> EvalStep:
        return make_eval_step(self.network)

    def trace(self) -> None:
        """Traces training and evaluation for all sizes of images, without compiling.

        Errors that only the shapes within the network show come out here, before anything is
        written. ``jax.jit`` keeps the traces: the first step of each size compiles them.

        Raises:
            UsageError: The network cannot be trained on such batches.
        """
        with_stop = ("stop",) if jax.distributed.is_initialized() else ()
        data = self.config.data
        for size in data.train_sizes or (None,):
            batch = self._abstract_batch(data.batch_size, size, with_stop)
            self.train_step.trace(self.abstract, batch)
        batch = self._abstract_batch(
            padded_size(data.eval_batch_size, self.mesh), None, ("weight",)
        )
        self._eval_step.trace(self.abstract.eval_variables, batch)

    def _abstract_batch(self, images: int, size: int | None, others: Sequence[str]) -> Any:
        """The shapes of a global batch; ``size`` of None means that of the data set."""
        height, width, channels = self.dataset.image_shape
        shape = (images, size or height, size or width, channels)
        leaves: dict[str, Any] = {"image": (shape, np.uint8), "label": ((images,), np.int32)}
        leaves |= dict.fromkeys(others, ((images,), np.float32))
        sharding = meshes.over_batch(self.mesh)
        return {
            name: jax.ShapeDtypeStruct(*leaf, sharding=sharding) for name, leaf in leaves.items()
        }

    def evaluate(self, variables: dict[str, Any]) -> Evaluation:
        """Evaluates ``params`` and ``batch_stats`` on the validation split."""
        size = self.config.data.eval_batch_size
        return evaluate(self._eval_step, variables, self._val, size, self.mesh)

    @functools.cached_property
    def _val(self) -> ArraySource | ViewedSource:
        """The validation split as it is evaluated."""
        source, data = self.dataset.val, self.config.data
        if isinstance(source, ArraySource):
            return source
        view = EvalTransform(
            self.dataset.size, data.crop_pct, data.eval_interpolation, data.exif_orientation
        )
        return ViewedSource(source, view, self.dataset.image_shape, data.workers)

    def device_batches(self, start: int, stop: Sequence[int] = ()) -> Iterator[DeviceBatch]:
        """Yields the training batches from step ``start`` on, as global arrays.

        A batch is sent to the devices when it is asked for, which is while they compute the step
        before. Under ``hosts.together`` it has ``stop`` (see ``make_train_step``).

        Args:
            start: The first step.
            stop: Filled, at any time, when this host wants to stop.

        Raises:
            UsageError: Too many images cannot be read, or the data set is gone.
        """
        for batch in self.batches.prefetch(start):
            arrays: dict[str, Any] = {**batch}
            if jax.distributed.is_initialized():
                arrays["stop"] = np.full(len(batch["label"]), bool(stop), np.float32)
            yield meshes.to_devices(arrays, self.mesh)

    def describe(self) -> str:
        """What is trained, on what, in a few lines."""
        height, width, channels = self.dataset.image_shape
        per_image = cost(self.model, max(height, width), channels)
        kind = self.mesh.devices.flat[0].device_kind
        return (
            f"{self.config.model.name} on {self.dataset.name}: {per_image.params:,} parameters, "
            f"{per_image.macs / 1e6:,.2f} MMACs an image of {height}x{width}x{channels}\n"
            f"{len(self.dataset.train):,} training and {len(self.dataset.val):,} "
            f"validation images of {len(self.dataset.classes):,} classes, {self.batches.steps:,} "
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


def _batches(config: TrainConfig, dataset: Dataset) -> TrainBatches:
    data, images = config.data, len(dataset.train)
    if images < data.batch_size:
        raise UsageError(
            f"a batch of {data.batch_size} is larger than the {images} training images: lower "
            "data.batch_size."
        )
    host = Host(jax.process_index(), jax.process_count())
    if data.batch_size % host.count:
        raise UsageError(
            f"a batch of {data.batch_size} cannot be divided over {host.count} hosts: use a "
            "multiple of their number."
        )
    return TrainBatches(
        dataset,
        data.batch_size,
        config.seed,
        steps=images // data.batch_size * config.epochs,
        transforms=tuple(
            TrainTransform(size, data.augment, data.exif_orientation)
            for size in data.train_sizes or (dataset.size,)
        ),
        balanced=data.balanced,
        host=host,
        workers=data.workers,
        max_corrupt=data.max_corrupt,
    )


def _set_deterministic() -> None:
    """Must come before the first use of a device."""
    flag = "--xla_gpu_deterministic_ops=true"
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
