"""The classes of the pixels of images, by a run of semantic segmentation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from senet_jax.inference.trained import restore_run
from senet_jax.network import Network
from senet_jax.tasks.segmentation import OUT
from senet_jax.training.distributed.mesh import make_mesh


class PixelClassifier:
    """A trained network of segmentation on one device.

    It is compiled once for each size of images.

    Args:
        path: Folder of a run, or of one of its checkpoints.
        which: As in ``restore_run``.

    Raises:
        UsageError: There is no such run or checkpoint, or it cannot be read.
    """

    def __init__(self, path: Path, which: Literal["last", "best"] = "last") -> None:
        run, self.step, variables = restore_run(path, which)
        self.classes: Sequence[str] = run.dataset.classes
        """Names of the classes."""
        self.palette: Sequence[Sequence[int]] = getattr(run.dataset, "palette", ())
        """A colour for each class, red, green and blue, 0 to 255."""
        self.exif_orientation = run.config.data.exif_orientation
        """The run turned images by their EXIF."""
        network = Network(
            run.model,
            run.network.normalization,
            make_mesh(1, devices=jax.devices()[:1]),
            run.config.conv_lowering,
        )

        def classes_of(variables: Any, images: UInt8[Array, "1 h w 3"]) -> Int[Array, "h w"]:
            logits: Float[Array, "1 h w c"] = network.apply(variables, images)[OUT]
            return jnp.argmax(logits[0], axis=-1)

        self._variables = jax.device_get(variables)
        self._classes_of = network.jit(classes_of)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
        """The class of each pixel of an image; of classes with equal logits the first.

        Raises:
            UsageError: The image is smaller than the network takes.
        """
        return np.asarray(self._classes_of(self._variables, image[None]))
