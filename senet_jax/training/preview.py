"""A batch as the network is shown it, for people to look at."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, UInt8

from senet_jax.data.augment.keys import StepKeys
from senet_jax.data.examples import Batch
from senet_jax.data.normalization import Normalization
from senet_jax.tasks.base import Arrays, Task


@dataclasses.dataclass(frozen=True)
class Preview:
    """The images of a step after all augmentation, before they are normalized."""

    images: UInt8[np.ndarray, "n h w c"]
    """0 to 255, rounded."""
    task: Task
    arrays: Arrays
    """The batch after ``Task.prepare``."""
    shared: Any
    """As ``Task.prepare`` returned it."""

    @property
    def pixel_classes(self) -> Int[np.ndarray, "n h w"] | None:
        """The class of each pixel; see ``Task.pixel_classes``."""
        return self.task.pixel_classes(self.arrays)

    def titles(self, classes: Sequence[str]) -> list[str]:
        """The title of each image; see ``Task.titles``."""
        return self.task.titles(self.arrays, self.shared, classes)


def preview_batch(
    task: Task, normalization: Normalization, batch: Batch, step: int, seed: int
) -> Preview:
    """Does to a batch what the training step does to it before it normalizes the images.

    Args:
        task: Augments the batch.
        normalization: That of the network.
        batch: The whole batch of the step.
        step: Its number.
        seed: Seed of the run.
    """

    @jax.jit
    def prepare(batch: Arrays, keys: StepKeys) -> tuple[Arrays, Any]:
        return task.prepare(batch, keys, normalization)

    arrays, shared = prepare(batch, StepKeys.of(jax.random.key(seed), step))
    images = np.rint(task.inputs(arrays, train=True)[0]).astype(np.uint8)
    return Preview(images, task, arrays, shared)
