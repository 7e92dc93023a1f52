"""Semantic segmentation: the class of each pixel, by cross-entropy and mean IoU."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from senet_jax.config import MEDIAN, ROOT_MEDIAN, ModelConfig, TrainConfig
from senet_jax.data.config import DataConfig
from senet_jax.data.datasets import Dataset
from senet_jax.data.examples import Examples
from senet_jax.data.scene_sets import SceneOptions, open_scenes
from senet_jax.data.scene_transforms import SceneTransform
from senet_jax.data.scenes import Color, SceneDataset, Survey, TrainScenes, evaluation_scenes
from senet_jax.errors import UsageError
from senet_jax.files import read_text
from senet_jax.models.backbone import Backbone
from senet_jax.models.configured import build_model
from senet_jax.models.segmentation import named
from senet_jax.tasks.base import Arrays, Measured, Task
from senet_jax.tasks.confusion import ConfusionMatrix, count_pixels
from senet_jax.tasks.metrics import Metric
from senet_jax.text import printable

OUT, AUX = "out", "aux"
"""The outputs of a network: logits of its head and, if it has one, of its auxiliary head."""


@dataclasses.dataclass(frozen=True)
class Segmentation(Task):
    """One class a pixel.

    The network returns logits of the size of the images, (n, h, w, classes), by ``OUT`` and
    ``AUX``. The loss of a head is the sum of the cross-entropies over the pixels of the batch that
    have a class over their number; with class weights, each is a sum of weights. With
    ``adjust_logits``, the cross-entropies are those of the logits with the logarithms of the
    weights added. ``miou`` is the
    mean over the classes that the labels or the predictions have.
    """

    names: tuple[str, ...]
    """Names of the classes."""
    ignore_label: int
    """The label of pixels without a class."""
    weights: Callable[[], Float[np.ndarray, " c"] | None]
    """Returns the weight of each class in the training loss; None weighs all pixels alike."""
    aux_weight: float = 0.4
    """Weight of the loss of the auxiliary head."""
    adjust_logits: bool = False
    """See ``SegmentationConfig.adjust_logits``."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """The images, and how they are scaled, cropped and recoloured."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """The network."""

    name: ClassVar[str] = "segmentation"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("miou", "mIoU", True, fraction=True),
        Metric("miou_all", "mIoU over all classes", True, fraction=True, brief="mIoU, all"),
        Metric("pixel_accuracy", "pixel accuracy", True, fraction=True, brief="pixAcc"),
        Metric("loss", "loss", False, axis_title="cross-entropy"),
    )
    fields: ClassVar[tuple[str, ...]] = (
        "model",
        "segmentation",
        "init_weights",
        "drop_head",
        "weights_of",
        "data.augment.flip",
        "data.augment.color_jitter",
        "data.augment.lighting",
        "data.augment.pixel_shift",
        "data.crop",
        "data.eval_shapes",
        "data.exif_orientation",
        "data.ignore_label",
        "data.val_split",
    )
    head: ClassVar[tuple[str, ...]] = ("head/*", "aux_head/*")

    @classmethod
    def open(cls, config: TrainConfig) -> SceneDataset:
        # An unknown network is refused before the data are opened.
        cls.network(config.model, 1)
        return open_scenes(config.data.name, _options(config))

    @classmethod
    def same_data(cls, config: TrainConfig) -> Hashable:
        return config.data.name, _options(config)

    @classmethod
    def network(cls, config: ModelConfig, classes: int) -> nn.Module:
        """Builds the network of a config for a number of classes.

        Raises:
            UsageError: There is no such network, or it is one of classification.
        """
        network = build_model(config, classes)
        if isinstance(network, Backbone):
            heads = ", ".join(named.HEADS)
            raise UsageError(
                f"{config.name} classifies images, and this task classifies pixels: choose a "
                f"network such as fcn_{config.name}, --model.name; the heads are {heads}."
            )
        return network

    @classmethod
    def of(cls, config: TrainConfig, dataset: Dataset) -> Self:
        scenes = _scenes(dataset)
        asked = config.segmentation.class_weights
        if config.segmentation.adjust_logits and asked is None:
            raise UsageError(
                "segmentation.adjust_logits adds the logarithms of the class weights, and there "
                'are none: set segmentation.class_weights, for instance to "median".'
            )
        return cls(
            names=tuple(scenes.classes),
            ignore_label=scenes.ignore_label,
            weights=functools.cache(functools.partial(_class_weights, asked, scenes)),
            aux_weight=config.segmentation.aux_weight,
            adjust_logits=config.segmentation.adjust_logits,
            data=config.data,
            model=config.model,
        )

    def check(self, dataset: Dataset) -> None:
        scenes = _scenes(dataset)
        if len(scenes.classes) == 1:
            raise UsageError(
                f"{dataset.name} has one class, {printable(dataset.classes[0])!r}, so that there "
                "is nothing to learn: training needs two or more."
            )
        for split, which in (("training", scenes.train), ("validation", scenes.val)):
            if not which.survey(len(scenes.classes)).pixels.any():
                raise UsageError(
                    f"no pixel of the {split} scenes of {dataset.name} has a class: is the value "
                    "that is ignored right?"
                )
        weights = self.weights()
        if self.adjust_logits and weights is not None and not weights.all():
            raise UsageError(
                f"the class {printable(scenes.classes[int(weights.argmin())])!r} has the weight 0, "
                "which has no logarithm: leave segmentation.adjust_logits out, or give the class a "
                "weight above 0."
            )

    def examples(self, dataset: Dataset, split: Literal["train", "val"]) -> tuple[Examples, ...]:
        scenes, data = _scenes(dataset), self.data
        classes = len(scenes.classes)
        fill = _fill(scenes, data)
        if split == "val":
            return evaluation_scenes(scenes.val, classes, fill, data.eval_shapes)
        size = data.crop.shape or scenes.image_shape[:2]
        view = SceneTransform(size, data.crop, data.augment, fill, scenes.ignore_label)
        return (TrainScenes(scenes.train, view, classes),)

    @classmethod
    def network_name(cls, config: TrainConfig) -> str:
        return config.model.name

    def build(self, dataset: Dataset) -> nn.Module:
        return self.network(self.model, len(dataset.classes))

    def normalizer(self, batch: Arrays) -> Float[Array, " 2"]:
        """The sum of the weights of the pixels that have a class, and their number."""
        valid = self._valid(batch)
        weights = jnp.sum(self._pixel_weights(batch["label"], valid))
        pixels = jnp.sum(valid, dtype=jnp.float32)
        # A batch without a labelled pixel has the loss 0.
        return jnp.where(pixels > 0, jnp.stack([weights, pixels]), 1)

    def loss(
        self, outputs: Any, batch: Arrays, shared: Any, normalizer: Any
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        valid = self._valid(batch)
        weights = self._pixel_weights(batch["label"], valid)
        of_classes = self.weights() if self.adjust_logits else None

        def of(logits: Float[Array, "n h w c"]) -> Float[Array, ""]:
            if of_classes is not None:
                logits += jnp.asarray(np.log(of_classes), logits.dtype)
            losses = weights * self._cross_entropy(logits, batch["label"], valid)
            return jnp.sum(losses) / normalizer[0]

        loss = of(outputs[OUT])
        if AUX in outputs:
            loss += self.aux_weight * of(outputs[AUX])
        right = valid & (jnp.argmax(outputs[OUT], axis=-1) == batch["label"])
        return loss, {"pixel_accuracy": jnp.sum(right, dtype=jnp.float32) / normalizer[1]}

    def measure(self, outputs: Any, batch: Arrays) -> Measured:
        # Padding has any outputs, even not numbers.
        counts = batch["weight"][:, None, None] > 0
        label = jnp.where(counts, batch["label"], self.ignore_label)
        valid = label != self.ignore_label
        predicted = jnp.argmax(outputs[OUT], axis=-1)
        sums = {
            "confusion": count_pixels(predicted, label, len(self.names), self.ignore_label),
            "loss": jnp.sum(self._cross_entropy(outputs[OUT], label, valid)),
        }
        return Measured(sums, {})

    def accumulator(self) -> ConfusionMatrix:
        return ConfusionMatrix(self.names)

    @classmethod
    def details(cls, metrics: Mapping[str, float]) -> list[str]:
        """The IoU of each class that the labels or the predictions have."""
        start = "val/iou/"
        ious = {
            key.removeprefix(start): iou for key, iou in metrics.items() if key.startswith(start)
        }
        return ["IoU by class:", *(f"  {iou:7.2%}  {name}" for name, iou in ious.items())]

    def pixel_classes(self, batch: Arrays) -> np.ndarray | None:
        return np.asarray(batch["label"])

    def _valid(self, batch: Arrays) -> Bool[Array, "n h w"]:
        return batch["label"] != self.ignore_label

    def _pixel_weights(
        self, label: Int[Array, "n h w"], valid: Bool[Array, "n h w"]
    ) -> Float[Array, "n h w"]:
        weights = self.weights()
        if weights is None:
            return valid.astype(jnp.float32)
        return jnp.where(valid, jnp.asarray(weights, float)[jnp.where(valid, label, 0)], 0)

    def _cross_entropy(
        self,
        logits: Float[Array, "n h w c"],
        label: Int[Array, "n h w"],
        valid: Bool[Array, "n h w"],
    ) -> Float[Array, "n h w"]:
        """The cross-entropy of each pixel, 0 of those without a class."""
        known = jnp.where(valid, label, 0).astype(jnp.int32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, known)
        return jnp.where(valid, losses, 0)


def _options(config: TrainConfig) -> SceneOptions:
    data = config.data
    return SceneOptions(
        directory=data.dir,
        frame=data.crop.shape,
        side=data.image_size,
        val_split=data.val_split,
        ignore_label=data.ignore_label,
        exif_orientation=data.exif_orientation,
    )


def _scenes(dataset: Dataset) -> SceneDataset:
    assert isinstance(dataset, SceneDataset)
    return dataset


def _fill(scenes: SceneDataset, data: DataConfig) -> Color:
    """The colour of padding."""
    if data.crop.padding == "black":
        return (0, 0, 0)
    return tuple(round(255 * mean) for mean in scenes.mean)


def _class_weights(asked: str | None, dataset: SceneDataset) -> Float[np.ndarray, " c"] | None:
    if asked is None:
        return None
    if asked in (MEDIAN, ROOT_MEDIAN):
        weights = median_frequency_weights(dataset.train.survey(len(dataset.classes)))
        return weights if asked == MEDIAN else np.sqrt(weights)
    return _read_weights(Path(asked), dataset.classes)


def median_frequency_weights(survey: Survey) -> Float[np.ndarray, " c"]:
    """Weights of classes by median frequency (Eigen and Fergus, arXiv 1411.4734, section 6.3.2).

    The frequency of a class is its pixels over all pixels of the images that have it; the weight
    of a class is the median of the frequencies over its own. A class that no image has weighs 1.

    Args:
        survey: The training split.
    """
    there = survey.pixels > 0
    own = survey.pixels.sum(0)
    around = (there * survey.sizes.astype(np.int64).prod(1)[:, None]).sum(0)
    seen = own > 0
    frequency = own[seen] / around[seen]
    weights = np.ones(len(own))
    weights[seen] = np.median(frequency) / frequency
    return weights


def _read_weights(file: Path, classes: list[str]) -> Float[np.ndarray, " c"]:
    lines = [line.strip() for line in read_text(file, "the weights of the classes").splitlines()]
    lines = [line for line in lines if line]
    try:
        weights = np.array([float(line) for line in lines])
    except ValueError as error:
        raise UsageError(
            f"{printable(str(file))} has a line that is no number: {error}."
        ) from error
    if len(weights) != len(classes):
        raise UsageError(
            f"{printable(str(file))} has {len(weights)} weights, and the data set has "
            f"{len(classes)} classes: write one a line, in the order of the classes."
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise UsageError(
            f"{printable(str(file))} must have weights of at least 0, one of them above it."
        )
    return weights
