"""How PyTorch's repositories name the modules that Flax paths name here: one file a family."""

from collections.abc import Callable

from flax import linen as nn

from senet_jax.interchange.naming import densenet, resnet, vgg
from senet_jax.interchange.naming.rules import Naming
from senet_jax.models.densenet import DenseNet
from senet_jax.models.resnet import ResNet
from senet_jax.models.vgg import VGG

FAMILIES: dict[type[nn.Module], Callable[[str, nn.Module], tuple[Naming, ...]]] = {
    ResNet: resnet.namings,
    DenseNet: densenet.namings,
    VGG: vgg.namings,
}
"""The namings of a network, by its class, from its name in the zoo and its module."""


def namings(name: str, model: nn.Module) -> tuple[Naming, ...]:
    """The namings that a network's weights may come in, first the one that they are written in.

    A family that no PyTorch repository is followed for keeps its own names, with dots for slashes.

    Args:
        name: Name in the zoo.
        model: The network.
    """
    family = FAMILIES.get(type(model))
    return family(name, model) if family else (lambda path: path.replace("/", "."),)
