"""Training pictures: image, boxes and masks scaled, cropped and mirrored together."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from senet_jax.data.augment.host import change_image
from senet_jax.data.config import AugmentConfig, CropConfig, ObjectsConfig
from senet_jax.data.pictures import Picture
from senet_jax.data.scene_transforms import draw_corner, draw_size, scaled_image

LEAST_SIDE = 1.0
"""Pixels of the shorter side of a box after scaling and cropping; smaller ones are left out."""

Shape = tuple[int, int]
"""Height and width, pixels."""


@dataclasses.dataclass(frozen=True)
class Placed:
    """The place of an image in a training picture."""

    size: Shape
    """Height and width of the image."""
    scaled: Shape
    """Height and width of the complete image after scaling."""
    corner: tuple[int, int]
    """First row and column of the part that is taken of the scaled image."""
    part: Shape
    """Height and width of that part."""
    flipped: bool = False

    @property
    def _scale(self) -> Float[np.ndarray, " 4"]:
        down, across = (new / old for new, old in zip(self.scaled, self.size, strict=True))
        return np.array([across, down, across, down])

    @property
    def _offset(self) -> Float[np.ndarray, " 4"]:
        top, left = self.corner
        return np.array([left, top, left, top], np.float64)

    def boxes(self, boxes: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, "k 4"]:
        """Boxes of the image in the picture; those that the crop cuts are cut."""
        height, width = self.part
        moved = boxes * self._scale - self._offset
        moved = np.clip(moved, 0, [width, height, width, height])
        return self._mirrored(moved)

    def back(self, boxes: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, "k 4"]:
        """Boxes of the picture in the image."""
        return (self._mirrored(boxes) + self._offset) / self._scale

    def _mirrored(self, boxes: Float[np.ndarray, "k 4"]) -> Float[np.ndarray, "k 4"]:
        if not self.flipped:
            return boxes
        x1, y1, x2, y2 = boxes.T
        return np.stack([self.part[1] - x2, y1, self.part[1] - x1, y2], axis=1)

    @property
    def cuts(self) -> bool:
        """A part of the image is taken."""
        return self.part != self.scaled


def fitted_size(size: tuple[int, ...], short: int | None, long: int | None) -> Shape:
    """Height and width of an image whose sides are scaled to a limit, as torchvision rounds them.

    Args:
        size: Height and width of the image.
        short: The shorter side after scaling; None leaves the image as it is.
        long: The longer side is at most so long; None means any length.
    """
    height, width = map(int, size)
    if short is None:
        return height, width
    least, greatest = min(height, width), max(height, width)
    scale = short / least
    if long is not None:
        scale = min(scale, long / greatest)
    # A product such as 427 * (800 / 427) may be just below the side that is meant.
    down, across = (max(1, int(side * scale + 1e-6)) for side in (height, width))
    return down, across


@dataclasses.dataclass(frozen=True)
class PictureTransform:
    """A random size, a random crop if one is asked for, and mirroring."""

    objects: ObjectsConfig
    """The sizes that images are scaled to."""
    crop: CropConfig
    """If it has a size, the scale is drawn of it, and so large a part is taken."""
    augment: AugmentConfig
    """Mirroring and changes of colour."""

    def draw(self, size: Shape, rng: np.random.Generator) -> Placed:
        """Draws how an image lies in its picture."""
        if self.crop.shape is None:
            sides = self.objects.short
            short = int(rng.integers(sides[0], sides[-1], endpoint=True)) if sides else None
            scaled = fitted_size(size, short, self.objects.long)
            corner, part = (0, 0), scaled
        else:
            scaled = draw_size(size, self.crop, rng)
            corner, part = draw_corner(scaled, self.crop.shape, rng)
        flipped = bool(self.augment.flip and rng.random() < 0.5)
        return Placed(size, scaled, corner, part, flipped)

    def __call__(self, picture: Picture, rng: np.random.Generator) -> tuple[Picture, Placed]:
        """Changes a picture.

        Args:
            picture: The picture; it is not written to.
            rng: Source of the random numbers; with the picture it alone determines the result.

        Returns:
            The new picture, with the masks of the old one, and how the image lies in it.
        """
        height, width = picture.image.shape[:2]
        placed = self.draw((height, width), rng)
        image = scaled_image(picture.image, placed.scaled, placed.corner, placed.part)
        if placed.flipped:
            image = np.ascontiguousarray(image[:, ::-1])
        image = change_image(image, rng, self.augment)
        boxes = picture.boxes
        if placed.cuts and picture.masks is not None:
            boxes = _visible(picture, placed)
        boxes = placed.boxes(boxes)
        kept = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) >= LEAST_SIDE
        masks = None if picture.masks is None else picture.masks[kept]
        return Picture(
            image, boxes[kept].astype(np.float32), picture.labels[kept], picture.crowd[kept], masks
        ), placed


def _visible(picture: Picture, placed: Placed) -> Float[np.ndarray, "k 4"]:
    """The boxes around what a crop leaves of each mask, in the image; empty where nothing is left.

    An object without a mask keeps its box.
    """
    assert picture.masks is not None
    height, width = placed.part
    window = placed.back(np.array([[0.0, 0.0, width, height]]))[0]
    left, top = np.floor(window[:2]).astype(int)
    right, bottom = np.ceil(window[2:]).astype(int)
    boxes = picture.boxes.astype(np.float64)
    for row, mask in enumerate(picture.masks):
        x1, y1, x2, y2 = boxes[row]
        whole = x1 >= window[0] and y1 >= window[1] and x2 <= window[2] and y2 <= window[3]
        if whole or not mask.any():
            continue
        part = mask[top:bottom, left:right]
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        if not len(rows):
            boxes[row] = 0
            continue
        tight = left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1
        # Within the old box: polygons end between pixels.
        boxes[row, :2] = np.maximum(boxes[row, :2], tight[:2])
        boxes[row, 2:] = np.minimum(boxes[row, 2:], tight[2:])
    return boxes


def mask_region(box: Float[np.ndarray, " 4"], side: int) -> Float[np.ndarray, " 4"]:
    """The region that the mask of an object covers: its box and one of ``side`` cells around it."""
    margin = (box[2:] - box[:2]) / (side - 2)
    return np.concatenate([box[:2] - margin, box[2:] + margin])


def mask_cells(
    mask: Bool[np.ndarray, "h w"], region: Float[np.ndarray, " 4"], side: int
) -> UInt8[np.ndarray, "side side"]:
    """A mask in a grid over a region: a cell is 1 where the object covers half of it or more.

    Args:
        mask: The pixels of the object.
        region: x1, y1, x2, y2 in pixels of the mask; it may reach beyond.
        side: Rows and columns of the grid.
    """
    x1, y1, x2, y2 = region
    rows, down = _overlaps(y1, y2, mask.shape[0], side)
    columns, across = _overlaps(x1, x2, mask.shape[1], side)
    share = down @ mask[rows, columns].astype(np.float32) @ across.T
    # Sums of shares of a pixel may be just below one half.
    return (share >= 0.5 - 1e-5).astype(np.uint8)


def mask_in_image(
    cells: UInt8[np.ndarray, "side side"], region: Float[np.ndarray, " 4"], shape: Shape
) -> Bool[np.ndarray, "h w"]:
    """The pixels of an image whose centres are in the cells of a mask, as ``mask_cells`` made it.

    Args:
        cells: The mask.
        region: x1, y1, x2, y2 in pixels of the image.
        shape: Height and width of the image.
    """
    side = len(cells)
    x1, y1, x2, y2 = map(float, region)

    def places(low: float, high: float, pixels: int) -> Int[np.ndarray, " pixels"]:
        cell = np.floor((np.arange(pixels) + 0.5 - low) * side / max(high - low, 1e-9))
        # Beyond the region a cell of no object.
        return np.where((cell >= 0) & (cell < side), cell, side).astype(int)

    bordered = np.pad(cells, (0, 1)) > 0
    return bordered[places(y1, y2, shape[0])[:, None], places(x1, x2, shape[1])]


def _overlaps(
    low: float, high: float, size: int, side: int
) -> tuple[slice, Float[np.ndarray, "side pixels"]]:
    """The pixels of an axis that a region meets, and the share of each cell that each covers."""
    first, last = max(int(np.floor(low)), 0), min(int(np.ceil(high)), size)
    edges = np.linspace(low, high, side + 1)
    pixels = np.arange(first, max(last, first))
    ends = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares = np.maximum(ends, 0) / max((high - low) / side, 1e-9)
    return slice(first, max(last, first)), shares.astype(np.float32)
