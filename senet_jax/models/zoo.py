"""The zoo: from a name to a module."""

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from senet_jax.errors import choose
from senet_jax.models import (
    densenet,
    inception,
    inception_resnet,
    mobilenet,
    preact_resnet,
    resnest,
    resnet,
    shake_shake,
    shufflenet,
    sknet,
    vgg,
)
from senet_jax.models.segmentation import named
from senet_jax.models.segmentation.segmenter import Segmenter


@dataclasses.dataclass(frozen=True)
class ZooEntry:
    """A named network."""

    build: Callable[..., nn.Module]
    """Constructor; keyword arguments override the fields of the network."""
    input_size: int
    """Side of the images that it was published for, pixels."""


def _entries(
    table: Mapping[str, Callable[..., nn.Module]],
    input_size: int,
    exceptions: Mapping[str, int] | None = None,
) -> dict[str, ZooEntry]:
    sizes = exceptions or {}
    return {name: ZooEntry(build, sizes.get(name, input_size)) for name, build in table.items()}


CLASSIFIERS: dict[str, ZooEntry] = {
    **_entries(resnet.IMAGENET_RESNETS, 224, resnet.RESNET_SIZES),
    **_entries(resnet.SENETS, 224),
    **_entries(resnest.RESNESTS, 224, resnest.RESNEST_SIZES),
    **_entries(sknet.SKNETS, 224),
    **_entries(vgg.VGGS, 224),
    **_entries(densenet.DENSENETS, 224),
    **_entries(mobilenet.MOBILENETS, 224),
    **_entries(shufflenet.SHUFFLENETS, 224),
    **_entries(inception.BN_INCEPTIONS, 224),
    **_entries(inception.INCEPTION_V3S, 299),
    **_entries(inception_resnet.INCEPTION_RESNETS, 299),
    **_entries(resnet.CIFAR_RESNETS, 32),
    **_entries(densenet.CIFAR_DENSENETS, 32),
    **_entries(inception.CIFAR_INCEPTIONS, 32),
    **_entries(preact_resnet.PREACT_RESNETS, 32),
    **_entries(shake_shake.SHAKE_SHAKES, 32),
}
"""The networks that classify images. They are the backbones of the others."""


def _segmenter(head: str, backbone: str) -> ZooEntry:
    """The entry of a network of semantic segmentation.

    Raises:
        UsageError: There is no such backbone.
    """
    entry = CLASSIFIERS[choose(f"backbone of {head}", backbone, CLASSIFIERS)]
    small = entry.input_size < SMALLEST_PHOTOGRAPH
    size = entry.input_size if small else named.SIDE
    return ZooEntry(functools.partial(named.segmenter, head, entry.build), size)


SMALLEST_PHOTOGRAPH = 128
"""Side of the images, pixels, from which on a classifier is one of photographs."""

ZOO: dict[str, ZooEntry] = {
    **CLASSIFIERS,
    **{f"{head}_{backbone}": _segmenter(head, backbone) for head, backbone in named.PUBLISHED},
}
"""The networks that have a name in the papers or in other codebases."""


def create_model(name: str, **fields: Any) -> nn.Module:
    """Builds a network by name.

    Args:
        name: A name of ``list_models()``; where timm has the model, timm's name for it. Or
            "HEAD_BACKBONE", such as "deeplabv3_resnest50d", for semantic segmentation: a head of
            ``segmentation.named.HEADS`` on a classifier of the list.
        **fields: Fields of the module that differ from the named network's, such as
            ``num_classes=10``, ``attention=SqueezeExciteConfig(gate="tanh")``,
            ``placement="pre"``, ``stages=(3, 4)`` or ``dtype=jnp.bfloat16``. Of a network of
            semantic segmentation they are those of its head and of its backbone.

    Returns:
        A Linen module called as ``model.apply(variables, images, train=False)`` on float images
        (n, h, w, c), giving logits (n, num_classes), or those of each pixel (see ``Segmenter``);
        its variables are ``params`` and ``batch_stats``.

    Raises:
        UsageError: An unknown name, field or value of a field.
    """
    entry = find(name)
    model = entry.build()
    if isinstance(model, Segmenter):
        valid = named.field_names(model)
    else:
        valid = [field.name for field in dataclasses.fields(model) if field.name not in _LINEN]
    for field in fields:
        choose(f"field of {name}", field, valid)
    return entry.build(**fields)


_LINEN = ("parent", "name")


def find(name: str) -> ZooEntry:
    """Returns the entry of a network.

    Raises:
        UsageError: An unknown name.
    """
    if name not in ZOO and (parts := named.split(name)):
        return _segmenter(*parts)
    return ZOO[choose("model", name, ZOO)]


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that match a shell pattern such as ``"*se*"``, sorted by family."""
    return [name for name in ZOO if fnmatch.fnmatchcase(name, pattern)]
