"""Small networks with attention, and images to show them."""

import numpy as np
import pytest

from senet_jax.analysis.gates.probe import Probe
from senet_jax.data.normalization import Normalization
from senet_jax.data.sources import ArraySource
from senet_jax.data.views import Views
from senet_jax.inference.ensemble import Member
from senet_jax.models.resnet import SE, ResNet
from senet_jax.training.distributed.mesh import make_mesh

IMAGES, CLASSES = 50, 4


@pytest.fixture
def network():
    """A residual network of two stages, of one and two blocks."""

    def build(**fields):
        defaults = {"blocks": (1, 2), "widths": (16, 24), "stem": "cifar", "stem_width": 16}
        defaults |= {"bottleneck": False, "attention": SE, "num_classes": CLASSES}
        return ResNet(**{**defaults, **fields})

    return build


@pytest.fixture
def images():
    """Images of which those of a class are alike; class 2 has none."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 3], IMAGES).astype(np.int32)
    kinds = rng.uniform(0, 200, (CLASSES, 8, 8, 1))
    images = kinds[labels] + rng.uniform(0, 55, (IMAGES, 8, 8, 1))
    return ArraySource(images.astype(np.uint8), labels)


@pytest.fixture
def pixels(images):
    """The images as a network takes them."""
    return np.float32((images.images / 255 - 0.4) / 0.3)


@pytest.fixture
def member(pixels, random_variables):
    """A network with random variables, as it is evaluated."""

    def build(model):
        variables = random_variables(model, pixels[:1], False)
        normalization = Normalization((0.4,), (0.3,))
        return Member("it", model, variables, normalization, (Views(8, crop_pct=1.0),), CLASSES)

    return build


@pytest.fixture
def probe(member, images):
    """A probe of a network, in batches that do not divide the images."""

    def build(model, devices=1):
        return Probe(member(model), images, make_mesh(devices), batch_size=16)

    return build
