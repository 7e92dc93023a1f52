"""Training scenes: image and label scaled, cropped and mirrored together, and the image recoloured.

The arithmetic is that of the ResNeSt authors and of torchvision's reference on Pillow images: the
image is scaled bilinearly with antialiasing, the label takes the nearest pixel, and what a scene
lacks to fill its crop is padded to the right and below.
"""

import dataclasses

import numpy as np
from jaxtyping import Int
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
        scaled = self._draw_size(scene.label.shape, rng)
        corner, part = [], []
        for length, wanted in zip(scaled, self.size, strict=True):
            # The padding is at the end, so that a scene that is too small begins at 0.
            corner.append(int(rng.integers(length - wanted + 1)) if length > wanted else 0)
            part.append(min(length, wanted))
        cut = scaled_part(scene, scaled, (corner[0], corner[1]), (part[0], part[1]))
        if self.augment.flip and rng.random() < 0.5:
            cut = Scene(
                np.ascontiguousarray(cut.image[:, ::-1]), np.ascontiguousarray(cut.label[:, ::-1])
            )
        cut = Scene(change_image(cut.image, rng, self.augment), cut.label)
        return padded_scene(cut, self.size, self.fill, self.ignored)

    def _draw_size(self, size: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int]:
        """Draws the height and width that a scene is scaled to."""
        height, width = size
        by_long = self.crop.side == "long"
        own = max(size) if by_long else min(size)
        base = self.crop.base or own
        least, greatest = (int(base * scale) for scale in self.crop.scale)
        side = max(1, int(rng.integers(least, greatest, endpoint=True)))
        # The authors round the other side, torchvision cuts it off.
        if by_long:
            return tuple(max(1, (2 * each * side + own) // (2 * own)) for each in (height, width))  # type: ignore[return-value]
        return tuple(max(1, each * side // own) for each in (height, width))  # type: ignore[return-value]


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
    per_row, per_column = size[0] / scaled[0], size[1] / scaled[1]
    box = (
        left * per_column,
        top * per_row,
        min((left + across) * per_column, size[1]),
        min((top + down) * per_row, size[0]),
    )
    image = Image.fromarray(scene.image).resize((across, down), Image.Resampling.BILINEAR, box=box)
    rows = _nearest(size[0], scaled[0], top, down)
    columns = _nearest(size[1], scaled[1], left, across)
    return Scene(np.asarray(image), scene.label[rows[:, None], columns])


def scale_label(label: Labels, size: tuple[int, int]) -> Labels:
    """A label at another size: each pixel takes the one whose centre is nearest to its own."""
    rows, columns = (
        _nearest(own, other, 0, other) for own, other in zip(label.shape, size, strict=True)
    )
    return label[rows[:, None], columns]


def _nearest(pixels: int, scaled: int, first: int, count: int) -> Int[np.ndarray, " {count}"]:
    """The pixel of a row for each of some pixels of the scaled row."""
    return (2 * np.arange(first, first + count) + 1) * pixels // (2 * scaled)
