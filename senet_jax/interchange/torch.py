"""State dicts of PyTorch models to Flax variables and back, exactly."""

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from senet_jax.errors import UsageError
from senet_jax.interchange.naming import namings, training_only
from senet_jax.models.resnet import ResNet
from senet_jax.models.zoo import ZOO, create_model, find

_IGNORED = "num_batches_tracked"
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_HEAD = "params/head/"
_SHOWN = 6
"""Entries of each kind that an error lists; a wrong model would list hundreds."""


def from_torch(
    name: str,
    state_dict: Mapping[str, Any],
    *,
    drop_head: bool = False,
    channels: int = 3,
    **fields: Any,
) -> dict[str, Any]:
    """Flax variables of a network from the state dict of its PyTorch twin.

    Names may be timm's, torchvision's, the official ResNeSt's, Cadene's or the common CIFAR ones
    (:mod:`senet_jax.interchange.naming`), all with ``module.`` before them or none. Names do not
    tell a ``legacy_seresnet50`` from a ``seresnet50``, which has the same shapes and other strides:
    ``name`` must be right. What only training uses is ignored: the counters of batch norms and
    auxiliary classifiers (Inception-v3's ``AuxLogits``).

    Args:
        name: Name in the zoo.
        state_dict: Arrays by name: NumPy's, JAX's or PyTorch's, of any floating precision.
        drop_head: Ignore the classifier and start a fresh one, drawn with ``jax.random.key(0)``.
        channels: Channels of the images.
        **fields: Fields of the network that differ from the named one's (``num_classes=10``).

    Returns:
        ``params`` and ``batch_stats`` as nested dictionaries of float32 NumPy arrays.

    Raises:
        UsageError: An unknown name or field; or entries that are missing, left over, or of a wrong
            shape or dtype, all listed in the one error.
    """
    model = create_model(name, **fields)
    source = _clean(state_dict, training_only(model))
    leaves = _leaves(name, model, channels)
    if drop_head:
        leaves, source = _headless(name, model, leaves, source)
    arrays, problems = _match(leaves, source)
    if problems:
        advice = _advice(name, model, leaves, source, channels)
        raise _complaint(f"the weights do not fit {name}", problems, advice)
    flat = {leaf.path: leaf.from_torch(arrays[leaf.path]) for leaf in leaves}
    if drop_head:
        flat |= _fresh_head(name, model, channels)
    return traverse_util.unflatten_dict(flat, sep="/")


def to_torch(
    name: str, variables: Mapping[str, Any], *, channels: int = 3, **fields: Any
) -> dict[str, np.ndarray]:
    """State dict of the PyTorch twin of a network, the inverse of :func:`from_torch`.

    Args:
        name: Name in the zoo.
        variables: ``params`` and ``batch_stats`` of the network.
        channels: Channels of the images.
        **fields: Fields of the network that differ from the named one's.

    Returns:
        Float32 arrays by timm's names, by Cadene's or the common CIFAR ones where those publish the
        network, and by our own where nobody does (``interchange.naming``). There is no
        ``num_batches_tracked``, which PyTorch does without.

    Raises:
        UsageError: An unknown name or field, or variables that are not those of the network.
    """
    leaves = _leaves(name, create_model(name, **fields), channels)
    kept = {kind: variables.get(kind, {}) for kind in ("params", "batch_stats")}
    flat = traverse_util.flatten_dict(kept, sep="/")
    shapes = {leaf.path: leaf.shape for leaf in leaves}
    problems = {
        "missing": [path for path in shapes if path not in flat],
        "left over": [path for path in flat if path not in shapes],
        "wrong shape": [
            f"{path} is {array.shape}, not {shapes[path]}"
            for path, array in flat.items()
            if shapes.get(path, array.shape) != array.shape
        ],
    }
    if any(problems.values()):
        raise _complaint(f"the variables are not those of {name}", problems)
    return {leaf.names[0]: leaf.to_torch(np.asarray(flat[leaf.path])) for leaf in leaves}


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """An array of a network."""

    path: str
    """Path in the variables: "params/stage2/block1/conv1/kernel"."""
    shape: tuple[int, ...]
    """Shape in Flax."""
    names: tuple[str, ...]
    """Names in PyTorch, first that of the network's own dialect."""

    @property
    def is_head(self) -> bool:
        return self.path.startswith(_HEAD)

    @property
    def torch_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes that PyTorch may have, first that which is written."""
        if len(self.shape) < 2:
            return (self.shape,)
        *window, inputs, outputs = self.shape
        shape = (outputs, inputs, *window)
        if window:
            # A convolution over the whole map may be written as a linear layer of its pixels.
            return (shape, (outputs, inputs * math.prod(window)))
        # Except in the head, PyTorch's repositories write dense layers as 1x1 convolutions.
        shapes = (shape, (*shape, 1, 1))
        return shapes if self.is_head else shapes[::-1]

    def from_torch(self, array: np.ndarray) -> np.ndarray:
        """A copy in Flax's layout."""
        if len(self.shape) >= 2:
            *window, inputs, outputs = self.shape
            array = np.moveaxis(array.reshape(outputs, inputs, *window), (0, 1), (-1, -2))
        return np.array(array, np.float32, order="C")

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """A copy in PyTorch's layout."""
        if len(self.shape) >= 2:
            array = np.moveaxis(array, (-1, -2), (0, 1)).reshape(self.torch_shapes[0])
        return np.array(array, np.float32, order="C")


Problems = dict[str, list[str]]
"""What does not fit, by kind."""


def _match(
    leaves: Iterable[_Leaf], source: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], Problems]:
    """Lays named arrays over leaves; gives those that fit, by path, and the problems."""
    leaf_of = {name: leaf for leaf in leaves for name in leaf.names}
    arrays: dict[str, np.ndarray] = {}
    left_over, wrong_shape, wrong_dtype = [], [], []
    key_of: dict[str, str] = {}
    for key, array in source.items():
        leaf = leaf_of.get(key)
        if leaf is None:
            left_over.append(key)
            continue
        if leaf.path in key_of:
            left_over.append(f"{key} (the same as {key_of[leaf.path]})")
            continue
        key_of[leaf.path] = key
        if not jnp.issubdtype(array.dtype, jnp.floating):
            wrong_dtype.append(f"{key} is {array.dtype}, not floating")
        elif array.shape not in leaf.torch_shapes:
            wrong_shape.append(f"{key} is {array.shape}, not {leaf.torch_shapes[0]}")
        else:
            arrays[leaf.path] = array
    missing = [
        f"{leaf.names[0]} {leaf.torch_shapes[0]}" for leaf in leaves if leaf.path not in key_of
    ]
    problems = {
        "missing": missing,
        "left over": left_over,
        "wrong shape": wrong_shape,
        "wrong dtype": wrong_dtype,
    }
    return arrays, problems if any(problems.values()) else {}


def _complaint(subject: str, problems: Problems, advice: Iterable[str] = ()) -> UsageError:
    lines = [f"{subject}:"]
    for kind, found in problems.items():
        if not found:
            continue
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        lines.append(f"  {kind} ({len(found)}): {', '.join(found[:_SHOWN])}{more}")
    return UsageError("\n".join([*lines, *advice]))


def _numpy(value: Any) -> np.ndarray:
    """A NumPy array of an array or a PyTorch tensor, which may require a gradient."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # NumPy has no bfloat16 of PyTorch's.
        value = value.float() if value.is_floating_point() else value
    return np.asarray(value)


def _clean(state_dict: Mapping[str, Any], unused: Iterable[str]) -> dict[str, np.ndarray]:
    """NumPy arrays without the prefix of ``DataParallel`` and without what Flax does not keep.

    Args:
        state_dict: What the user gave.
        unused: Modules that the network here does without.
    """
    prefix = "module." if all(key.startswith("module.") for key in state_dict) else ""
    left_out = tuple(f"{prefix}{module}." for module in unused)
    return {
        key.removeprefix(prefix): _numpy(value)
        for key, value in state_dict.items()
        if not (key.endswith(_IGNORED) or key.startswith(left_out))
    }


def _leaves(name: str, model: nn.Module, channels: int) -> list[_Leaf]:
    """The arrays of a network, in the order of their paths."""
    shapes = traverse_util.flatten_dict(
        jax.eval_shape(*_initialiser(name, model, channels)), sep="/"
    )
    ways = namings(name, model)
    leaves = []
    for path, leaf in shapes.items():
        _, _, inner = path.partition("/")
        module, _, last = inner.rpartition("/")
        spelt = (f"{naming(module)}.{_LEAVES[last]}" for naming in ways)
        leaves.append(_Leaf(path, leaf.shape, tuple(dict.fromkeys(spelt))))
    return leaves


def _initialiser(
    name: str, model: nn.Module, channels: int
) -> tuple[Callable[[jax.Array], dict[str, Any]], jax.Array]:
    """A function that initialises a network, and its key."""
    size = find(name).input_size

    def init(key: jax.Array) -> dict[str, Any]:
        return dict(model.init(key, jnp.zeros((1, size, size, channels)), train=False))

    return init, jax.random.key(0)


def _fresh_head(name: str, model: nn.Module, channels: int) -> dict[str, np.ndarray]:
    init, key = _initialiser(name, model, channels)

    @jax.jit  # which leaves out all that the head does not need
    def head(key: jax.Array) -> dict[str, Any]:
        return init(key)["params"].get("head", {})

    return {f"{_HEAD}{leaf}": np.asarray(array) for leaf, array in head(key).items()}


def _headless(
    name: str, model: nn.Module, leaves: Iterable[_Leaf], source: Mapping[str, np.ndarray]
) -> tuple[list[_Leaf], dict[str, np.ndarray]]:
    """The leaves and the entries without those of the classifier, which either may lack."""
    # Without a classifier of its own the network has no use for any part of the source's.
    modules = model.head_modules if getattr(model, "features_only", False) else ("head",)
    heads = {
        f"{naming(module)}.{leaf}"
        for naming in namings(name, model)
        for module in modules
        for leaf in ("weight", "bias")
    }
    return (
        [leaf for leaf in leaves if not leaf.is_head],
        {key: value for key, value in source.items() if key not in heads},
    )


def _advice(
    name: str,
    model: nn.Module,
    leaves: Iterable[_Leaf],
    source: Mapping[str, np.ndarray],
    channels: int,
) -> list[str]:
    """What the user may do about arrays that do not fit."""
    body_leaves, body = _headless(name, model, leaves, source)
    head_leaves = [leaf for leaf in leaves if leaf.is_head]
    head = {key: value for key, value in source.items() if key not in body}
    advice = []
    fits_but_head = not _match(body_leaves, body)[1]
    if (head or fits_but_head) and _match(head_leaves, head)[1]:
        classes = [len(value) for key, value in head.items() if key.endswith("bias") and value.ndim]
        keep = "".join(f", num_classes={number} keeps the one given" for number in classes)
        advice.append(f"Of the head: drop_head=True (--drop-head) starts a fresh one{keep}.")
    likely = [] if fits_but_head else _likely(body, channels)
    if likely and name not in likely:
        advice.append(f"Of the model: these are the shapes of {' or '.join(likely)}.")
    return advice


def _likely(source: Mapping[str, np.ndarray], channels: int) -> list[str]:
    """Networks of the zoo with the blocks, the stem and the first block of a headless source."""
    found = (re.match(r"layer(\d+)\.(\d+)\.", key) for key in source)
    counts = collections.Counter(stage for stage, _ in {match.groups() for match in found if match})
    blocks = tuple(count for _, count in sorted(counts.items()))
    bottleneck = any(key.startswith("layer1.0.conv3.") for key in source)
    rest = re.compile(r"layer(?!1\.0\.|0)")
    first = {key: array for key, array in source.items() if not rest.match(key)}
    likely = []
    for name, entry in ZOO.items():
        model = entry.build()
        if isinstance(model, ResNet) and (model.blocks, model.bottleneck) == (blocks, bottleneck):
            # Tracing whole networks would take the user a minute.
            short = entry.build(blocks=(1,), widths=model.widths[:1])
            if not _match([x for x in _leaves(name, short, channels) if not x.is_head], first)[1]:
                likely.append(name)
    return likely
