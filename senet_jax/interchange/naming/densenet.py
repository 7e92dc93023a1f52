"""Names of DenseNets: timm's, which are torchvision's, and those of torchvision's released files.

The CIFAR networks have no names in common use and keep their own.
"""

import functools
import re

from senet_jax.interchange.naming.rules import Naming, Rules, apply
from senet_jax.models.backbone import Backbone

TIMM: Rules = (
    ("stem/conv", "features.conv0"),
    ("stem/bn", "features.norm0"),
    (r"stage(\d+)/layer(\d+)/bn(\d)", r"features.denseblock\1.denselayer\2.norm\3"),
    (r"stage(\d+)/layer(\d+)/se/reduce", r"features.denseblock\1.denselayer\2.se.fc1"),
    (r"stage(\d+)/layer(\d+)/se/expand", r"features.denseblock\1.denselayer\2.se.fc2"),
    (r"stage(\d+)/layer(\d+)/(.+)", r"features.denseblock\1.denselayer\2.\3"),
    (r"stage(\d+)/se/reduce", r"features.denseblock\1.se.fc1"),
    (r"stage(\d+)/se/expand", r"features.denseblock\1.se.fc2"),
    (r"stage(\d+)/(.+)", r"features.denseblock\1.\2"),
    (r"transition(\d+)/bn", r"features.transition\1.norm"),
    (r"transition(\d+)/conv", r"features.transition\1.conv"),
    ("final_bn", "features.norm5"),
    ("head", "classifier"),
)
"""With attention, which neither has, its layers are named as timm names them in other networks."""

RELEASED: Rules = (
    (r"stage(\d+)/layer(\d+)/bn(\d)", r"features.denseblock\1.denselayer\2.norm.\3"),
    (r"stage(\d+)/layer(\d+)/conv(\d)", r"features.denseblock\1.denselayer\2.conv.\3"),
)
"""torchvision's files are older than its rule that the name of a module has no dot."""

_COUNTED = re.compile(r"(stage|transition)(\d+)")


def namings(name: str, model: Backbone) -> tuple[Naming, ...]:
    """The namings of a network, first that in which it is published."""
    if getattr(model, "stem", None) == "cifar":
        return (functools.partial(apply, ()),)
    return tuple(functools.partial(_module_name, rules) for rules in (TIMM, RELEASED + TIMM))


def _module_name(rules: Rules, path: str) -> str:
    # PyTorch's first dense block is the second stage, as the stem is the first.
    return apply(rules, _COUNTED.sub(lambda count: f"{count[1]}{int(count[2]) - 1}", path))
