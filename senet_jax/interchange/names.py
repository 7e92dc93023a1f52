"""How PyTorch's repositories name the modules that Flax paths name here.

A rule rewrites the path of a module inside its block (or of the stem or head) to a PyTorch name;
of the rules of a naming the first whole match holds, and what none matches keeps its name with
dots for slashes.
"""

import re

from flax import linen as nn

from senet_jax.attention import SelectiveKernelConfig

Rules = tuple[tuple[str, str], ...]

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
"""What is tried before timm's rules."""

_COUNTED = re.compile(r"(stage|block|path)(\d+)")
_COUNTERS = {"stage": "layer", "block": "", "path": "paths."}
_IN_BLOCK = re.compile(r"(layer\d+/\d+/)?(.+)")


def own_dialect(name: str) -> Rules:
    """The dialect that a network of the zoo is published in."""
    if name.startswith("legacy_"):
        return CADENE
    return CIFAR if name.startswith("cifar_") else ()


def structure(model: nn.Module) -> Rules:
    """The rules that hold for a network whatever the dialect, timm's last."""
    rules = TIMM
    if getattr(model, "shortcut", None) == "D":
        rules = AVERAGED_SHORTCUT + rules
    if isinstance(getattr(model, "attention", None), SelectiveKernelConfig):
        rules = SELECTIVE_KERNEL + rules
    return rules


def module_name(path: str, rules: Rules) -> str:
    """PyTorch's name of a module.

    Args:
        path: Path of the module in Flax: "stage2/block1/se/reduce".
        rules: The rules of the naming, the first that matches being the one that holds.
    """
    # PyTorch counts from zero; its layer1 is the second stage, as the stem is the first.
    path = _COUNTED.sub(lambda count: f"{_COUNTERS[count[1]]}{int(count[2]) - 1}", path)
    match = _IN_BLOCK.fullmatch(path)
    assert match, path
    block, inner = match[1] or "", match[2]
    for pattern, name in rules:
        if found := re.fullmatch(pattern, inner):
            inner = found.expand(name)
            break
    return (block + inner).replace("/", ".")
