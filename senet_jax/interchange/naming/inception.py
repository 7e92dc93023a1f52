"""Names of BN-Inception, which are Cadene's, and of Inception-v3: torchvision's, timm's, Cadene's.

Weights come with what their images must be: those of Cadene's BN-Inception take BGR from 0 to 255
less the means 104, 117 and 128; those of torchvision's Inception-v3 take (x - 0.5) / 0.5 for x from
0 to 1, which torchvision itself makes of the usual normalized images (``transform_input``).
"""

import functools

from senet_jax.interchange.naming.rules import Naming, Rules, apply
from senet_jax.models.backbone import Backbone

TRAINING_ONLY = ("AuxLogits",)
"""The auxiliary classifier of Inception-v3, on mixed_6e."""

BN_INCEPTION: Rules = (
    ("(.+)/(.+)/conv", r"\1_\2"),
    ("(.+)/(.+)/bn", r"\1_\2_bn"),
    ("(.+)/conv", r"\1"),
    ("(.+)/bn", r"\1_bn"),
    ("(.+)/se/reduce", r"\1_se.fc1"),
    ("(.+)/se/expand", r"\1_se.fc2"),
    ("head", "last_linear"),
)
"""Cadene's: one level, as in the Caffe model. It has no SE: those names are our own."""

V3: Rules = (
    ("conv2d_3b/(conv|bn)", r"Conv2d_3b_1x1.\1"),
    ("conv2d_(..)/(conv|bn)", r"Conv2d_\1_3x3.\2"),
    ("mixed_(..)/se/reduce", r"Mixed_\1.se.fc1"),
    ("mixed_(..)/se/expand", r"Mixed_\1.se.fc2"),
    ("mixed_(.+)", r"Mixed_\1"),
    ("head", "fc"),
)
"""torchvision's and timm's."""

V3_CADENE: Rules = (("head", "last_linear"), *V3)


def namings(name: str, model: Backbone) -> tuple[Naming, ...]:
    """The namings of a network."""
    if name.startswith("cifar_"):
        # The small one, whose weights nobody has published.
        return (lambda path: path.replace("/", "."),)
    rules = (BN_INCEPTION,) if name.endswith("bninception") else (V3, V3_CADENE)
    return tuple(functools.partial(apply, each) for each in rules)
