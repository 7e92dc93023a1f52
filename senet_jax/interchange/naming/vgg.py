"""Names of VGGs: timm's and torchvision's.

Both count the modules of one sequence, ``features``, ReLUs and pools among them. Neither has
attention; here it is part of the ReLU whose output it rescales (``features.2.se.fc1``), so that the
names of everything else are those of the plain network.
"""

import functools
import re

from senet_jax.interchange.naming.rules import Naming, Rules, apply
from senet_jax.models.backbone import Backbone
from senet_jax.models.vgg import VGG

TIMM: Rules = (
    ("fc6", "pre_logits.fc1"),
    ("fc7", "pre_logits.fc2"),
    ("head", "head.fc"),
    ("se/reduce", "se.fc1"),
    ("se/expand", "se.fc2"),
)
TORCHVISION: Rules = (
    ("fc6", "classifier.0"),
    ("fc7", "classifier.3"),
    ("head", "classifier.6"),
    *TIMM,
)

_IN_LAYER = re.compile(r"(stage\d+/layer\d+)/(\w+)(.*)")


def namings(name: str, model: Backbone) -> tuple[Naming, ...]:
    """The namings of a network, timm's first."""
    assert isinstance(model, VGG)
    first, index = {}, 0
    for stage, layers in enumerate(model.blocks, 1):
        for layer in range(1, layers + 1):
            first[f"stage{stage}/layer{layer}"] = index
            index += 3 if model.norm else 2
        index += 1
    after = {"conv": 0, "bn": 1}
    relu = 2 if model.norm else 1

    def naming(rules: Rules, path: str) -> str:
        match = _IN_LAYER.fullmatch(path)
        if not match:
            return apply(rules, path)
        layer, module, inner = match.groups()
        number = first[layer] + after.get(module, relu)
        rest = "" if module in after else f".{apply(rules, module + inner)}"
        return f"features.{number}{rest}"

    return tuple(functools.partial(naming, rules) for rules in (TIMM, TORCHVISION))
