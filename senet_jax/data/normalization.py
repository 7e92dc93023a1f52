"""The normalization of pixels before a network sees them."""

import dataclasses

from senet_jax.data.datasets import IMAGENET_MEAN, IMAGENET_STD
from senet_jax.errors import UsageError, choose


@dataclasses.dataclass(frozen=True)
class Normalization:
    """(x / 255 - mean) / std by channel."""

    mean: tuple[float, ...]
    """Mean of the channels, 0 to 1, red first."""
    std: tuple[float, ...]
    """Standard deviation of the channels, 0 to 1, red first."""
    bgr: bool = False
    """Give the network blue first, as networks that came from Caffe expect."""


NORMALIZATIONS = {
    "imagenet": Normalization(IMAGENET_MEAN, IMAGENET_STD),
    # The Inceptions of TensorFlow, and torchvision's Inception-v3: -1 to 1.
    "inception": Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    # BN-Inception of Caffe: 0 to 255 less the mean colour.
    "bninception": Normalization((128 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3, bgr=True),
}
"""The normalizations of released weights; a data set has its own besides."""


def normalization(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Normalization:
    """The normalization of a name.

    Args:
        name: A key of ``NORMALIZATIONS``, or "dataset".
        mean: Mean of the data set's channels.
        std: Standard deviation of the data set's channels.

    Raises:
        UsageError: An unknown name, or one of colours for images that have none.
    """
    if name == "dataset":
        return Normalization(mean, std)
    chosen = NORMALIZATIONS[choose("normalization", name, NORMALIZATIONS)]
    if len(chosen.mean) != len(mean):
        raise UsageError(
            f"the normalization {name} is of colours, and the images have {len(mean)} channel(s): "
            "use dataset."
        )
    return chosen
