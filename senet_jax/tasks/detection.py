"""Detection: boxes, classes and masks of objects, by the losses of the network and COCO's AP."""

import dataclasses
import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from senet_jax.config import ModelConfig, TrainConfig
from senet_jax.data.config import CropConfig, DataConfig
from senet_jax.data.datasets import Dataset
from senet_jax.data.examples import Examples
from senet_jax.data.picture_examples import (
    Bucket,
    TrainPictures,
    buckets,
    evaluated_size,
    evaluation_pictures,
)
from senet_jax.data.picture_sets import PictureOptions, open_pictures
from senet_jax.data.picture_transforms import PictureTransform
from senet_jax.data.pictures import PictureDataset
from senet_jax.errors import UsageError
from senet_jax.models.backbone import Backbone
from senet_jax.models.configured import build_model
from senet_jax.models.detection import named
from senet_jax.models.detection.coverage import covered_share
from senet_jax.models.detection.mask_rcnn import MaskRCNN
from senet_jax.models.detection.rcnn import STAGES, FasterRCNN
from senet_jax.models.segmentation import named as segmenters
from senet_jax.ops.masks import PasteStyle
from senet_jax.tasks.base import Arrays, Measured, Task, is_kernel
from senet_jax.tasks.coco_ap import NUMBERS
from senet_jax.tasks.detections import KINDS, Detections
from senet_jax.tasks.metrics import Metric

TARGETS = ("boxes", "labels", "valid", "crowd", "masks", "mask_boxes")
"""Arrays of a training batch that the network is given to learn, if they are there."""

FOUND = ("boxes", "labels", "scores", "valid", "masks")
"""The outputs of a network for each image; not all networks have all of them."""


COVERED, MOSTLY_COVERED = 0.5, 0.9
"""IoU from which on an anchor fits an object, and the share of the objects that should have one."""
USUAL = "resnet50"
"""The backbone that is proposed where the one that was asked for has no feature pyramid."""
MOST_COVERED = 2000
"""Images whose objects are compared with the anchors."""


@dataclasses.dataclass(frozen=True)
class Detection(Task):
    """Boxes, classes and, if the network has a mask head, masks of objects.

    The network is called with normalized images and their heights and widths, beyond which it sees
    zeros, in training also with the objects; it returns its losses by name, whose sum is minimised,
    or what it found.

    The loss of a batch that is computed in parts is the mean of those of its parts, each of which
    the network divides by what it samples of the part. The sum over the parts divided by the number
    of the batch would need three gradients in place of one, of the losses of anchors, boxes and
    masks: their numbers are known after the last part only, since proposals decide them.
    """

    dataset: PictureDataset
    """Its facts: classes, their numbers in annotations, and the annotations."""
    masks: bool
    """Masks are learnt."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    """The images, and how they are scaled, cropped and recoloured."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """The network."""

    name: ClassVar[str] = "detection"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("AP", "box AP", True, fraction=True, brief="AP"),
        Metric("AP50", "box AP50", True, fraction=True, brief="AP50"),
        Metric("mask_AP", "mask AP", True, fraction=True, brief="mask AP", optional=True),
        Metric("mask_AP50", "mask AP50", True, fraction=True, brief="mask AP50", optional=True),
        Metric("loss", "loss", False, axis_title="loss", optional=True),
    )
    watched: ClassVar[str] = "error"
    fields: ClassVar[tuple[str, ...]] = (
        "model",
        "init_weights",
        "drop_head",
        "weights_of",
        "data.augment.flip",
        "data.augment.color_jitter",
        "data.augment.lighting",
        "data.augment.pixel_shift",
        "data.crop.base",
        "data.crop.scale",
        "data.crop.side",
        "data.crop.size",
        "data.eval_shapes",
        "data.exif_orientation",
        "data.objects",
        "data.val_split",
    )
    head: ClassVar[tuple[str, ...]] = (
        *("pyramid/*", "rpn/*", "box_head*", "box_predictor*", "mask_head/*"),
    )
    rngs: ClassVar[tuple[str, ...]] = ("dropout", "sampling")

    @classmethod
    def open(cls, config: TrainConfig) -> PictureDataset:
        # An unknown network is told before the data are opened.
        cls.network(config.model, 2)
        if not config.data.crop.size and config.data.crop != CropConfig():
            raise UsageError(
                "data.crop needs the size of the crops, --data.crop.size; without crops, images "
                "are scaled by --data.objects.short and --data.objects.long."
            )
        dataset = open_pictures(config.data.name, _options(config))
        return dataclasses.replace(dataset, frame=_buckets(dataset, config.data)[0].shape)

    @classmethod
    def same_data(cls, config: TrainConfig) -> Hashable:
        data = config.data
        return data.name, _options(config), data.objects, data.crop, data.batch_size

    @classmethod
    def network(cls, config: ModelConfig, classes: int) -> nn.Module:
        """Builds the network of a config for so many classes, the background among them.

        Raises:
            UsageError: There is no such network, or it is one of another task.
        """
        network = build_model(config, classes)
        if not isinstance(network, FasterRCNN):
            backbone = config.name
            if of_segmenter := segmenters.split(config.name):
                backbone = of_segmenter[1]
            elif isinstance(network, Backbone) and not set(STAGES) <= set(network.stage_numbers):
                backbone = USUAL
            raise UsageError(
                f"{config.name} finds no objects: choose a network such as "
                f"{named.name_of('maskrcnn', backbone, False)}, --model.name; the heads are "
                f"{', '.join(named.HEADS)}."
            )
        return network

    @classmethod
    def has_masks(cls, config: ModelConfig) -> bool:
        """Says if the network of a config has a mask head."""
        return named.has_masks(config.name)

    @classmethod
    def of(cls, config: TrainConfig, dataset: Dataset) -> Self:
        pictures = _pictures(dataset)
        masks = cls.has_masks(config.model)
        if masks and not pictures.masks:
            raise UsageError(
                f"{dataset.name} has boxes and no masks, and {config.model.name} learns masks: "
                "choose a network such as fasterrcnn_resnet50_fpn, --model.name."
            )
        return cls(pictures, masks, config.data, config.model)

    def check(self, dataset: Dataset) -> None:
        pictures = _pictures(dataset)
        for split, which in (("training", pictures.train), ("held-out", pictures.val)):
            if not which.counts.any():
                raise UsageError(f"the {split} images of {dataset.name} have no object.")

    def notes(self, dataset: Dataset, network: nn.Module) -> list[str]:
        """Annotations that were left out, and objects that exceed the limits."""
        pictures = _pictures(dataset)
        notes = [*pictures.train.index.notes, *pictures.val.index.notes]
        most = self.data.objects.most
        crowded = pictures.train.counts[pictures.train.counts > most]
        if len(crowded):
            notes.append(
                f"{len(crowded):,} training images have more objects than {most}, at most "
                f"{crowded.max():,}: the largest {most} of each are learnt, and the others are "
                "background; raise --data.objects.most."
            )
        if isinstance(network, FasterRCNN):
            notes.append(self._coverage(pictures, network))
        found = _buckets(pictures, self.data)
        left = sum(len(bucket.indices) % self.data.batch_size for bucket in found)
        if len(found) > 1:
            shapes = " and ".join(f"{bucket.shape[0]}x{bucket.shape[1]}" for bucket in found)
            notes.append(
                f"batches of {shapes} pixels; {left:,} images of an epoch fill no batch and are "
                "left out, others each time."
            )
        return notes

    def _coverage(self, pictures: PictureDataset, network: FasterRCNN) -> str:
        """Says how many objects some anchor fits, at the size of evaluation."""
        train = pictures.train
        boxes = np.concatenate(
            [
                train.learnt_boxes(index)
                * _scale(train.sizes[index], evaluated_size(train.sizes[index], self.data.objects))
                for index in spread(np.flatnonzero(train.counts), MOST_COVERED)
            ]
        )
        share, least = covered_share(network, boxes, pictures.frame, COVERED), MOSTLY_COVERED
        sentence = f"{share:.1%} of the objects have an anchor of IoU {COVERED} or more"
        if share >= least:
            return f"{sentence}."
        sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
        usual = ", ".join(f"{side:.0f}" for side in np.percentile(sides, (5, 25, 50, 75, 95)))
        return (
            f"{sentence}, which are few: anchors of the sides of the objects, of which 5, 25, 50, "
            f"75 and 95 % are below {usual} pixels, help, --model.anchor-sizes."
        )

    def examples(self, dataset: Dataset, split: Literal["train", "val"]) -> tuple[Examples, ...]:
        pictures, data = _pictures(dataset), self.data
        if split == "val":
            return evaluation_pictures(pictures.val, data.objects, data.eval_shapes)
        view = PictureTransform(data.objects, data.crop, data.augment)
        return tuple(
            TrainPictures(pictures.train, view, bucket.shape, self.masks)
            for bucket in _buckets(pictures, data)
        )

    def groups(self, dataset: Dataset) -> tuple[np.ndarray, ...] | None:
        """The pictures of each format, if there are two; see ``picture_examples.buckets``."""
        found = _buckets(_pictures(dataset), self.data)
        return tuple(bucket.indices for bucket in found) if len(found) > 1 else None

    @classmethod
    def network_name(cls, config: TrainConfig) -> str:
        return config.model.name

    def build(self, dataset: Dataset) -> nn.Module:
        return self.network(self.model, len(dataset.classes) + 1)

    @functools.cached_property
    def _network(self) -> nn.Module:
        return self.build(self.dataset)

    def decays(self, path: tuple[str, ...]) -> bool:
        """As ``Task.decays``; what is frozen keeps its value."""
        network = self._network
        return is_kernel(path) and not (isinstance(network, FasterRCNN) and network.is_frozen(path))

    def inputs(self, arrays: Mapping[str, Any], *, train: bool) -> tuple[Any, ...]:
        """The images, their heights and widths without padding and, in training, the objects."""
        images = arrays["image"], arrays["size"]
        if not train:
            return images
        return *images, {name: arrays[name] for name in TARGETS if name in arrays}

    def normalizer(self, batch: Arrays) -> float:
        """1: the network divides its losses."""
        return 1.0

    def loss(
        self, outputs: Any, batch: Arrays, shared: Any, normalizer: Any
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        total = sum(outputs.values(), jnp.zeros((), jnp.float32))
        return total, dict(outputs)

    def measure(self, outputs: Any, batch: Arrays) -> Measured:
        rows = {name: outputs[name] for name in FOUND if name in outputs}
        rows |= {name: batch[name] for name in ("size", "original", "place")}
        return Measured({}, rows)

    def accumulator(self) -> Detections:
        pictures = self.dataset
        return Detections(
            pictures.val.truth, pictures.val.image_id, pictures.category_ids, self.paste
        )

    @property
    def paste(self) -> PasteStyle:
        """The rule by which masks are pasted into images, that of the network if it has one."""
        network = self._network
        return network.mask_paste if isinstance(network, MaskRCNN) else "torchvision"

    @classmethod
    def details(cls, metrics: Mapping[str, float]) -> list[str]:
        """COCO's twelve numbers, and AP by class, of boxes and of masks."""
        lines = []
        for kind, (start, of_class) in KINDS.items():
            numbers = {
                name: metrics[f"val/{start}{name}"]
                for name in NUMBERS
                if f"val/{start}{name}" in metrics
            }
            if not numbers:
                continue
            what = "boxes" if kind == "bbox" else "masks"
            values = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())
            lines.append(f"{what}: {values}")
            first = f"val/{of_class}"
            by_class = {
                key.removeprefix(first): value
                for key, value in metrics.items()
                if key.startswith(first)
            }
            lines.append(f"AP of {what} by class:")
            lines += [f"  {value:7.2%}  {name}" for name, value in by_class.items()]
        return lines

    def titles(self, batch: Arrays, shared: Any, names: Sequence[str]) -> list[str]:
        """The number of objects of each image."""
        counts = np.asarray(batch["valid"] & ~batch["crowd"]).sum(1).tolist()
        return [f"{count} object{'s' * (count != 1)}" for count in counts]


def spread(indices: Int[np.ndarray, " n"], most: int) -> Int[np.ndarray, " m"]:
    """So many of the indices, evenly spread."""
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).astype(int)]


def _scale(size: Int[np.ndarray, " 2"], scaled: tuple[int, int]) -> Float[np.ndarray, " 4"]:
    down, across = (new / int(old) for new, old in zip(scaled, size, strict=True))
    return np.array([across, down, across, down])


def _options(config: TrainConfig) -> PictureOptions:
    data = config.data
    return PictureOptions(
        directory=data.dir,
        side=data.image_size,
        val_split=data.val_split,
        exif_orientation=data.exif_orientation,
    )


def _pictures(dataset: Dataset) -> PictureDataset:
    assert isinstance(dataset, PictureDataset)
    return dataset


def _buckets(dataset: PictureDataset, data: DataConfig) -> tuple[Bucket, ...]:
    return buckets(dataset.train.sizes, data.objects, data.crop, data.batch_size)
