"""Scenes: images with the class of each pixel, for semantic segmentation."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int, UInt8

from senet_jax.data.datasets import Dataset
from senet_jax.data.examples import ArraySpec, Batch, Draws, read_each
from senet_jax.data.label_files import Labels, ignore_label, label_type
from senet_jax.data.size_groups import size_groups
from senet_jax.errors import UsageError

Color = tuple[int, ...]
"""Red, green and blue, 0 to 255."""


class Scene(NamedTuple):
    """An image and the class of each of its pixels."""

    image: UInt8[np.ndarray, "h w 3"]
    label: Labels
    """Label map of the same height and width."""


class Survey(NamedTuple):
    """Facts of all scenes of a split."""

    sizes: Int[np.ndarray, "n 2"]
    """Height and width of each scene, pixels."""
    pixels: Int[np.ndarray, "n c"]
    """Pixels of each class in each scene."""


class Scenes(Protocol):
    """A split of scenes; it can be pickled."""

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels of scenes in memory; None of files, which are read later."""

    @property
    def sizes(self) -> Int[np.ndarray, "n 2"]:
        """Height and width of each scene, pixels."""

    def __len__(self) -> int:
        """Number of scenes."""

    def name(self, index: int) -> str:
        """Names a scene, for a person."""

    def taken(self, indices: Int[np.ndarray, " n"]) -> "Scenes":
        """The scenes at some places, in this order."""

    def survey(self, classes: int) -> Survey:
        """Reads the labels of all scenes and checks them.

        Args:
            classes: Number of classes.

        Raises:
            UsageError: Labels or images that no network can be trained on.
        """

    def scene(self, index: int) -> Scene:
        """Reads a scene.

        Raises:
            Unreadable: This scene cannot be read.
            UsageError: None can, because the data set is gone, or a label is no class.
        """


@dataclasses.dataclass(frozen=True)
class SceneDataset(Dataset):
    """A data set of scenes, opened.

    In the labels of its scenes the classes count from 0, whatever the files store.
    """

    # Another task's images have one class each, and scenes are no ``Source`` of those.
    train: Scenes  # type: ignore[assignment]
    val: Scenes  # type: ignore[assignment]
    frame: tuple[int, int] = (0, 0)
    """Height and width of the crops of scenes in files that a network is trained on, pixels."""
    palette: tuple[Color, ...] = ()
    """A colour for each class."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what a network is trained on, if it is not cropped."""
        return self.train.image_shape or (*self.frame, 3)

    @property
    def ignore_label(self) -> int:
        """The label of pixels without a class."""
        return ignore_label(len(self.classes))


@dataclasses.dataclass(frozen=True)
class ArrayScenes:
    """Scenes that lie in memory."""

    images: UInt8[np.ndarray, "n h w 3"]
    labels: Int[np.ndarray, "n h w"]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @property
    def sizes(self) -> Int[np.ndarray, "n 2"]:
        """As ``Scenes.sizes``."""
        return np.broadcast_to(np.array(self.image_shape[:2], np.int32), (len(self), 2))

    def name(self, index: int) -> str:
        """The place of a scene: it has no other name."""
        return f"scene {index}"

    def taken(self, indices: Int[np.ndarray, " n"]) -> "ArrayScenes":
        """As ``Scenes.taken``."""
        return ArrayScenes(self.images[indices], self.labels[indices])

    def survey(self, classes: int) -> Survey:
        """As ``Scenes.survey``."""
        counts = [np.bincount(label.ravel(), minlength=classes)[:classes] for label in self.labels]
        return Survey(self.sizes, np.array(counts))

    def scene(self, index: int) -> Scene:
        """As ``Scenes.scene``."""
        return Scene(self.images[index], self.labels[index])


class SceneView(Protocol):
    """Changes a scene for training; it can be pickled."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the scenes that it makes, pixels."""

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """Changes image and label together; the generator and the scene alone determine how."""


@dataclasses.dataclass(frozen=True)
class TrainScenes:
    """Training examples: the scenes of a split as a view changes them."""

    scenes: Scenes
    view: SceneView
    classes: int
    """Number of classes."""

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """``image``, (h, w, 3), and ``label``, (h, w); padding is ignored."""
        return _arrays(self.view.size, self.classes)

    def __len__(self) -> int:
        return len(self.scenes)

    def name(self, index: int) -> str:
        return self.scenes.name(index)

    def read(
        self, indices: Int[np.ndarray, " n"], draws: Sequence[Draws]
    ) -> tuple[Batch, dict[int, str]]:
        def example(index: int, own: Draws) -> dict[str, Any]:
            return self.view(self.scenes.scene(index), own.rng)._asdict()

        return read_each(self.arrays, example, indices, draws)


SIZE = ArraySpec((2,), np.int32)


@dataclasses.dataclass(frozen=True)
class EvalScenes:
    """Examples of evaluation: scenes at their own size, padded to one shape.

    The padding is to the right and below an image, and its label is ignored. What a network says
    of an image depends on it: convolutions near it see its colour where they would see zeros, and
    means over the image, as of SE and of the pyramid of DeepLabV3, have it in them. An image of the
    size of its group has none.
    """

    scenes: Scenes
    indices: Int[np.ndarray, " m"]
    """The scenes among those of the split."""
    size: tuple[int, int]
    """Height and width after padding, pixels."""
    classes: int
    """Number of classes."""
    fill: Color
    """Colour of the padding."""

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """``image``, (h, w, 3), ``label``, (h, w), and ``size``, the image's own height and width.

        The padding of a label is ignored.
        """
        return {**_arrays(self.size, self.classes), "size": SIZE}

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.scenes.name(int(self.indices[index]))

    def read(
        self, indices: Int[np.ndarray, " n"], draws: Sequence[Draws]
    ) -> tuple[Batch, dict[int, str]]:
        def example(index: int, own: Draws) -> dict[str, Any]:
            scene = self.scenes.scene(int(self.indices[index]))
            height, width = scene.label.shape
            if height > self.size[0] or width > self.size[1]:
                raise UsageError(
                    f"{self.name(index)} was not {height}x{width} pixels when the data set was "
                    "opened: start again."
                )
            padded = padded_scene(scene, self.size, self.fill, ignore_label(self.classes))
            return {**padded._asdict(), "size": (height, width)}

        return read_each(self.arrays, example, indices, draws)


def evaluation_scenes(
    scenes: Scenes, classes: int, fill: Color, shapes: int
) -> tuple[EvalScenes, ...]:
    """Divides a split into groups of one padded shape each; every scene is in one of them.

    Args:
        scenes: The split.
        classes: Number of classes.
        fill: Colour of the padding.
        shapes: The most groups. With as many as there are sizes nothing is padded.
    """
    return tuple(
        EvalScenes(scenes, indices, size, classes, fill)
        for size, indices in size_groups(scenes.sizes, shapes)
    )


def padded_scene(scene: Scene, size: tuple[int, int], fill: Color, ignored: int) -> Scene:
    """A scene with padding to the right and below.

    Args:
        scene: The scene, at most as large.
        size: Height and width of the result, pixels.
        fill: Colour of the padding.
        ignored: Label of the padding.
    """
    height, width = scene.label.shape
    if (height, width) == size:
        return scene
    image = np.empty((*size, 3), np.uint8)
    image[:] = fill
    image[:height, :width] = scene.image
    label = np.full(size, ignored, scene.label.dtype)
    label[:height, :width] = scene.label
    return Scene(image, label)


def _arrays(size: tuple[int, int], classes: int) -> dict[str, ArraySpec]:
    return {
        "image": ArraySpec((*size, 3), np.uint8),
        "label": ArraySpec(size, label_type(classes), ignore_label(classes)),
    }
