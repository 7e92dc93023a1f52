"""Segmentation with networks that are small enough for tests."""

import dataclasses

import flax.linen as nn

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


class Context(nn.Module):
    """Logits of a pixel's colour and of the mean colour of the image."""

    classes: int

    @nn.compact
    def __call__(self, images, train):
        mean = nn.Dense(self.classes, name="mean")(images.mean((1, 2), keepdims=True))
        return {"out": nn.Dense(self.classes, name="head")(images) + 2 * mean}


@dataclasses.dataclass(frozen=True)
class TinySegmentation(Segmentation):
    """Segmentation by ``Tiny``, whatever the name of the network."""

    @classmethod
    def network(cls, config, classes):
        return Tiny(classes)


@dataclasses.dataclass(frozen=True)
class PointSegmentation(Segmentation):
    """Segmentation in which a pixel's class depends on its own colour alone."""

    @classmethod
    def network(cls, config, classes):
        return Tiny(classes, kernel=1)


@dataclasses.dataclass(frozen=True)
class ContextSegmentation(Segmentation):
    """Segmentation in which a pixel's class depends on the mean of the image, too."""

    @classmethod
    def network(cls, config, classes):
        return Context(classes)
