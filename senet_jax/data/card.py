"""The facts of a data set that a run must know when the data set is not there."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import dacite
import numpy as np
from jaxtyping import Int

from senet_jax.data.datasets import IMAGENET_MEAN, IMAGENET_STD, STATISTICS, Dataset
from senet_jax.data.examples import Batch, Draws
from senet_jax.data.label_files import MOST_CLASSES, ignore_label
from senet_jax.data.pictures import PictureDataset, absent_pictures
from senet_jax.data.scenes import Scene, SceneDataset, Survey
from senet_jax.data.sources import ArraySource, EncodedSource
from senet_jax.errors import UsageError
from senet_jax.text import printable

LEAST_STD = 1e-6
"""The deviation of 64 million pixels of which one differs by 1 of 255 is five times as large."""


@dataclasses.dataclass(frozen=True)
class Card:
    """The facts of a data set; a run keeps them beside its config."""

    name: str
    classes: list[str]
    """Names of the classes, in the order of their labels."""
    image_shape: tuple[int, int, int]
    """Height, width and channels."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: int
    """Training images."""
    val: int
    """Validation images."""
    photographs: bool
    """Images have sizes of their own and are scaled and cropped in evaluation."""
    ignore_label: int | None = None
    """The label of pixels without a class; scenes alone have it."""
    palette: tuple[tuple[int, ...], ...] = ()
    """A colour for each class, 0 to 255; scenes alone have it."""
    category_ids: tuple[int, ...] = ()
    """The number of each class in the annotations; pictures alone have it."""
    masks: bool = False
    """The objects of pictures have masks."""

    @classmethod
    def of(cls, dataset: Dataset) -> "Card":
        """The facts of a data set that is there."""
        return cls(
            name=dataset.name,
            classes=list(dataset.classes),
            image_shape=dataset.image_shape,
            mean=dataset.mean,
            std=dataset.std,
            train=len(dataset.train),
            val=len(dataset.val),
            photographs=dataset.photographs,
            **_own_facts(dataset),
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Card":
        """The card that ``dataclasses.asdict`` and JSON made these values of.

        Raises:
            UsageError: A field that is unknown, missing, of the wrong type or out of range.
        """
        if not isinstance(values, dict):
            raise UsageError("these are not the facts of a data set: they are no JSON object.")
        try:
            card = dacite.from_dict(cls, values, dacite.Config(strict=True, cast=[tuple]))
        # TypeError: a field of which no tuple can be made.
        except (dacite.DaciteError, TypeError) as error:
            raise UsageError(f"these are not the facts of a data set: {error}.") from error
        card.validate()
        return card

    def validate(self) -> None:
        """Checks what a type cannot say.

        Raises:
            UsageError: A field whose value no data set has.
        """
        channels = self.image_shape[2]
        for holds, field, allowed in (
            (1 <= self.train <= MOST_IMAGES, "train", _COUNT),
            (1 <= self.val <= MOST_IMAGES, "val", _COUNT),
            (len(self.classes) >= 1, "classes", "one name or more"),
            (
                all(1 <= side <= LONGEST_SIDE for side in self.image_shape[:2])
                and 1 <= channels <= MOST_CHANNELS,
                "image_shape",
                f"height and width of 1 to {LONGEST_SIDE} and 1 to {MOST_CHANNELS} channels",
            ),
            (
                len(self.mean) == channels and all(0 <= x <= 1 for x in self.mean),
                "mean",
                "a number of 0 to 1 for each channel",
            ),
            (
                len(self.std) == channels and all(LEAST_STD <= x <= 1 for x in self.std),
                "std",
                f"a number of {LEAST_STD:g} to 1 for each channel",
            ),
            (
                self.ignore_label in (None, ignore_label(min(len(self.classes), MOST_CLASSES))),
                "ignore_label",
                "255 for up to 255 classes, 65535 for more, or null",
            ),
            (
                len(self.palette) == (0 if self.ignore_label is None else len(self.classes))
                and all(
                    len(color) == 3 and all(0 <= level <= 255 for level in color)
                    for color in self.palette
                ),
                "palette",
                "a colour of three levels, 0 to 255, for each class of scenes",
            ),
            (
                len(self.category_ids) in (0, len(self.classes))
                and len(set(self.category_ids)) == len(self.category_ids),
                "category_ids",
                "a number of its own for each class, or nothing",
            ),
        ):
            if not holds:
                value = getattr(self, field)
                raise UsageError(
                    f"these are not the facts of a data set: {field} must be {allowed}, not "
                    f"{value}."
                )
        seen: set[str] = set()
        for name in self.classes:
            if name in seen:
                raise UsageError(
                    "these are not the facts of a data set: classes must differ, and "
                    f"'{printable(name)}' stands twice."
                )
            seen.add(name)

    def stand_in(self) -> Dataset:
        """A data set of these facts, whose images cannot be read."""
        if self.ignore_label is not None:
            return self._absent_scenes()
        if self.category_ids:
            return self._absent_pictures()
        kind = _AbsentFiles if self.photographs else _AbsentArrays
        return Dataset(
            name=self.name,
            train=kind.of(self.train, self.image_shape),
            val=kind.of(self.val, self.image_shape),
            classes=self.classes,
            mean=self.mean,
            std=self.std,
            size=self.image_shape[0],
        )

    def _absent_scenes(self) -> SceneDataset:
        shape = None if self.photographs else self.image_shape
        height, width, _ = self.image_shape
        return SceneDataset(
            name=self.name,
            train=_AbsentScenes(self.train, shape, (height, width)),
            val=_AbsentScenes(self.val, shape, (height, width)),
            classes=self.classes,
            mean=self.mean,
            std=self.std,
            frame=(height, width),
            palette=self.palette,
        )

    def _absent_pictures(self) -> PictureDataset:
        height, width, _ = self.image_shape
        shape = height, width
        train, val = (
            absent_pictures(count, shape, not self.photographs, self.category_ids)
            for count in (self.train, self.val)
        )
        return PictureDataset(
            name=self.name,
            train=train,
            val=val,
            classes=self.classes,
            mean=self.mean,
            std=self.std,
            category_ids=self.category_ids,
            masks=self.masks,
            frame=shape,
        )


def _own_facts(dataset: Dataset) -> dict[str, Any]:
    """The facts that scenes or pictures alone have."""
    if isinstance(dataset, PictureDataset):
        return {"category_ids": dataset.category_ids, "masks": dataset.masks}
    if not isinstance(dataset, SceneDataset):
        return {}
    return {"ignore_label": dataset.ignore_label, "palette": dataset.palette}


MOST_IMAGES, LONGEST_SIDE, MOST_CHANNELS = 2**31 - 1, 2**15, 4
"""Limits of what the facts of a data set can say."""

_COUNT = f"a whole number from 1 to {MOST_IMAGES}"

_KNOWN: dict[str, tuple[int, int, int, int | None]] = {
    "cifar10": (10, 50_000, 10_000, 32),
    "cifar100": (100, 50_000, 10_000, 32),
    "imagenet2012": (1000, 1_281_167, 50_000, None),
    "imagenette": (10, 9_469, 3_925, None),
    "places365_small": (365, 1_803_460, 36_500, None),
}
"""Classes, training and validation images, and the side where all images have the same."""


def known_card(name: str, size: int) -> Card | None:
    """The facts of a published data set, whose classes have no names; None of another.

    Args:
        name: A name of ``datasets.DATASETS``.
        size: Side that photographs are scaled to, pixels; sets of small images have their own.
    """
    if name not in _KNOWN:
        return None
    classes, train, val, side = _KNOWN[name]
    mean, std = STATISTICS.get(name, (IMAGENET_MEAN, IMAGENET_STD))
    return Card(
        name=name,
        classes=[f"class {index}" for index in range(classes)],
        image_shape=(side or size, side or size, 3),
        mean=mean,
        std=std,
        train=train,
        val=val,
        photographs=side is None,
    )


_ABSENT = "the images of the data set are not there."


class _AbsentArrays(ArraySource):
    """A split in memory of which only the size is known."""

    @classmethod
    def of(cls, images: int, image_shape: tuple[int, int, int]) -> Self:
        """A split of this many images."""
        nothing = np.broadcast_to(np.uint8(0), (images, *image_shape))
        return cls(nothing, np.broadcast_to(np.int32(-1), images))

    def read(
        self, indices: Int[np.ndarray, " n"], draws: Sequence[Draws]
    ) -> tuple[Batch, dict[int, str]]:
        raise UsageError(_ABSENT)


@dataclasses.dataclass(frozen=True)
class _AbsentFiles(EncodedSource):
    """A split of photographs of which only the number is known."""

    images: int

    @classmethod
    def of(cls, images: int, image_shape: tuple[int, int, int]) -> Self:
        """A split of this many images."""
        return cls(images)

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        """No labels."""
        return np.broadcast_to(np.int32(-1), self.images)

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        raise UsageError(_ABSENT)

    def name(self, index: int) -> str:
        return f"image {index}"


@dataclasses.dataclass(frozen=True)
class _AbsentScenes:
    """A split of scenes of which only the number is known."""

    images: int
    image_shape: tuple[int, int, int] | None
    size: tuple[int, int]
    """Height and width that all are taken to have, pixels."""

    @property
    def sizes(self) -> Int[np.ndarray, "n 2"]:
        """As ``Scenes.sizes``."""
        return np.broadcast_to(np.array(self.size, np.int32), (self.images, 2))

    def __len__(self) -> int:
        return self.images

    def name(self, index: int) -> str:
        return f"image {index}"

    def taken(self, indices: Int[np.ndarray, " n"]) -> "_AbsentScenes":
        """As ``Scenes.taken``."""
        return dataclasses.replace(self, images=len(indices))

    def survey(self, classes: int) -> Survey:
        raise UsageError(_ABSENT)

    def scene(self, index: int) -> Scene:
        raise UsageError(_ABSENT)
