"""Names of Inception-ResNet-v2: timm's and Cadene's."""

import functools
import re

from senet_jax.interchange.naming.rules import Naming, Rules, apply
from senet_jax.models.backbone import Backbone

TIMM: Rules = (
    ("(.+)/expansion", r"\1.conv2d"),
    ("(.+)/se/reduce", r"\1.se.fc1"),
    ("(.+)/se/expand", r"\1.se.fc2"),
    ("head", "classif"),
)
"""timm's. It has no SE: those names are our own."""

CADENE: Rules = (("head", "last_linear"), *TIMM)

_COUNTED = re.compile(r"(block35_|block17_|block8_|branch|(?<=branch\d)_)(\d+)")
_COUNTERS = {
    "block35_": "repeat.",
    "block17_": "repeat_1.",
    "block8_": "repeat_2.",
    "branch": "branch",
    "_": ".",
}


def namings(name: str, model: Backbone) -> tuple[Naming, ...]:
    """The namings of a network."""
    return tuple(functools.partial(_module_name, rules) for rules in (TIMM, CADENE))


def _module_name(rules: Rules, path: str) -> str:
    # The last block, which has no ReLU, is outside the sequence of its like.
    path = path.replace("block8_10/", "block8/")
    # PyTorch counts from zero.
    path = _COUNTED.sub(lambda count: f"{_COUNTERS[count[1]]}{int(count[2]) - 1}", path)
    return apply(rules, path)
