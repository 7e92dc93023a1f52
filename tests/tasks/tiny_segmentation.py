"""Segmentation with networks that are small enough for tests."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from senet_jax.tasks.segmentation import Segmentation


class Tiny(nn.Module):
    """A head and an auxiliary head on a convolution; ``kernel`` 1 sees no neighbours."""

    classes: int
    kernel: int = 3

    @nn.compact
    def __call__(self, images, train):
        x = nn.relu(nn.Conv(12, (self.kernel, self.kernel), name="stem")(images))
        return {
            "out": nn.Conv(self.classes, (1, 1), name="head")(x),
            "aux": nn.Conv(self.classes, (1, 1), name="aux_head")(x),
        }


@dataclasses.dataclass(frozen=True)
class TinySegmentation(Segmentation):
    """Segmentation by ``Tiny``, whatever the name of the network."""

    def build(self, dataset):
        return Tiny(len(dataset.classes))


@dataclasses.dataclass(frozen=True)
class PointSegmentation(Segmentation):
    """Segmentation in which a pixel's class depends on its own colour alone."""

    def build(self, dataset):
        return Tiny(len(dataset.classes), kernel=1)


class Fixed(nn.Module):
    """Logits that do not depend on the image."""

    logits: object

    @nn.compact
    def __call__(self, images, train):
        return {"out": jnp.asarray(self.logits)}
