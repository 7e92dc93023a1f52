"""A batch as the network is shown it, for people to look at."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int, UInt8

from senet_jax.data.augment.device import change_batch
from senet_jax.data.augment.keys import StepKeys
from senet_jax.data.config import AugmentConfig
from senet_jax.data.loader import Batch


@dataclasses.dataclass(frozen=True)
class ShownBatch:
    """The images of a step after all augmentation, before they are normalised."""

    images: UInt8[np.ndarray, "n h w c"]
    """0 to 255, rounded."""
    labels: Int[np.ndarray, " n"]
    share: float | None
    """Share of its own label that each image keeps, the rest being that of the image before it;
    None where nothing is mixed."""

    def titles(self, classes: Sequence[str]) -> list[str]:
        """The name of each image's class; of mixed images two lines, each with its share."""
        names = [classes[label] for label in self.labels]
        if self.share is None:
            return names
        return [
            f"{self.share:.2f} {own}\n{1 - self.share:.2f} {other}"
            for own, other in zip(names, [names[-1], *names[:-1]], strict=True)
        ]


def show_batch(
    batch: Batch, step: int, *, seed: int, mean: tuple[float, ...], augmentation: AugmentConfig
) -> ShownBatch:
    """Does to a batch what the training step does to it; arguments as ``make_train_step``.

    Args:
        batch: The whole batch of the step.
        step: Its number.
        seed: Seed of the run.
        mean: Mean of the channels, 0 to 1.
        augmentation: What the device does.
    """

    @jax.jit
    def change(images: jax.Array, keys: StepKeys) -> tuple[jax.Array, jax.Array | None]:
        return change_batch(images, keys, mean=mean, config=augmentation)

    images, share = change(batch["image"], StepKeys.of(jax.random.key(seed), step))
    return ShownBatch(
        np.rint(images).astype(np.uint8),
        batch["label"],
        None if share is None else float(share),
    )
