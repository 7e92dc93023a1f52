"""How PyTorch's repositories name the modules that Flax paths name here: one file a family."""

from collections.abc import Callable

from senet_jax.interchange.naming import (
    densenet,
    detection,
    inception,
    inception_resnet,
    resnet,
    segmentation,
    vgg,
)
from senet_jax.interchange.naming.rules import Naming
from senet_jax.models.backbone import Backbone
from senet_jax.models.densenet import DenseNet
from senet_jax.models.detection.rcnn import FasterRCNN
from senet_jax.models.inception import Inception
from senet_jax.models.inception_resnet import InceptionResNet
from senet_jax.models.resnet import ResNet
from senet_jax.models.segmentation.segmenter import Segmenter
from senet_jax.models.vgg import VGG
from senet_jax.models.zoo import Network, backbone_name

FAMILIES: dict[type[Backbone], Callable[[str, Backbone], tuple[Naming, ...]]] = {
    ResNet: resnet.namings,
    DenseNet: densenet.namings,
    VGG: vgg.namings,
    Inception: inception.namings,
    InceptionResNet: inception_resnet.namings,
}
"""The namings of a network, by its class, from its name in the zoo and its module."""

TRAINING_ONLY: dict[type[Backbone], tuple[str, ...]] = {Inception: inception.TRAINING_ONLY}
"""Modules of PyTorch's networks that only their training uses and that the networks here lack."""


def namings(name: str, model: Network) -> tuple[Naming, ...]:
    """The namings that a network's weights may come in, first the one that they are written in.

    A family that no PyTorch repository is followed for keeps its own names, with dots for slashes.

    Args:
        name: Name in the zoo.
        model: The network.
    """
    if isinstance(model, Segmenter):
        return segmentation.namings(model, namings(backbone_name(name), model.backbone))
    if isinstance(model, FasterRCNN):
        return detection.namings(model, namings(backbone_name(name), model.backbone))
    family = FAMILIES.get(type(model)) if isinstance(model, Backbone) else None
    return family(name, model) if family else (lambda path: path.replace("/", "."),)


def training_only(model: Network) -> tuple[str, ...]:
    """Modules whose weights may come with a network's and are not part of it."""
    if isinstance(model, Segmenter):
        return () if model.aux else segmentation.AUXILIARY
    return TRAINING_ONLY.get(type(model), ()) if isinstance(model, Backbone) else ()
