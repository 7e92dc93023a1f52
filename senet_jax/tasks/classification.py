"""Classification of images: cross-entropy, top-1 and top-5."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from senet_jax.config import ModelConfig, TrainConfig
from senet_jax.data.augment.device import change_batch
from senet_jax.data.augment.keys import StepKeys
from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.data.datasets import Dataset, open_dataset
from senet_jax.data.examples import ArraySpec, Batch, Draws, Examples
from senet_jax.data.normalization import Normalization
from senet_jax.data.transforms import EvalTransform, TrainTransform
from senet_jax.errors import UsageError
from senet_jax.models import zoo
from senet_jax.models.configured import build_model, image_side, model_fields
from senet_jax.models.detection import named as detectors
from senet_jax.tasks.base import Arrays, Measured, Task
from senet_jax.tasks.metrics import Metric
from senet_jax.text import printable

TOP = 5
"""k of the top-k accuracy besides top-1."""


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """One class an image.

    The loss is the mean cross-entropy over the batch. ``top1`` and ``top5`` are the fractions
    right, 0 to 1; of mixed images the label with the larger share counts.
    """

    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes (Inception-v3, arXiv 1512.00567, section
    7)."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation in the compiled step."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """The images, how they are read, and how photographs are augmented when they are read."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """The network."""

    name: ClassVar[str] = "classification"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("top1", "top-1", True, fraction=True, as_error=True, brief="error"),
        Metric("top5", "top-5", True, fraction=True, as_error=True, brief="top-5", optional=True),
        Metric("loss", "loss", False, axis_title="cross-entropy"),
    )
    fields: ClassVar[tuple[str, ...]] = (
        "label_smoothing",
        "model",
        "init_weights",
        "drop_head",
        "weights_of",
        "data.augment",
        "data.balanced",
        "data.crop_pct",
        "data.eval_interpolation",
        "data.exif_orientation",
        "data.train_sizes",
    )

    @classmethod
    def open(cls, config: TrainConfig) -> Dataset:
        # An unknown network is refused before the data are opened.
        model_fields(config.model, num_classes=1)
        if isinstance(zoo.find(config.model.name), zoo.ComposedEntry):
            raise UsageError(
                f"{config.model.name} {_does(config.model.name)}, and this task classifies images: "
                f"choose a network such as {zoo.backbone_name(config.model.name)}."
            )
        return open_dataset(config.data.name, config.data.dir, image_side(config))

    @classmethod
    def same_data(cls, config: TrainConfig) -> Hashable:
        return config.data.name, config.data.dir, image_side(config)

    @classmethod
    def of(cls, config: TrainConfig, dataset: Dataset) -> Self:
        augment = config.data.augment
        if dataset.photographs:
            # They are mirrored when they are read.
            augment = dataclasses.replace(augment, flip=False)
        return cls(config.label_smoothing, augment, config.data, config.model)

    def check(self, dataset: Dataset) -> None:
        if len(dataset.classes) == 1:
            raise UsageError(
                f"{dataset.name} has one class, {printable(dataset.classes[0])!r}, so "
                "that there is nothing to learn: training needs two or more."
            )

    def examples(self, dataset: Dataset, split: Literal["train", "val"]) -> tuple[Examples, ...]:
        data = self.data
        if split == "train":
            data.check_images(dataset.photographs)
        if split == "val":
            crop = (data.crop_pct, data.eval_interpolation, data.exif_orientation)
            return (_Labelled(dataset.val.shown(EvalTransform(dataset.size, *crop)), "validation"),)
        return tuple(
            _Labelled(
                dataset.train.shown(TrainTransform(size, data.augment, data.exif_orientation)),
                "training",
            )
            for size in data.train_sizes or (dataset.size,)
        )

    def classes(self, dataset: Dataset) -> np.ndarray | None:
        return dataset.train.labels if self.data.balanced else None

    @classmethod
    def network_name(cls, config: TrainConfig) -> str:
        return config.model.name

    def build(self, dataset: Dataset) -> zoo.Network:
        return build_model(self.model, len(dataset.classes))

    def prepare(
        self, batch: Arrays, keys: StepKeys, normalization: Normalization
    ) -> tuple[Arrays, Float[Array, ""] | None]:
        """As ``Task.prepare``.

        All images share how much of its own label each keeps, 0 to 1; the rest is that of the image
        before it. If None, nothing is mixed.
        """
        images, share = change_batch(
            batch["image"], keys, mean=normalization.mean, config=self.augment
        )
        examples = {"image": images, "label": batch["label"]}
        if share is not None:
            examples["mixed_label"] = jnp.roll(batch["label"], 1)
        return examples, share

    def loss(
        self, outputs: Any, batch: Arrays, shared: Float[Array, ""] | None, normalizer: Any
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        right = jnp.argmax(outputs, axis=-1) == _counted(batch, shared)
        targets = _targets(batch, shared, outputs.shape[-1], self.label_smoothing)
        losses = optax.softmax_cross_entropy(outputs, targets)
        # Sums over the number of images, as jnp.mean computes them.
        loss = jnp.sum(losses) / normalizer
        return loss, {"top1": jnp.sum(right, dtype=loss.dtype) / normalizer}

    def measure(self, outputs: Any, batch: Arrays) -> Measured:
        labels, weight = batch["label"], batch["weight"]
        loss = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        before = rank(outputs, labels)
        sums = {
            # If the weight is 0, the loss may be anything, even not a number.
            "loss": jnp.sum(jnp.where(weight > 0, loss, 0)),
            "top1": jnp.sum((before < 1) * weight),
        }
        if outputs.shape[-1] > TOP:
            sums["top5"] = jnp.sum((before < TOP) * weight)
        return Measured(sums, {})

    def titles(self, batch: Arrays, shared: Any, names: Sequence[str]) -> list[str]:
        """As ``Task.titles``; of mixed images two lines, each with its share."""
        own = [names[int(label)] for label in batch["label"]]
        if shared is None:
            return own
        return [
            f"{float(shared):.2f} {mine}\n{1 - float(shared):.2f} {other}"
            for mine, other in zip(own, [own[-1], *own[:-1]], strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class _Labelled:
    """Examples each of which must have a label."""

    examples: Examples
    split: str
    """The name of the split in messages."""

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        return self.examples.arrays

    def __len__(self) -> int:
        return len(self.examples)

    def name(self, index: int) -> str:
        return self.examples.name(index)

    def read(
        self, indices: Int[np.ndarray, " n"], draws: Sequence[Draws]
    ) -> tuple[Batch, dict[int, str]]:
        batch, broken = self.examples.read(indices, draws)
        least = batch["label"].min(initial=0)
        if least < 0:
            raise UsageError(
                f"a {self.split} image has the label {least}, which stands for no label: train on "
                "a set whose splits have labels."
            )
        return batch, broken


def rank(scores: Any, labels: Any, numpy: ModuleType = jnp) -> Any:
    """Counts, for each image, the classes that come before the right one.

    Ties go to the lower class. If a score of an image is NaN, all classes come before the right
    one.

    Args:
        scores: Logits or logarithms of probabilities, (n, classes).
        labels: The right classes, (n,), at least 0.
        numpy: The module that computes: ``jax.numpy`` or NumPy.
    """
    right = numpy.take_along_axis(scores, labels[:, None], axis=-1)
    classes = scores.shape[-1]
    before = (scores > right) | ((scores == right) & (numpy.arange(classes) < labels[:, None]))
    broken = numpy.isnan(scores).any(axis=-1)
    return numpy.where(broken, classes, numpy.sum(before, axis=-1))


def _targets(
    batch: Arrays, share: Float[Array, ""] | None, classes: int, label_smoothing: float
) -> Float[Array, "n classes"]:
    """The distributions that the logits should have; smoothed before they are mixed."""

    def smooth(labels: Int[Array, " n"]) -> Float[Array, "n classes"]:
        return optax.smooth_labels(jax.nn.one_hot(labels, classes), label_smoothing)

    targets = smooth(batch["label"])
    if share is None:
        return targets
    return share * targets + (1 - share) * smooth(batch["mixed_label"])


def _counted(batch: Arrays, share: Float[Array, ""] | None) -> Int[Array, " n"]:
    """The labels that count as right: of mixed images the one with the larger share."""
    if share is None:
        return batch["label"]
    return jnp.where(share >= 0.5, batch["label"], batch["mixed_label"])


def _does(name: str) -> str:
    """The task of a composed network, from its name."""
    return "finds objects" if detectors.split(name) else "classifies pixels"
