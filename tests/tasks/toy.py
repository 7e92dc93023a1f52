"""A task of another package, in which nothing is a class: the depth of each pixel."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from senet_jax.data.datasets import Dataset
from senet_jax.data.examples import ArraySpec, read_each
from senet_jax.tasks.base import Measured, Rows, Task
from senet_jax.tasks.metrics import Metric


class Scenes:
    """Noise, the deeper the darker; pixels without a depth have -1."""

    image_shape = None

    def __init__(self, first, count, side=8):
        self.first, self.count, self.side = first, count, side

    @property
    def arrays(self):
        s = self.side
        return {"image": ArraySpec((s, s, 3), np.uint8), "depth": ArraySpec((s, s), np.float32, -1)}

    def __len__(self):
        return self.count

    def name(self, index):
        return f"scene {index}"

    def read(self, indices, draws):
        return read_each(self.arrays, self.scene, indices, draws)

    def scene(self, index, draws):
        rng = np.random.default_rng(self.first + index)
        image = rng.integers(0, 256, (self.side, self.side, 3), np.uint8)
        known = rng.random((self.side, self.side)) > rng.uniform(0, 0.6)
        return {"image": image, "depth": np.where(known, 1 - image.mean(-1) / 255, -1)}


class Network(nn.Module):
    """Two convolutions."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.relu(nn.Conv(4, (3, 3))(images))
        return nn.Conv(1, (1, 1), name="head")(x)[..., 0]


class Depth(Task):
    """The depth of each pixel; batches have 6x6 pixels at first, and then 8x8."""

    name = "depth"
    metrics = (Metric("median", "median error", higher_is_better=False, unit="m"),)
    watched = "median"

    @classmethod
    def open(cls, config):
        train, val = Scenes(0, 64), Scenes(64, 27)
        return Dataset("scenes", train, val, ["depth"], (0.5,) * 3, (0.3,) * 3, size=8)

    of = classmethod(lambda cls, config, dataset: cls())

    def examples(self, dataset, split):
        return (Scenes(0, 64, 6), Scenes(0, 64)) if split == "train" else (Scenes(64, 27),)

    def build(self, dataset):
        return Network()

    def prepare(self, batch, keys, normalization):
        flipped = jax.random.bernoulli(keys.augment)
        return {k: jnp.where(flipped, x[:, :, ::-1], x) for k, x in batch.items()}, None

    def normalizer(self, batch):
        return jnp.sum(batch["depth"] >= 0)

    def loss(self, outputs, batch, shared, normalizer):
        return errors(outputs, batch, 0).sum() / normalizer, {}

    def measure(self, outputs, batch):
        return Measured({}, {"error": errors(outputs, batch, -1)})

    def accumulator(self):
        return Rows(lambda rows: {"median": float(np.median(rows["error"][rows["error"] >= 0]))})


def errors(outputs, batch, unknown):
    return jnp.where(batch["depth"] >= 0, jnp.abs(outputs - batch["depth"]), unknown)
