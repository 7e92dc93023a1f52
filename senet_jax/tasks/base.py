"""A task as a value: all that training and evaluation ask of what a network learns.

The first task is classification (:mod:`senet_jax.tasks.classification`). Another one is a class
with these methods, and an entry point of the group ``senet_jax.tasks`` that names it.
"""

import abc
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from senet_jax.config import TrainConfig
from senet_jax.data.augment.keys import StepKeys
from senet_jax.data.datasets import Dataset
from senet_jax.data.examples import Examples
from senet_jax.data.normalization import Normalization
from senet_jax.tasks.metrics import Metric

Arrays = dict[str, Array]
"""Arrays of a batch on the devices, by name; each has a row for each image."""


class Measured(NamedTuple):
    """The measurements of a batch of evaluation, on the devices."""

    sums: Any
    """By name, sums over the images of the whole batch whose weight is 1; all hosts have them."""
    rows: Any
    """By name, arrays with a row for each image, of which a host has those of its own images."""


class Accumulator(Protocol):
    """The measurements of a split, as far as one host has them."""

    def add(self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """Adds a batch: ``Measured``, with the rows of this host's images that count."""

    def part(self) -> Mapping[str, np.ndarray]:
        """The arrays that the other hosts lack: those that come from rows."""

    def summary(self, parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
        """The metrics of the split by their keys.

        Args:
            parts: ``part`` of each host, in the order of their ranks.
        """


class Sums:
    """An accumulator of additive sums: each metric is its sum over the number of images."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}

    def add(self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """As ``Accumulator.add``; in double precision."""
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)

    def part(self) -> Mapping[str, np.ndarray]:
        """As ``Accumulator.part``: nothing, since all hosts have the sums."""
        return {}

    def summary(self, parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
        """As ``Accumulator.summary``."""
        count = self._sums["count"]
        return {name: value / count for name, value in self._sums.items() if name != "count"}


class Rows:
    """An accumulator that keeps the rows of all images, for metrics that no sums give.

    Args:
        summarize: Returns the metrics of the rows of a split, by the names of the arrays. The rows
            come host by host, so that it must not matter in which order.
    """

    def __init__(self, summarize: Callable[[Mapping[str, np.ndarray]], dict[str, float]]) -> None:
        self._summarize = summarize
        self._rows: list[Mapping[str, np.ndarray]] = []

    def add(self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """As ``Accumulator.add``."""
        self._rows.append(rows)

    def part(self) -> Mapping[str, np.ndarray]:
        """As ``Accumulator.part``."""
        return _joined(self._rows)

    def summary(self, parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
        """As ``Accumulator.summary``."""
        return self._summarize(_joined(parts))


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Task(Protocol):
    """A thing to learn: its data, loss and metrics.

    A task is made of a config and is immutable. Its random numbers come from the keys that it is
    given.
    """

    name: ClassVar[str]
    """Its name in ``TrainConfig.task``."""
    metrics: ClassVar[tuple[Metric, ...]]
    """The metrics of its validation, in the order in which people are shown them; the first is the
    headline, which reports compare and by which the best checkpoint is kept."""
    watched: ClassVar[str] = "loss"
    """The key of the metric that the plateau schedule follows, the lower the better. A run ends
    when it is not finite."""
    fields: ClassVar[tuple[str, ...]] = ()
    """The fields of the config that this task has and others may lack, such as "label_smoothing"; a
    group of fields, such as "data.augment", stands for all of its own."""

    @classmethod
    @abc.abstractmethod
    def open(cls, config: TrainConfig) -> Dataset:
        """Opens the data of a config.

        Raises:
            UsageError: There is no such data set, or it cannot be read.
        """

    @classmethod
    def same_data(cls, config: TrainConfig) -> Hashable:
        """All of a config that ``open`` reads: configs that agree in it share their data."""
        return config.data, config.model

    @classmethod
    @abc.abstractmethod
    def of(cls, config: TrainConfig, dataset: Dataset) -> Self:
        """The task of a config and its data.

        Args:
            config: The experiment.
            dataset: As ``open`` returned it, or a ``Card.stand_in`` of the same facts.

        Raises:
            UsageError: A value that the task or its data do not have.
        """

    def check(self, dataset: Dataset) -> None:
        """Checks that a network can learn the task of these data.

        Raises:
            UsageError: It cannot.
        """

    def notes(self, dataset: Dataset, network: nn.Module) -> list[str]:
        """Sentences about the data and the network, which the start of a training shows."""
        return []

    @abc.abstractmethod
    def examples(self, dataset: Dataset, split: Literal["train", "val"]) -> tuple[Examples, ...]:
        """The images of a split as the network is shown them.

        Returns:
            For training one or several forms of the images, such as several sizes, each for an
            equal share of the epochs or for images of its own, see ``groups``. For "val" one or
            several groups, such as the images of each size; each image is in one of them. Each form
            and each group is a program of its own.
        """

    def groups(self, dataset: Dataset) -> tuple[np.ndarray, ...] | None:
        """Training images of each form of ``examples``, where a batch has images of one form alone.

        Each image is in one group. None reads all images in each form, one form after the other.
        """
        return None

    def classes(self, dataset: Dataset) -> np.ndarray | None:
        """Class of every training image, to draw each class equally often.

        None draws each image once.
        """
        return None

    @classmethod
    def network_name(cls, config: TrainConfig) -> str:
        """The name of the network, for people."""
        return f"a network of the task {cls.name}"

    @abc.abstractmethod
    def build(self, dataset: Dataset) -> nn.Module:
        """Builds the network: a module with ``__call__(images, ..., train)``.

        Raises:
            UsageError: There is no such network.
        """

    def inputs(self, arrays: Mapping[str, Any], *, train: bool) -> tuple[Any, ...]:
        """The arguments of the network besides ``train``.

        Args:
            arrays: Those of a batch, in training after ``prepare``.
            train: The network is trained, and may be given the targets.

        Returns:
            First the images, (n, h, w, c), 0 to 255, which the network is given normalized.
        """
        return (arrays["image"],)

    rngs: ClassVar[tuple[str, ...]] = ("dropout",)
    """The names by which the network asks for random keys in training, each of which is another."""

    def prepare(
        self, batch: Arrays, keys: StepKeys, normalization: Normalization
    ) -> tuple[Arrays, Any]:
        """Augments a batch of training, in the compiled step.

        Returns:
            The arrays of the batch, each with a row for each image, and values that all its images
            share, a pytree.
        """
        return batch, None

    def normalizer(self, batch: Arrays) -> Any:
        """The number by which the sum of the losses over a batch is divided.

        It may depend on the data, as the number of valid pixels does. A batch that is computed in
        parts has the number of the whole batch over that of the parts, so that the mean over the
        parts is exact.

        Args:
            batch: The whole batch, after ``prepare``.
        """
        return len(batch["image"])

    @abc.abstractmethod
    def loss(
        self, outputs: Any, batch: Arrays, shared: Any, normalizer: Any
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss of a batch or of a part of it.

        Args:
            outputs: The outputs of the network in training.
            batch: The arrays of the part.
            shared: As ``prepare`` returned it.
            normalizer: See ``normalizer``.

        Returns:
            The loss, which is minimised, and further metrics of training; each a sum over the
            images over ``normalizer``.
        """

    head: ClassVar[tuple[str, ...]] = ("head/*",)
    """Patterns of the paths of the parameters that learn at the full rate where ``body_rate`` slows
    all others."""

    def decays(self, path: tuple[str, ...]) -> bool:
        """Says if weight decay applies to the parameter at a path."""
        return is_kernel(path)

    @abc.abstractmethod
    def measure(self, outputs: Any, batch: Arrays) -> Measured:
        """Measures a batch of validation, in the compiled step, which adds the sum ``count``.

        Args:
            outputs: The outputs of the network.
            batch: The arrays of the examples and ``weight``, 1 for an image that counts, 0 for
                padding, whose outputs may be anything, even not a number.
        """

    def accumulator(self) -> Accumulator:
        """An accumulator without measurements."""
        return Sums()

    def pixel_classes(self, batch: Arrays) -> np.ndarray | None:
        """The class of each pixel of a batch of training, for people who look at its images.

        Args:
            batch: The batch, after ``prepare``.

        Returns:
            Classes, (n, h, w); other values stand for none. None if the task has no such classes.
        """
        return None

    @classmethod
    def details(cls, metrics: Mapping[str, float]) -> list[str]:
        """Lines about the metrics of a validation besides those of ``metrics``, for people.

        Args:
            metrics: By the keys of ``metrics.jsonl``.
        """
        return []

    def titles(self, batch: Arrays, shared: Any, names: Sequence[str]) -> list[str]:
        """A title for each image of a batch of training, for people who look at them.

        Args:
            batch: The batch, after ``prepare``.
            shared: Likewise.
            names: Names of the classes.
        """
        return [""] * len(batch["image"])


def other_inputs(task: Task, examples: Examples) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The shapes of the inputs of a network besides the image, of one image in evaluation."""
    rows = {name: spec.rows(1) for name, spec in examples.arrays.items()}
    _, *others = task.inputs(rows, train=False)
    return tuple(jax.ShapeDtypeStruct(each.shape, each.dtype) for each in others)


def is_kernel(path: tuple[str, ...]) -> bool:
    """Says if the parameter at a path is a kernel; no bias and no scale of a batch norm is."""
    return path[-1] == "kernel"


def headline(task: type[Task] | Task) -> Metric:
    """The metric of a task that reports compare."""
    return task.metrics[0]


def reported(task: type[Task] | Task) -> list[Metric]:
    """The metrics that the report of a run has: the headline, and the watched one if it is another.

    A task that watches what is none of its metrics has the headline alone.
    """
    return [headline(task), *(each for each in task.metrics[1:] if each.key == task.watched)]
