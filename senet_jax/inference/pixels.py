"""The classes of the pixels of images, by a network of semantic segmentation."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from senet_jax.inference.segmenter import TrainedSegmenter
from senet_jax.inference.sliding import Sliding, SlidingScores
from senet_jax.network import Network
from senet_jax.tasks.segmentation import OUT
from senet_jax.training.distributed.mesh import make_mesh

MOST_SIZES = 16
"""Sizes of images whose programs are kept; with the next one all are dropped."""


class PixelClassifier:
    """A trained network of segmentation on one device.

    Without sliding crops it is compiled for each size of images; with them once.

    Args:
        trained: The network.
        sliding: The scales and crops. None shows it each image as it is.
    """

    def __init__(self, trained: TrainedSegmenter, sliding: Sliding | None = None) -> None:
        self.classes: Sequence[str] = trained.dataset.classes
        """Names of the classes."""
        self.palette: Sequence[Sequence[int]] = trained.dataset.palette
        """A colour for each class, red, green and blue, 0 to 255."""
        run = trained.run
        network = Network(
            run.model,
            run.network.normalization,
            make_mesh(1, devices=jax.devices()[:1]),
            run.config.conv_lowering,
        )
        self._variables = jax.device_get(trained.variables)

        def classes_of(variables: Any, images: UInt8[Array, "1 h w 3"]) -> Int[Array, "h w"]:
            logits: Float[Array, "1 h w c"] = network.apply(variables, images)[OUT]
            return jnp.argmax(logits[0], axis=-1)

        self._classes_of: Any = network.jit(classes_of)
        self._scores = None if sliding is None else SlidingScores(network, self._variables, sliding)
        self._sizes: set[tuple[int, ...]] = set()

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
        """The class of each pixel of an image; of classes with equal scores the first.

        Raises:
            UsageError: The image, or the crop, is smaller than the network takes.
        """
        if image.shape not in self._sizes and len(self._sizes) == MOST_SIZES:
            self.forget()
        self._sizes.add(image.shape)
        if self._scores is not None:
            size = np.array([image.shape[:2]])
            return np.asarray(jnp.argmax(self._scores(image[None], size, size)[0], axis=-1))
        return np.asarray(self._classes_of(self._variables, image[None]))

    def forget(self) -> None:
        """Drops the programs that belong to the sizes of images so far."""
        self._sizes.clear()
        if self._scores is not None:
            self._scores.forget()
        self._classes_of.clear_cache()
