"""Random crop, flip and Cutout of small images, on the host, on whole batches of uint8.

On the host because that is measured to be faster (``experiments/benchmarks/augmentation.py``) and
leaves the device its work.
"""

import dataclasses

import numpy as np
from jaxtyping import UInt8

from senet_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How training images are changed.

    Raises:
        UsageError: A negative size.
    """

    pad: int = 0
    """Crop at random out of the image padded by this many pixels (CIFAR: 4; ResNet, section
    4.2)."""
    flip: bool = False
    """Mirror half of the images."""
    cutout: int = 0
    """Side of a square at a random place that is set to the mean (Cutout, arXiv 1708.04552;
    CIFAR-10: 16, CIFAR-100: 8). It may hang over the edge."""

    def __post_init__(self) -> None:
        for field in ("pad", "cutout"):
            if getattr(self, field) < 0:
                raise UsageError(f"{field} must be at least 0, not {getattr(self, field)}.")


def augment(
    images: UInt8[np.ndarray, "b h w c"],
    config: AugmentConfig,
    fill: UInt8[np.ndarray, " c"],
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "b h w c"]:
    """Returns a changed copy of a batch.

    Args:
        images: Images, 0 to 255.
        config: What is done.
        fill: Colour of the padding and of the cut-out square: the mean of the data set, which is
            zero after normalisation, as in the papers.
        rng: Source of the random numbers.
    """
    out = _crop(images, config.pad, fill, rng) if config.pad else images.copy()
    batch, height, width, channels = images.shape
    if config.flip:
        mirrored = rng.random(batch) < 0.5
        flipped = out[mirrored, :, ::-1]
        # Channel by channel, because NumPy copies pixels of three bytes slowly.
        for channel in range(channels):
            out[mirrored, ..., channel] = flipped[..., channel]
    if config.cutout:
        side = config.cutout
        centres = rng.integers(0, (height, width), (batch, 2)) - side // 2
        for row, (y, x) in enumerate(centres.tolist()):
            out[row, max(y, 0) : y + side, max(x, 0) : x + side] = fill
    return out


def _crop(
    images: UInt8[np.ndarray, "b h w c"],
    pad: int,
    fill: UInt8[np.ndarray, " c"],
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "b h w c"]:
    batch, height, width, channels = images.shape
    # A row of pixels as a row of bytes, so that each copy is one long run.
    padded = np.empty((batch, height + 2 * pad, (width + 2 * pad) * channels), np.uint8)
    padded[...] = np.tile(fill, width + 2 * pad)
    rows, columns = slice(pad, pad + height), slice(pad * channels, (pad + width) * channels)
    padded[:, rows, columns] = images.reshape(batch, height, width * channels)
    windows = np.lib.stride_tricks.sliding_window_view(
        padded, (height, width * channels), axis=(1, 2)
    )
    top, left = rng.integers(0, 2 * pad + 1, (2, batch))
    return windows[np.arange(batch), top, left * channels].reshape(images.shape)
