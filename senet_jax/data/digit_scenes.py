"""Digits in a scene: scikit-learn's handwritten digits on backgrounds, with exact masks and boxes.

A demonstration for semantic segmentation, detection and instance masks that needs no download. A
scene is a pure function of its split, the seed and its index; it is computed in whole numbers, so
that it is the same on every machine that decodes the two photographs of scikit-learn alike.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from senet_jax.errors import UsageError

CLASSES = ("background", *map(str, range(10)))
"""Names of the semantic classes; the digit d has the label d + 1."""

PALETTE = (
    *((64, 64, 64), (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189)),
    *((140, 86, 75), (227, 119, 194), (200, 200, 200), (188, 189, 34), (23, 190, 207)),
)
"""A colour for each of ``CLASSES``, bright ones for the digits."""

LEAST_SIDE, LONGEST_SIDE = 64, 192
"""Height and width of a scene, pixels; the longest is that of the parts of the photographs that
belong to the validation."""

MOST_DIGITS = 6
"""Digits of a scene."""
SCALES = (2, 4)
"""A digit of 8x8 pixels is enlarged by 2 to 4: to 16 to 32 pixels."""
EMPTY, TOUCHING = 0.1, 0.2
"""Share of the scenes without a digit, and of those in which digits touch."""

GAP = 2
"""Pixels that digits which do not touch keep between each other, at least."""

_INK = 8
"""From this blackness on, of 16, a pixel belongs to the digit."""
_TRIES = 40
"""Places that are tried for a digit before it is left out."""


class DigitScene(NamedTuple):
    """A scene with ``k`` digits, each as semantic segmentation and detection describe it."""

    image: UInt8[np.ndarray, "h w 3"]
    """RGB."""
    masks: Bool[np.ndarray, "k h w"]
    """The pixels of each digit; no two overlap."""
    boxes: Int[np.ndarray, "k 4"]
    """The tight box of each mask: left, top, right, bottom in pixels; right and bottom are the
    first column and row outside."""
    classes: Int[np.ndarray, " k"]
    """The digits, 0 to 9."""
    label: UInt8[np.ndarray, "h w"]
    """The semantic class of each pixel, of ``CLASSES``."""
    touching: bool
    """Two of the digits touch."""


def draw_scene(
    split: Literal["train", "val"], seed: int, index: int, side: int = LEAST_SIDE
) -> DigitScene:
    """Draws a scene.

    Args:
        split: The validation scenes have digits, and parts of the photographs, that no training
            scene has.
        seed: Seed of the set.
        index: Number of the scene.
        side: Height and width, pixels.

    Raises:
        UsageError: The side is not among ``LEAST_SIDE`` to ``LONGEST_SIDE``.
    """
    if not LEAST_SIDE <= side <= LONGEST_SIDE:
        raise UsageError(
            f"the side of the scenes must be {LEAST_SIDE} to {LONGEST_SIDE} pixels, not {side}."
        )
    digits, photographs = _digits(split), _photographs(split)
    rng = np.random.default_rng((seed, ("train", "val").index(split), index))
    image = _background(rng, side, photographs)
    kind = rng.random()
    placed = _Placed(side)
    if kind >= EMPTY:
        touching = kind < EMPTY + TOUCHING
        while not placed.complete(touching):
            placed = _place_digits(rng, digits, side, touching)
    return placed.over(image, rng)


def draw_scenes(
    split: Literal["train", "val"], seed: int, count: int, side: int = LEAST_SIDE
) -> tuple[UInt8[np.ndarray, "n h w 3"], UInt8[np.ndarray, "n h w"]]:
    """Draws the images and semantic labels of the scenes 0 to ``count`` - 1 of a split."""
    images = np.empty((count, side, side, 3), np.uint8)
    labels = np.empty((count, side, side), np.uint8)
    for index in range(count):
        scene = draw_scene(split, seed, index, side)
        images[index], labels[index] = scene.image, scene.label
    return images, labels


@dataclasses.dataclass(frozen=True)
class _Digit:
    """An enlarged digit, cut to its mask."""

    name: int
    ink: UInt8[np.ndarray, "h w"]
    """Blackness, 0 to 255."""
    mask: Bool[np.ndarray, "h w"]
    """The pixels of the digit; its first and last row and column have some."""


class _Placed:
    """Digits at their places in a scene."""

    def __init__(self, side: int) -> None:
        self._side = side
        self._digits: list[tuple[_Digit, int, int]] = []
        self._taken = np.zeros((side, side), bool)
        """The pixels of all digits."""
        self._near = np.zeros((side, side), bool)
        """The pixels of the digit, and those around them that must stay free."""
        self._touching = False

    def __len__(self) -> int:
        return len(self._digits)

    def complete(self, touching: bool) -> bool:
        """Says if there is a digit and, if that is asked for, a pair that touches."""
        return bool(self._digits) and self._touching >= touching

    def fits(self, digit: _Digit, top: int, left: int) -> bool:
        """Says if a digit at a place lies in the scene and keeps its distance from the others."""
        height, width = digit.mask.shape
        if not (0 <= top <= self._side - height and 0 <= left <= self._side - width):
            return False
        return not (self._near[top : top + height, left : left + width] & digit.mask).any()

    def add(self, digit: _Digit, top: int, left: int) -> None:
        """Puts a digit at a place."""
        height, width = digit.mask.shape
        own = np.zeros_like(self._taken)
        own[top : top + height, left : left + width] = digit.mask
        self._digits.append((digit, top, left))
        self._taken |= own
        self._near |= _grown(own, GAP)

    def add_touching(self, digit: _Digit, rng: np.random.Generator) -> bool:
        """Moves a digit beside the first one until they touch; says if there is room."""
        first, top, left = self._digits[0]
        height, width = digit.mask.shape
        for _ in range(_TRIES):
            # Along one axis the place is drawn, along the other the digit comes from outside.
            beside, after = bool(rng.integers(2)), bool(rng.integers(2))
            if beside:
                row = top + int(rng.integers(1 - height, first.mask.shape[0]))
                steps = _steps_apart(first.mask, digit.mask, row - top, after)
                place = None if steps is None else (row, left + steps)
            else:
                column = left + int(rng.integers(1 - width, first.mask.shape[1]))
                steps = _steps_apart(first.mask.T, digit.mask.T, column - left, after)
                place = None if steps is None else (top + steps, column)
            if place is None:
                continue
            row, column = place
            inside = 0 <= row <= self._side - height and 0 <= column <= self._side - width
            if inside:
                self.add(digit, row, column)
                self._touching = True
                return True
        return False

    def over(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> DigitScene:
        """Draws the digits over a background."""
        side, count = self._side, len(self._digits)
        masks = np.zeros((count, side, side), bool)
        boxes = np.zeros((count, 4), np.int32)
        label = np.zeros((side, side), np.uint8)
        for place, (digit, top, left) in enumerate(self._digits):
            height, width = digit.mask.shape
            rows, columns = slice(top, top + height), slice(left, left + width)
            masks[place, rows, columns] = digit.mask
            boxes[place] = left, top, left + width, top + height
            label[rows, columns][digit.mask] = digit.name + 1
            part = image[rows, columns]
            part[digit.mask] = _inked(part[digit.mask], digit.ink[digit.mask], rng)
        classes = np.array([digit.name for digit, _, _ in self._digits], np.int32)
        return DigitScene(image, masks, boxes, classes, label, self._touching)


def _place_digits(
    rng: np.random.Generator, digits: "_Digits", side: int, touching: bool
) -> _Placed:
    placed = _Placed(side)
    for _ in range(int(rng.integers(1 + touching, MOST_DIGITS, endpoint=True))):
        digit = digits.draw(rng)
        height, width = digit.mask.shape
        if touching and len(placed) == 1:
            placed.add_touching(digit, rng)
            continue
        for _ in range(_TRIES):
            top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
            if placed.fits(digit, top, left):
                placed.add(digit, top, left)
                break
    return placed


def _steps_apart(
    still: Bool[np.ndarray, "h w"], moved: Bool[np.ndarray, "h2 w2"], down: int, after: bool
) -> int | None:
    """The column of a mask that comes from outside until it touches another, but not over it.

    Args:
        still: The mask that stays; its first column is column 0.
        moved: The mask that comes.
        down: The row of ``still`` at which the first row of ``moved`` is.
        after: It comes from the right, otherwise from the left.

    Returns:
        The column of ``still`` at which the first column of ``moved`` is; None if no row of one
        has pixels where the other has some.
    """
    if not after:
        mirrored = _steps_apart(still[:, ::-1], moved[:, ::-1], down, True)
        return None if mirrored is None else still.shape[1] - mirrored - moved.shape[1]
    first, last = max(down, 0), min(down + len(moved), len(still))
    here, there = still[first:last], moved[first - down : last - down]
    shared = here.any(1) & there.any(1)
    if not shared.any():
        return None
    ends = still.shape[1] - here[shared, ::-1].argmax(1)
    starts = there[shared].argmax(1)
    return int((ends - starts).max())


def _grown(mask: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    """The pixels at most ``by`` rows and columns from one of a mask."""
    height, width = mask.shape
    padded = np.zeros((height + 2 * by, width + 2 * by), bool)
    padded[by : by + height, by : by + width] = mask
    down = np.zeros((height, padded.shape[1]), bool)
    for row in range(2 * by + 1):
        down |= padded[row : row + height]
    grown = np.zeros_like(mask)
    for column in range(2 * by + 1):
        grown |= down[:, column : column + width]
    return grown


def _inked(
    under: UInt8[np.ndarray, "p 3"], ink: UInt8[np.ndarray, " p"], rng: np.random.Generator
) -> UInt8[np.ndarray, "p 3"]:
    """The pixels of a digit in a colour that is dark on a bright ground and bright on a dark."""
    least, greatest = (0, 90) if under.mean() >= 128 else (165, 255)
    colour = rng.integers(least, greatest, 3, endpoint=True)
    # Half of the colour at least, so that the edge of a digit is seen.
    share = 128 + ink.astype(np.int64)[:, None] // 2
    return ((under * (256 - share) + colour * share) >> 8).astype(np.uint8)


def _background(
    rng: np.random.Generator, side: int, photographs: list[UInt8[np.ndarray, "h w 3"]]
) -> UInt8[np.ndarray, "h w 3"]:
    """A flat colour, noise or a part of a photograph, each for a third of the scenes."""
    kind = int(rng.integers(3))
    if kind == 0:
        colour = rng.integers(0, 256, 3, np.uint8)
        return np.broadcast_to(colour, (side, side, 3)).copy()
    if kind == 1:
        width = int(rng.integers(16, 97))
        least = int(rng.integers(0, 256 - width))
        return rng.integers(least, least + width, (side, side, 3), np.uint8)
    photograph = photographs[int(rng.integers(len(photographs)))]
    height, width, _ = photograph.shape
    top, left = map(int, rng.integers(0, (height - side + 1, width - side + 1)))
    return photograph[top : top + side, left : left + side].copy()


class _Digits:
    """The handwritten digits of a split."""

    def __init__(self, images: UInt8[np.ndarray, "n 8 8"], names: Int[np.ndarray, " n"]) -> None:
        self.images, self.names = images, names

    def draw(self, rng: np.random.Generator) -> _Digit:
        """Draws one of them and its size."""
        index = int(rng.integers(len(self.names)))
        least, greatest = SCALES
        size = int(rng.integers(8 * least, 8 * greatest, endpoint=True))
        ink = _enlarged(self.images[index], size)
        mask = ink >= _INK * 255 // 16
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return _Digit(int(self.names[index]), ink[part], mask[part])


def _enlarged(image: UInt8[np.ndarray, "8 8"], size: int) -> UInt8[np.ndarray, "{size} {size}"]:
    """Scales blackness of 0 to 16 bilinearly to 0 to 255, in whole numbers."""
    weights = _weights(len(image), size)
    return (weights @ image.astype(np.int64) @ weights.T * 255 // (16 << 16)).astype(np.uint8)


@functools.cache
def _weights(pixels: int, size: int) -> Int[np.ndarray, "{size} {pixels}"]:
    """The weight of each pixel of a row in each of the scaled row, of 256."""
    # The centre of the scaled pixel among the centres of the others, in 1/256 pixel.
    centres = np.clip(
        ((2 * np.arange(size) + 1) * pixels * 256 // size - 256) // 2, 0, (pixels - 1) * 256
    )
    left, share = centres // 256, centres % 256
    weights = np.zeros((size, pixels), np.int64)
    weights[np.arange(size), left] = 256 - share
    weights[np.arange(size), np.minimum(left + 1, pixels - 1)] += share
    return weights


def digit_split() -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Indices of the training and the validation digits of scikit-learn: 80/20 of each class."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    labels = load_digits().target
    train, val = train_test_split(
        np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels
    )
    return train, val


@functools.cache
def _digits(split: Literal["train", "val"]) -> _Digits:
    from sklearn.datasets import load_digits

    digits = load_digits()
    own = digit_split()[("train", "val").index(split)]
    return _Digits(digits.images[own].astype(np.uint8), digits.target[own].astype(np.int32))


@functools.cache
def _photographs(split: Literal["train", "val"]) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The parts of the photographs for a split: the validation has the columns on the right."""
    from sklearn.datasets import load_sample_images

    parts = []
    for image in load_sample_images().images:
        first = image.shape[1] - LONGEST_SIDE
        parts.append(image[:, :first] if split == "train" else image[:, first:])
    return parts
