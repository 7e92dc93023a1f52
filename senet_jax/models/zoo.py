"""The zoo: from a name to a module."""

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping
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
from senet_jax.models.backbone import Backbone
from senet_jax.models.segmentation import named
from senet_jax.models.segmentation.segmenter import Segmenter

Network = Backbone | Segmenter
"""A network that classifies images, or one that classifies pixels."""


@dataclasses.dataclass(frozen=True, eq=False)
class ZooEntry:
    """A named network."""

    family: type[Backbone]
    """Its class, or that of its backbone."""
    own: Mapping[str, Any]
    """The fields in which it differs from the defaults of its family."""
    input_size: int
    """Side of the images that it was published for, pixels."""

    @property
    def fields(self) -> dict[str, Any]:
        """All its fields by name, known without building it."""
        return _defaults(self.family) | dict(self.own)

    def build(self, **fields: Any) -> Network:
        """Builds the network.

        Args:
            **fields: Fields that differ from the named network's.

        Raises:
            UsageError: A value of a field that does not fit.
        """
        return self.family(**{**self.own, **fields})


@dataclasses.dataclass(frozen=True, eq=False)
class SegmenterEntry(ZooEntry):
    """A network of semantic segmentation: a head on a named classifier."""

    head: type[Segmenter]
    """Its class."""

    @property
    def fields(self) -> dict[str, Any]:
        """All fields of its backbone and its own, by name; its own go before."""
        both = super().fields | _defaults(self.head)
        return {name: value for name, value in both.items() if name not in _OF_SEGMENTER}

    def build(self, **fields: Any) -> Segmenter:
        own = {name: fields[name] for name in fields if name in _defaults(self.head)}
        rest = {name: fields[name] for name in fields if name not in own}
        return self.head(backbone=self.family(**{**self.own, **rest}), **own)


_LINEN = ("parent", "name")
_OF_SEGMENTER = ("backbone", "features_only", "features_by")
"""Fields that a ``SegmenterEntry`` or its network sets."""


def _defaults(kind: type[nn.Module]) -> dict[str, Any]:
    """The defaults of the fields of a module, by name."""
    fields = dataclasses.fields(kind)
    return {field.name: field.default for field in fields if field.name not in _LINEN}


def _entries(
    table: Mapping[str, Callable[..., Backbone]],
    input_size: int,
    exceptions: Mapping[str, int] | None = None,
) -> dict[str, ZooEntry]:
    sizes = exceptions or {}
    found = {}
    for name, constructor in table.items():
        flat = functools.partial(constructor)  # It may be a partial function or the class itself.
        assert isinstance(flat.func, type)
        found[name] = ZooEntry(flat.func, flat.keywords, sizes.get(name, input_size))
    return found


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

SMALLEST_PHOTOGRAPH = 128
"""A classifier of images of at least this side, pixels, is one of photographs."""

DENSE: dict[str, Any] = {"output_stride": 8, "dilated": "authors"}
"""The fields of a ResNet under a head: those of torchvision and of ResNeSt's authors."""


def _segmenter(head: str, backbone: str) -> SegmenterEntry:
    """The entry of a network of semantic segmentation.

    Raises:
        UsageError: There is no such backbone.
    """
    entry = CLASSIFIERS[choose(f"backbone of {head}", backbone, CLASSIFIERS)]
    small = entry.input_size < SMALLEST_PHOTOGRAPH
    own = {**(DENSE if issubclass(entry.family, resnet.ResNet) else {}), **entry.own}
    size = entry.input_size if small else named.SIDE
    return SegmenterEntry(entry.family, own, size, named.HEADS[head])


ZOO: dict[str, ZooEntry] = {
    **CLASSIFIERS,
    **{f"{head}_{backbone}": _segmenter(head, backbone) for head, backbone in named.PUBLISHED},
}
"""The networks that have a name in the papers or in other codebases."""


def create_model(name: str, **fields: Any) -> Network:
    """Builds a network by name.

    Args:
        name: A name of ``list_models()``; where timm has the model, timm's name for it. Or
            "HEAD_BACKBONE", such as "deeplabv3_resnest50d", for semantic segmentation: a head of
            ``segmentation.named.HEADS`` on a classifier of the list.
        **fields: Fields of the module that differ from the named network's, such as
            ``num_classes=10``, ``attention=SqueezeExciteConfig(gate="tanh")``,
            ``placement="pre"``, ``stages=(3, 4)`` or ``dtype=jnp.bfloat16``. Those of a network of
            semantic segmentation are its own and those of its backbone.

    Returns:
        A Linen module called as ``model.apply(variables, images, train=False)`` on float images
        (n, h, w, c), giving logits (n, num_classes), or those of each pixel (see ``Segmenter``);
        its variables are ``params`` and ``batch_stats``.

    Raises:
        UsageError: An unknown name, field or value of a field.
    """
    check_fields(name, fields)
    return find(name).build(**fields)


def check_fields(name: str, fields: Iterable[str]) -> None:
    """Checks that a network has such fields.

    Args:
        name: A name of ``list_models()``.
        fields: Names of fields.

    Raises:
        UsageError: An unknown name, or a field that the network does not have.
    """
    valid = find(name).fields
    for field in fields:
        choose(f"field of {name}", field, valid)


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
