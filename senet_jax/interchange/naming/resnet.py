"""Names of ResNets and related networks: timm's, torchvision's, Cadene's and the common CIFAR ones.

A rule rewrites the path of a module inside its block (or of the stem or head).
"""

import functools
import re

from senet_jax.attention import SelectiveKernelConfig
from senet_jax.interchange.naming.rules import Naming, Rules, apply
from senet_jax.models.backbone import Backbone
from senet_jax.models.resnet import ResNet

TIMM: Rules = (
    ("stem/conv", "conv1"),
    ("stem/bn", "bn1"),
    ("stem/conv1", "conv1.0"),
    ("stem/bn1", "conv1.1"),
    ("stem/conv2", "conv1.3"),
    ("stem/bn2", "conv1.4"),
    ("stem/conv3", "conv1.6"),
    ("stem/bn3", "bn1"),
    ("stem/pool_conv", "maxpool.0"),
    ("stem/pool_bn", "maxpool.1"),
    ("shortcut/conv", "downsample.0"),
    ("shortcut/bn", "downsample.1"),
    ("se/reduce", "se.fc1"),
    ("se/expand", "se.fc2"),
    ("eca/conv", "se.conv"),
    ("cbam/reduce", "se.channel.fc1"),
    ("cbam/expand", "se.channel.fc2"),
    ("cbam/spatial", "se.spatial.conv.conv"),
    ("cbam/spatial_bn", "se.spatial.conv.bn"),
    (r"ge/conv(\d)", r"se.gather.conv\1"),
    (r"ge/bn(\d)", r"se.gather.norm\1"),
    ("ge/reduce", "se.mlp.fc1"),
    ("ge/expand", "se.mlp.fc2"),
    (r"(conv\d)/bn", r"\1.bn0"),
    (r"(conv\d)/reduce", r"\1.fc1"),
    (r"(conv\d)/reduce_bn", r"\1.bn1"),
    (r"(conv\d)/expand", r"\1.fc2"),
    ("head", "fc"),
)
"""timm's. torchvision's and the official ResNeSt's names are the same for the same network."""

AVERAGED_SHORTCUT: Rules = (
    ("shortcut/conv", "downsample.1"),
    ("shortcut/bn", "downsample.2"),
)
"""In a ResNet-D the pool (or its identity) is the shortcut's first module."""

SELECTIVE_KERNEL: Rules = (
    (r"(conv\d)/paths\.(\d)/(conv|bn)", r"\1.paths.\2.\3"),
    (r"(conv\d)/reduce", r"\1.attn.fc_reduce"),
    (r"(conv\d)/reduce_bn", r"\1.attn.bn"),
    (r"(conv\d)/expand", r"\1.attn.fc_select"),
    (r"conv(\d)", r"conv\1.conv"),
    (r"bn(\d)", r"conv\1.bn"),
)
"""timm's SKNets keep each convolution of a block with its batch norm."""

CADENE: Rules = (
    ("stem/(conv|bn)", r"layer0.\g<1>1"),
    (r"stem/((?:conv|bn)\d)", r"layer0.\1"),
    ("se/reduce", "se_module.fc1"),
    ("se/expand", "se_module.fc2"),
    ("head", "last_linear"),
)
"""Cadene's pretrained-models.pytorch, and so timm's ``legacy_*``."""

CIFAR: Rules = (
    ("shortcut/conv", "shortcut.0"),
    ("shortcut/bn", "shortcut.1"),
    ("head", "linear"),
)
"""The CIFAR ResNets of kuangliu and Idelbayev."""

AUTHORS: Rules = (
    ("se/reduce", "se.fc.0"),
    ("se/expand", "se.fc.2"),
    ("eca/conv", "eca.conv"),
)
"""moskomule's senet.pytorch (linear layers in a sequence), and ECA-Net's authors."""

DIALECTS: tuple[Rules, ...] = ((), CADENE, CIFAR, AUTHORS)
"""The names that are tried before timm's rules."""

_COUNTED = re.compile(r"(stage|block|path)(\d+)")
_COUNTERS = {"stage": "layer", "block": "", "path": "paths."}
_IN_BLOCK = re.compile(r"(layer\d+/\d+/)?(.+)")


def namings(name: str, model: Backbone) -> tuple[Naming, ...]:
    """The namings of a network, first that in which it is published."""
    shape = TIMM
    if isinstance(model, ResNet) and model.shortcut == "D":
        shape = AVERAGED_SHORTCUT + shape
    if isinstance(model.attention, SelectiveKernelConfig):
        shape = SELECTIVE_KERNEL + shape
    dialects = sorted(DIALECTS, key=lambda dialect: dialect is not _own_dialect(name))
    return tuple(functools.partial(_module_name, dialect + shape) for dialect in dialects)


def _own_dialect(name: str) -> Rules:
    if name.startswith("legacy_"):
        return CADENE
    return CIFAR if name.startswith("cifar_") else ()


def _module_name(rules: Rules, path: str) -> str:
    # PyTorch counts from zero; its layer1 is the second stage, as the stem is the first.
    path = _COUNTED.sub(lambda count: f"{_COUNTERS[count[1]]}{int(count[2]) - 1}", path)
    match = _IN_BLOCK.fullmatch(path)
    assert match, path
    block, inner = match[1] or "", match[2]
    return block.replace("/", ".") + apply(rules, inner)
