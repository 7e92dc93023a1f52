"""The zoo: from a name to a module."""

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

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


@dataclasses.dataclass(frozen=True, eq=False)
class ZooEntry:
    """A named network."""

    family: type[Backbone]
    """Its class."""
    own: Mapping[str, Any]
    """The fields in which it differs from the defaults of its family."""
    input_size: int
    """Side of the images that it was published for, pixels."""

    @property
    def fields(self) -> dict[str, Any]:
        """All its fields by name, known without building it."""
        declared = dataclasses.fields(self.family)
        defaults = {field.name: field.default for field in declared if field.name not in _LINEN}
        return defaults | dict(self.own)

    def build(self, **fields: Any) -> Backbone:
        """Builds the network.

        Args:
            **fields: Fields that differ from the named network's.

        Raises:
            UsageError: A value of a field that does not fit.
        """
        return self.family(**{**self.own, **fields})


_LINEN = ("parent", "name")


def _entries(
    table: Mapping[str, Callable[..., Backbone]],
    input_size: int,
    exceptions: Mapping[str, int] | None = None,
) -> dict[str, ZooEntry]:
    sizes = exceptions or {}
    found = {}
    for name, constructor in table.items():
        flat = functools.partial(constructor)  # Of a partial function or of the class itself.
        assert isinstance(flat.func, type)
        found[name] = ZooEntry(flat.func, flat.keywords, sizes.get(name, input_size))
    return found


ZOO: dict[str, ZooEntry] = {
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


def create_model(name: str, **fields: Any) -> Backbone:
    """Builds a network by name.

    Args:
        name: A name of ``list_models()``; where timm has the model, timm's name for it.
        **fields: Fields of the module that differ from the named network's, such as
            ``num_classes=10``, ``attention=SqueezeExciteConfig(gate="tanh")``,
            ``placement="pre"``, ``stages=(3, 4)`` or ``dtype=jnp.bfloat16``.

    Returns:
        A Linen module called as ``model.apply(variables, images, train=False)`` on float images
        (n, h, w, c), giving logits (n, num_classes); its variables are ``params`` and
        ``batch_stats``.

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
    return ZOO[choose("model", name, ZOO)]


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that match a shell pattern such as ``"*se*"``, sorted by family."""
    return [name for name in ZOO if fnmatch.fnmatchcase(name, pattern)]
