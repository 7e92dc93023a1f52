"""The views of a photograph in evaluation: the centre, or ten crops, at a size.

The arithmetic is torchvision's ``Resize`` and ``CenterCrop`` or ``TenCrop`` on Pillow images,
rounding included, so that published accuracies can be compared to the image.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from senet_jax.data.config import Interpolation
from senet_jax.data.examples import ArraySpec, Batch, Draws, read_each
from senet_jax.data.sources import Source
from senet_jax.errors import UsageError

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
"""Pillow's filters, which widen where an image is reduced (antialiasing)."""

LONGEST = 64
"""An image is cut to its middle if it is more than so many times as long as wide: scaled, it would
fill the memory."""

ViewKind = Literal["center", "ten-crop"]


@dataclasses.dataclass(frozen=True)
class Views:
    """The views of one size that an image is evaluated by."""

    size: int
    """Side of a view, pixels."""
    kind: ViewKind = "center"
    """The centre, or ten crops."""
    crop_pct: float = 0.875
    """As in ``center_view``."""
    interpolation: Interpolation = "bilinear"
    """The interpolation by which the image is scaled."""
    exif_orientation: bool = False
    """Turn encoded images as their EXIF says, before anything else."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"the side of a view must be at least 1 pixel, not {self.size}.")
        if not 0 < self.crop_pct <= 1:
            raise UsageError(
                f"the crop must be more than 0 and at most 1 of the scaled shorter side, not "
                f"{self.crop_pct:g}."
            )

    def __len__(self) -> int:
        return 1 if self.kind == "center" else 10

    def __call__(self, image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "v s s c"]:
        """Cuts the views out of a decoded image."""
        if self.kind == "center":
            return center_view(image, self.size, self.crop_pct, self.interpolation)[None]
        return ten_crop(image, self.size, self.crop_pct, self.interpolation)


def center_view(
    image: UInt8[np.ndarray, "h w c"], size: int, crop_pct: float, interpolation: Interpolation
) -> UInt8[np.ndarray, "s s c"]:
    """Scales the shorter side and cuts out the square at the centre.

    Args:
        image: A decoded image of 1 or 3 channels, at least one pixel.
        size: Side of the square, pixels.
        crop_pct: Side of the square over the scaled shorter side, in (0, 1]; the shorter side is
            rounded to whole pixels. 0.875 is 224 out of 256.
        interpolation: The filter by which the image is scaled.
    """
    scaled = _scaled(image, round(size / crop_pct), interpolation)
    return np.ascontiguousarray(_square(scaled, size, *_CENTER))


def ten_crop(
    image: UInt8[np.ndarray, "h w c"], size: int, crop_pct: float, interpolation: Interpolation
) -> UInt8[np.ndarray, "10 s s c"]:
    """Scales the shorter side and cuts out the corners and the centre, and the same of the mirror.

    AlexNet's test (section 4.1 of its paper). The order is top left, top right, bottom left, bottom
    right, centre, then these five of the mirrored image. Arguments as ``center_view``.
    """
    scaled = _scaled(image, round(size / crop_pct), interpolation)
    return np.stack(
        [_square(side, size, *place) for side in (scaled, scaled[:, ::-1]) for place in _PLACES]
    )


_CENTER = (0.5, 0.5)
_PLACES = ((0, 0), (0, 1), (1, 0), (1, 1), _CENTER)
"""The places of five squares: the share of the free rows above, and of the columns left."""


def _scaled(
    image: UInt8[np.ndarray, "h w c"], shorter: int, interpolation: Interpolation
) -> UInt8[np.ndarray, "h2 w2 c"]:
    image = _middle(image)
    height, width, channels = image.shape
    # The longer side is rounded down; in integers, as torchvision does.
    longer = shorter * max(height, width) // min(height, width)
    size = (shorter, longer) if width <= height else (longer, shorter)
    if size == (width, height):
        return image
    pillow = Image.fromarray(image[..., 0] if channels == 1 else image)
    scaled = np.asarray(pillow.resize(size, RESAMPLING[interpolation]))
    return scaled[..., None] if channels == 1 else scaled


def _middle(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h2 w2 c"]:
    height, width, _ = image.shape
    most = LONGEST * min(height, width)
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    return image[top : top + most, left : left + most]


def _square(
    image: UInt8[np.ndarray, "h w c"], size: int, down: float, right: float
) -> UInt8[np.ndarray, "s s c"]:
    height, width, _ = image.shape
    # Python's rounding, half to even: of an odd margin torchvision's centre is not always above.
    top, left = round((height - size) * down), round((width - size) * right)
    return image[top : top + size, left : left + size]


@dataclasses.dataclass(frozen=True)
class ViewedExamples:
    """The images of a split by several views of each."""

    source: Source
    views: tuple[Views, ...]
    channels: int = 3
    """1 turns encoded images to grey."""

    @property
    def arrays(self) -> Mapping[str, ArraySpec]:
        """The views of each size, (v, s, s, c), by ``view_name``, and the label."""
        sides = [(len(view), view.size, view.size, self.channels) for view in self.views]
        named = {view_name(place): ArraySpec(shape, np.uint8) for place, shape in enumerate(sides)}
        return {**named, "label": ArraySpec((), np.int32)}

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def read(
        self, indices: Int[np.ndarray, " n"], draws: Sequence[Draws]
    ) -> tuple[Batch, dict[int, str]]:
        """As ``Examples.read``; nothing is drawn."""
        turns = {view.exif_orientation for view in self.views}

        def example(index: int, own: Draws) -> dict[str, Any]:
            images, label = self.source.decoded(index, turns, self.channels)
            shown = {
                view_name(place): view(images[view.exif_orientation])
                for place, view in enumerate(self.views)
            }
            return {**shown, "label": label}

        return read_each(self.arrays, example, indices, draws)


def view_name(place: int) -> str:
    """The name of the array of a view, by its place among ``ViewedExamples.views``."""
    return f"views {place}"
