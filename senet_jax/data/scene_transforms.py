"""Training scenes: image and label scaled, cropped and mirrored together, and the image recoloured.

The arithmetic is that of the ResNeSt authors and of torchvision's reference on Pillow images: the
image is scaled bilinearly with antialiasing, the label takes the nearest pixel, and what a scene
lacks to fill its crop is padded to the right and below.
"""

import dataclasses

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from senet_jax.data.augment.host import change_image
from senet_jax.data.config import AugmentConfig, CropConfig
from senet_jax.data.label_files import Labels
from senet_jax.data.scenes import Color, Scene, padded_scene


@dataclasses.dataclass(frozen=True)
class SceneTransform:
    """A random scale, a random crop, mirrored at random, and changes of colour."""

    size: tuple[int, int]
    """Height and width of the crops, pixels."""
    crop: CropConfig
    """Range from which the scale is drawn."""
    augment: AugmentConfig
    """Mirroring and changes of colour; the label follows no other change."""
    fill: Color
    """Colour of the padding."""
    ignored: int
    """Label of the padding."""

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """Changes a scene.

        Args:
            scene: The scene; it is not written to.
            rng: Source of the random numbers; with the scene it alone determines the result.
        """
        scaled = draw_size(scene.label.shape, self.crop, rng)
        cut = scaled_part(scene, scaled, *draw_corner(scaled, self.size, rng))
        if self.augment.flip and rng.random() < 0.5:
            cut = Scene(
                np.ascontiguousarray(cut.image[:, ::-1]), np.ascontiguousarray(cut.label[:, ::-1])
            )
        cut = Scene(change_image(cut.image, rng, self.augment), cut.label)
        return padded_scene(cut, self.size, self.fill, self.ignored)


def draw_size(size: tuple[int, ...], crop: CropConfig, rng: np.random.Generator) -> tuple[int, int]:
    """Draws the height and width that an image of a size is scaled to."""
    height, width = size
    by_long = crop.side == "long"
    own = max(size) if by_long else min(size)
    base = crop.base or own
    least, greatest = (int(base * scale) for scale in crop.scale)
    side = max(1, int(rng.integers(least, greatest, endpoint=True)))
    # The authors round the other side, torchvision cuts it off.
    if by_long:
        return tuple(max(1, (2 * each * side + own) // (2 * own)) for each in (height, width))  # type: ignore[return-value]
    return tuple(max(1, each * side // own) for each in (height, width))  # type: ignore[return-value]


def draw_corner(
    scaled: tuple[int, int], wanted: tuple[int, int], rng: np.random.Generator
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Draws a crop of a scaled image.

    Args:
        scaled: Height and width of the scaled image.
        wanted: Height and width of the crop; what the image lacks is padded at the end.
        rng: Source of the random numbers.

    Returns:
        First row and column, and height and width of the part of the image.
    """
    # An image that is too small begins at 0.
    (top, left) = (
        int(rng.integers(length - side + 1)) if length > side else 0
        for length, side in zip(scaled, wanted, strict=True)
    )
    return (top, left), (min(scaled[0], wanted[0]), min(scaled[1], wanted[1]))


def scaled_part(
    scene: Scene, scaled: tuple[int, int], corner: tuple[int, int], part: tuple[int, int]
) -> Scene:
    """A part of a scaled scene, of which only this part is computed.

    Args:
        scene: The scene.
        scaled: Height and width that the whole scene is scaled to.
        corner: The first row and column of the part.
        part: Height and width of the part, which lies inside.
    """
    size = scene.label.shape
    (top, left), (down, across) = corner, part
    if scaled == size:
        window = slice(top, top + down), slice(left, left + across)
        return Scene(scene.image[window], scene.label[window])
    image = scaled_image(scene.image, scaled, corner, part)
    rows = _nearest(size[0], scaled[0], top, down)
    columns = _nearest(size[1], scaled[1], left, across)
    return Scene(image, scene.label[rows[:, None], columns])


def scaled_image(
    image: UInt8[np.ndarray, "h w 3"],
    scaled: tuple[int, int],
    corner: tuple[int, int],
    part: tuple[int, int],
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A part of a scaled image; arguments as ``scaled_part``."""
    size = image.shape[:2]
    (top, left), (down, across) = corner, part
    if scaled == size:
        return image[top : top + down, left : left + across]
    per_row, per_column = size[0] / scaled[0], size[1] / scaled[1]
    box = (
        left * per_column,
        top * per_row,
        min((left + across) * per_column, size[1]),
        min((top + down) * per_row, size[0]),
    )
    resized = Image.fromarray(image).resize((across, down), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)


def scale_label(label: Labels, size: tuple[int, int]) -> Labels:
    """A label at another size: each pixel takes the one whose centre is nearest to its own."""
    rows, columns = (
        _nearest(own, other, 0, other) for own, other in zip(label.shape, size, strict=True)
    )
    return label[rows[:, None], columns]


def _nearest(pixels: int, scaled: int, first: int, count: int) -> Int[np.ndarray, " {count}"]:
    """The pixel of a row for each of some pixels of the scaled row."""
    return (2 * np.arange(first, first + count) + 1) * pixels // (2 * scaled)
