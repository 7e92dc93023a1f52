"""Pictures as a network is shown them: the arrays of training with targets, and of evaluation."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from senet_jax.data.config import CropConfig, ObjectsConfig
from senet_jax.data.examples import ArraySpec, Batch, Draws, read_each
from senet_jax.data.picture_transforms import (
    PictureTransform,
    Placed,
    Shape,
    fitted_size,
    mask_cells,
    mask_region,
)
from senet_jax.data.pictures import Picture, Pictures
from senet_jax.data.scene_transforms import scaled_image
from senet_jax.data.size_groups import size_groups
from senet_jax.errors import UsageError
from senet_jax.ranges import MOST_SIDE

MULTIPLE = 32
"""Sides of batches are rounded up to a multiple of so many pixels, as torchvision does."""

SIZE = ArraySpec((2,), np.int32)


@dataclasses.dataclass(frozen=True)
class TrainPictures:
    """Training examples: the pictures of a split as a view changes them, padded to one shape."""

    pictures: Pictures
    view: PictureTransform
    shape: Shape
    """Height and width after padding, pixels."""
    masks: bool
    """The objects have masks."""

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """``image``, (h, w, 3), padded to the right and below, and its objects.

        ``size`` is the image's height and width without the padding. Of the objects those that are
        ``valid`` are there: ``boxes``, x1, y1, x2, y2 in pixels; ``labels``, from 1; ``crowd``;
        ``masks``, (m, m), 0 and 1, the cells of a grid over ``mask_boxes``.
        """
        most, side = self.view.objects.most, self.view.objects.mask_side
        specs = {
            "image": ArraySpec((*self.shape, 3), np.uint8),
            "size": SIZE,
            "boxes": ArraySpec((most, 4), np.float32),
            "labels": ArraySpec((most,), np.int32),
            "valid": ArraySpec((most,), bool),
            "crowd": ArraySpec((most,), bool),
        }
        if self.masks:
            specs["masks"] = ArraySpec((most, side, side), np.uint8)
            specs["mask_boxes"] = ArraySpec((most, 4), np.float32)
        return specs

    def __len__(self) -> int:
        return len(self.pictures)

    def name(self, index: int) -> str:
        return self.pictures.name(index)

    def read(
        self, indices: Int[np.ndarray, " n"], draws: Sequence[Draws]
    ) -> tuple[Batch, dict[int, str]]:
        def example(index: int, own: Draws) -> dict[str, Any]:
            picture, placed = self.view(self.pictures.picture(index, self.masks), own.rng)
            height, width = picture.image.shape[:2]
            targets = self._targets(picture, placed)
            return {"image": padded(picture.image, self.shape), "size": (height, width), **targets}

        return read_each(self.arrays, example, indices, draws)

    def _targets(self, picture: Picture, placed: Placed) -> dict[str, Any]:
        arrays = {name: spec.rows(1)[0] for name, spec in self.arrays.items()}
        crowd = picture.crowd
        if picture.masks is not None:
            # Without a mask an object cannot be learnt.
            crowd = crowd | ~picture.masks.any((1, 2))
        areas = np.prod(picture.boxes[:, 2:] - picture.boxes[:, :2], axis=1)
        chosen = np.lexsort((-areas, crowd))[: len(arrays["valid"])]
        side = self.view.objects.mask_side
        for place, row in enumerate(np.sort(chosen)):
            box = picture.boxes[row]
            arrays["boxes"][place] = box
            arrays["labels"][place] = picture.labels[row] + 1
            arrays["valid"][place] = True
            arrays["crowd"][place] = crowd[row]
            if picture.masks is not None and not crowd[row]:
                region = mask_region(box.astype(np.float64), side)
                cells = mask_cells(picture.masks[row], placed.back(region[None])[0], side)
                arrays["masks"][place] = cells[:, ::-1] if placed.flipped else cells
                arrays["mask_boxes"][place] = region
        del arrays["image"], arrays["size"]
        return arrays


@dataclasses.dataclass(frozen=True)
class EvalPictures:
    """Examples of evaluation: pictures scaled and padded to one shape."""

    pictures: Pictures
    indices: Int[np.ndarray, " m"]
    """The pictures among those of the split."""
    shape: Shape
    """Height and width after padding, pixels."""
    objects: ObjectsConfig
    """The sizes that images are scaled to."""

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """``image``, (h, w, 3), padded to the right and below, and what is known of it.

        ``size`` is its height and width without the padding, ``original`` that before it was
        scaled, and ``place`` its place in the split.
        """
        return {
            "image": ArraySpec((*self.shape, 3), np.uint8),
            "size": SIZE,
            "original": SIZE,
            "place": ArraySpec((), np.int32, -1),
        }

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.pictures.name(int(self.indices[index]))

    def read(
        self, indices: Int[np.ndarray, " n"], draws: Sequence[Draws]
    ) -> tuple[Batch, dict[int, str]]:
        def example(index: int, own: Draws) -> dict[str, Any]:
            place = int(self.indices[index])
            image = self.pictures.picture(place, masks=False).image
            shown = shown_image(image, self.objects)
            return {
                "image": padded(shown, self.shape),
                "size": shown.shape[:2],
                "original": image.shape[:2],
                "place": place,
            }

        return read_each(self.arrays, example, indices, draws)


def shown_image(
    image: UInt8[np.ndarray, "h w 3"], objects: ObjectsConfig
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """An image at the size at which objects are searched in it."""
    scaled = evaluated_size(image.shape[:2], objects)
    return scaled_image(image, scaled, (0, 0), scaled)


def evaluated_size(size: tuple[int, ...], objects: ObjectsConfig) -> Shape:
    """Height and width that an image has in evaluation, and at most in training.

    Raises:
        UsageError: A side is longer than any network can be shown.
    """
    height, width = fitted_size(size, objects.short[-1] if objects.short else None, objects.long)
    if max(height, width) > MOST_SIDE:
        raise UsageError(
            f"an image of {int(size[0]):,}x{int(size[1]):,} pixels would be shown with "
            f"{height:,}x{width:,}, more than {MOST_SIDE:,} along a side: limit the longer side, "
            "--data.objects.long, or leave the image out."
        )
    return height, width


def rounded_up(shape: tuple[int, ...]) -> Shape:
    """Height and width of a batch of images that are at most so large."""
    height, width = (-(-int(side) // MULTIPLE) * MULTIPLE for side in shape)
    return height, width


def padded(image: UInt8[np.ndarray, "h w 3"], shape: Shape) -> UInt8[np.ndarray, "h2 w2 3"]:
    """An image with black to the right and below."""
    height, width = image.shape[:2]
    if (height, width) == shape:
        return image
    whole = np.zeros((*shape, 3), np.uint8)
    whole[:height, :width] = image
    return whole


def evaluation_pictures(
    pictures: Pictures, objects: ObjectsConfig, shapes: int
) -> tuple[EvalPictures, ...]:
    """Divides a split into groups of one padded shape each; every picture is in one of them.

    Args:
        pictures: The split.
        objects: The sizes that images are scaled to.
        shapes: The most groups.
    """
    sizes = _each(pictures.sizes, lambda size: rounded_up(evaluated_size(size, objects)))
    return tuple(
        EvalPictures(pictures, indices, shape, objects)
        for shape, indices in size_groups(sizes, shapes)
    )


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Training pictures that are padded to one shape."""

    shape: Shape
    """Height and width, pixels."""
    indices: Int[np.ndarray, " m"]
    """The pictures among those of the split."""


def buckets(
    sizes: Int[np.ndarray, "n 2"], objects: ObjectsConfig, crop: CropConfig, batch_size: int
) -> tuple[Bucket, ...]:
    """Divides training pictures into those of landscape, squares too, and of portrait format.

    If a format has fewer pictures than a batch, both are padded to one shape or pictures are
    cropped, all are in one bucket.

    Args:
        sizes: Height and width of each picture, pixels.
        objects: The sizes that images are scaled to.
        crop: The crop, if it has a size.
        batch_size: Images of a step.

    Raises:
        UsageError: The pictures have several sizes, and are neither scaled nor cropped.
    """
    sizes = np.asarray(sizes)
    everything = np.arange(len(sizes))
    if crop.shape is not None:
        return (Bucket(rounded_up(crop.shape), everything),)
    if not objects.short and len(found := np.unique(sizes, axis=0)) > 1:
        (height, width), (other, wide) = found[0].tolist(), found[-1].tolist()
        raise UsageError(
            f"the training images have {len(found):,} sizes, such as {height}x{width} and "
            f"{other}x{wide} pixels: give the shorter side that they are scaled to, "
            "--data.objects.short, and --data.objects.long."
        )
    scaled = _each(sizes, lambda size: evaluated_size(size, objects))
    portrait = sizes[:, 0] > sizes[:, 1]
    groups = [np.flatnonzero(~portrait), np.flatnonzero(portrait)]
    groups = [group for group in groups if len(group)]
    shapes = {rounded_up(scaled[group].max(0)) for group in groups}
    if len(shapes) == 1 or min(map(len, groups)) < batch_size:
        groups = [everything]
    return tuple(Bucket(rounded_up(scaled[group].max(0)), group) for group in groups)


def _each(sizes: Int[np.ndarray, "n 2"], function: Any) -> Int[np.ndarray, "n 2"]:
    """A function of sizes, computed once for each size that there is."""
    distinct, own = np.unique(np.asarray(sizes), axis=0, return_inverse=True)
    return np.array([function(size) for size in distinct], np.int64)[own.reshape(-1)]
