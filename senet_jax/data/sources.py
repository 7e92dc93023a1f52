"""Where images come from: memory, or a folder of files."""

import dataclasses
import logging
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from senet_jax.errors import UsageError

LOGGER = logging.getLogger(__name__)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".tif", ".tiff")


class ImageSource(Protocol):
    """A split of a data set with random access."""

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        """Class of every image."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what ``read`` gives."""

    def read(
        self, indices: Int[np.ndarray, " b"]
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Bool[np.ndarray, " b"]]:
        """Reads images.

        Returns:
            The images, 0 to 255, and which of them could be read; the others are zeros.
        """


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Images that lie in memory."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """What an image is called: its place in the split."""
        return str(index)

    def read(
        self, indices: Int[np.ndarray, " b"]
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Bool[np.ndarray, " b"]]:
        return self.images[indices], np.ones(len(indices), bool)


class FolderSource:
    """Images in ``folder/<class>/<file>``, read when asked for, as RGB squares.

    Each image is the square at its centre, scaled to ``size``. A file that is no image is named in
    the log once.

    Args:
        folder: A folder of one split, with a folder a class.
        size: Side of the images, pixels.
        classes: The names of the classes, in the order of their labels.

    Raises:
        UsageError: The folder has no images, or a class of its own.
    """

    def __init__(self, folder: Path, size: int, classes: list[str]) -> None:
        unknown = sorted(set(class_names(folder)) - set(classes))
        if unknown:
            raise UsageError(f"{folder} has classes that the training split lacks: {unknown}.")
        self.files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            files = [
                file
                for file in sorted((folder / name).glob("*"))
                if file.suffix.lower() in IMAGE_SUFFIXES
            ]
            self.files += files
            labels += [label] * len(files)
        if not self.files:
            raise UsageError(f"{folder} has no images in folders of classes.")
        self.labels = np.array(labels, np.int32)
        self.image_shape = (size, size, 3)
        self.broken: set[Path] = set()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return self.files[index].read_bytes(), int(self.labels[index])

    def name(self, index: int) -> str:
        """What an image is called: its class's folder and its file."""
        return f"{self.files[index].parent.name}/{self.files[index].name}"

    def read(
        self, indices: Int[np.ndarray, " b"]
    ) -> tuple[UInt8[np.ndarray, "b h w c"], Bool[np.ndarray, " b"]]:
        images = np.zeros((len(indices), *self.image_shape), np.uint8)
        intact = np.ones(len(indices), bool)
        for row, index in enumerate(indices):
            try:
                images[row] = self._decode(self.files[index])
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                intact[row] = False
                if self.files[index] not in self.broken:
                    self.broken.add(self.files[index])
                    LOGGER.warning(
                        "broken image %d is not used: %s (%s)",
                        len(self.broken),
                        self.files[index],
                        error,
                    )
        return images, intact

    def _decode(self, file: Path) -> UInt8[np.ndarray, "h w c"]:
        size = self.image_shape[0]
        with Image.open(file) as encoded:
            image = encoded.convert("RGB")
            width, height = image.size
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
            return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def class_names(folder: Path) -> list[str]:
    """Names of the classes of a folder: its folders, sorted.

    Raises:
        UsageError: There is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder}: a folder of images is DIR/train/<class>/<image> and "
            "DIR/val/<class>/<image>; give DIR with --data.dir."
        )
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
