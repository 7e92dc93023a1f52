"""The zoo: from a name to a module."""

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flax import linen as nn

from senet_jax.errors import UsageError, choose
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
from senet_jax.models.detection import named as detectors
from senet_jax.models.detection.rcnn import FasterRCNN
from senet_jax.models.segmentation import named
from senet_jax.models.segmentation.segmenter import Segmenter

Composed = Segmenter | FasterRCNN
"""A network with a backbone: one that classifies pixels, or one that finds objects."""
Network = Backbone | Composed
"""A network that classifies images, or a composed one."""


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
class ComposedEntry(ZooEntry):
    """A network of segmentation or detection: a head on a named classifier."""

    head: type[Composed]
    """Its class."""
    of_head: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The fields in which it differs from the defaults of that class."""

    @property
    def fields(self) -> dict[str, Any]:
        """All fields of its backbone and its own, by name; its own go before."""
        both = super().fields | _defaults(self.head) | dict(self.of_head)
        return {name: value for name, value in both.items() if name not in _COMPOSED}

    def build(self, **fields: Any) -> Composed:
        own = {name: fields[name] for name in fields if name in _defaults(self.head)}
        rest = {name: fields[name] for name in fields if name not in own}
        backbone = self.family(**{**self.own, **rest})
        return self.head(backbone=backbone, **{**self.of_head, **own})


_LINEN = ("parent", "name")
_COMPOSED = ("backbone", "features_only", "features_by")
"""Fields that a ``ComposedEntry`` or its network sets."""


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


def _segmenter(head: str, backbone: str) -> ComposedEntry:
    """The entry of a network of semantic segmentation.

    Raises:
        UsageError: There is no such backbone.
    """
    entry = CLASSIFIERS[choose(f"backbone of {head}", backbone, CLASSIFIERS)]
    small = entry.input_size < SMALLEST_PHOTOGRAPH
    own = {**(DENSE if issubclass(entry.family, resnet.ResNet) else {}), **entry.own}
    size = entry.input_size if small else named.SIDE
    return ComposedEntry(entry.family, own, size, named.HEADS[head])


def _detector(head: str, backbone: str, second: bool) -> ComposedEntry:
    """The entry of a detector.

    Raises:
        UsageError: There is no such backbone.
    """
    entry = CLASSIFIERS[choose(f"backbone of {head}", backbone, CLASSIFIERS)]
    small = entry.input_size < SMALLEST_PHOTOGRAPH
    size = entry.input_size if small else detectors.SIDE
    of_head = detectors.fields(head, second)
    return ComposedEntry(entry.family, entry.own, size, detectors.HEADS[head], of_head)


ZOO: dict[str, ZooEntry] = {
    **CLASSIFIERS,
    **{f"{head}_{backbone}": _segmenter(head, backbone) for head, backbone in named.PUBLISHED},
    **{detectors.name_of(*parts): _detector(*parts) for parts in detectors.PUBLISHED},
}
"""The networks that have a name in the papers or in other codebases."""


def create_model(name: str, **fields: Any) -> Network:
    """Builds a network by name.

    Args:
        name: A name of ``list_models()``; where timm has the model, timm's name for it. Or
            "HEAD_BACKBONE", such as "deeplabv3_resnest50d", for semantic segmentation: a head of
            ``segmentation.named.HEADS`` on a classifier of the list. Or "HEAD_BACKBONE_fpn", such
            as "maskrcnn_resnest50d_fpn", for detection, with a head of ``detection.named.HEADS``;
            with "_v2" behind it the heads are those of torchvision's second version.
        **fields: Fields of the module that differ from the named network's, such as
            ``num_classes=10``, ``attention=SqueezeExciteConfig(gate="tanh")``,
            ``placement="pre"``, ``stages=(3, 4)`` or ``dtype=jnp.bfloat16``. Those of a network of
            segmentation or detection are its own and those of its backbone.

    Returns:
        A Linen module called as ``model.apply(variables, images, train=False)`` on float images
        (n, h, w, c), giving logits (n, num_classes), those of each pixel (see ``Segmenter``), or
        objects (see ``FasterRCNN``); its variables are ``params`` and ``batch_stats``.

    Raises:
        UsageError: An unknown name, field or value of a field.

    Example:
        >>> model = create_model("cifar_seresnet20", num_classes=100, stages=(3, 4))
        >>> model.num_classes, model.widths, model.attention.reduction
        (100, (16, 32, 64), 16)
        >>> create_model("cifar_seresnet20", placement="standart")
        Traceback (most recent call last):
        senet_jax.errors.UsageError: unknown placement 'standart': did you mean standard?
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
        if field not in valid and field in _ELSEWHERE:
            raise UsageError(f"{name} has no field {field!r}: {_ELSEWHERE[field]}.")
        choose(f"field of {name}", field, valid)


_OF_ATTENTION = "it is one of the attention, as in attention=SqueezeExciteConfig({}=...)"
_ELSEWHERE = {
    "pretrained": "weights are read by senet_jax.interchange.load_weights or from_torch",
    "in_chans": "the images that are given to init have the channels",
    **{field: _OF_ATTENTION.format(field) for field in ("gate", "squeeze", "reduction")},
}
"""Fields that networks of other programs have, or that users look for in the wrong place."""


def find(name: str) -> ZooEntry:
    """Returns the entry of a network.

    Raises:
        UsageError: An unknown name.
    """
    if name not in ZOO:
        if of_segmenter := named.split(name):
            return _segmenter(*of_segmenter)
        if of_detector := detectors.split(name):
            return _detector(*of_detector)
    return ZOO[choose("model", name, ZOO)]


def backbone_name(name: str) -> str:
    """The name of the backbone of a composed network, from its name."""
    parts = detectors.split(name) or named.split(name)
    assert parts, name
    return parts[1]


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that match a shell pattern such as ``"*se*"``, sorted by family.

    Example:
        >>> list_models("cifar_*resnet20")
        ['cifar_resnet20', 'cifar_seresnet20']
    """
    return [name for name in ZOO if fnmatch.fnmatchcase(name, pattern)]
