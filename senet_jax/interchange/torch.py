"""State dicts of PyTorch models to Flax variables and back, exactly."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from senet_jax.errors import UsageError
from senet_jax.interchange.naming import detection, namings, training_only
from senet_jax.interchange.naming.rules import BACKBONE
from senet_jax.interchange.state_dict import bare_name, is_no_weight, network_name
from senet_jax.models.detection.rcnn import FasterRCNN
from senet_jax.models.resnet import ResNet
from senet_jax.models.zoo import CLASSIFIERS, Composed, Network, backbone_name, create_model, find
from senet_jax.ops.precision import accurate
from senet_jax.text import printable

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_SHOWN = 6
"""Entries of each kind that an error lists; a wrong model would list hundreds."""
_LONGEST = 100
"""Characters of a name that an error shows."""


class MisfitError(UsageError):
    """Weights that do not fit a network.

    Attributes:
        problems: The entries that do not fit, by kind, and the likely network; several lines.
        head_classes: If it is the classifier that does not fit, the numbers of classes of the
            weights' own, which may have none; else None.
    """

    def __init__(self, problems: str, head_classes: tuple[int, ...] | None = None) -> None:
        """Makes the message, with the advice for a caller in Python."""
        self.problems = problems
        self.head_classes = head_classes
        super().__init__(self.advise("drop_head=True", "num_classes="))

    def of(self, source: str) -> "MisfitError":
        """The same error, which names the file or repository of the weights."""
        return MisfitError(f"{source}: {self.problems}", self.head_classes)

    def advise(self, drop_head: str | None, num_classes: str | None) -> str:
        """The message, with the advice about the classifier that its reader can follow.

        Args:
            drop_head: The argument or flag that starts a fresh classifier; None if there is none.
            num_classes: That which sets the number of classes, up to the number; None likewise.
        """
        if self.head_classes is None:
            return self.problems
        advice = [f"{drop_head} starts a fresh one"] if drop_head else []
        if num_classes:
            advice += [f"{num_classes}{number} keeps the one given" for number in self.head_classes]
        return f"{self.problems}\nAbout the head: {', '.join(advice)}." if advice else self.problems


def from_torch(
    name: str,
    state_dict: Mapping[str, Any],
    *,
    drop_head: bool = False,
    channels: int = 3,
    **fields: Any,
) -> dict[str, Any]:
    """Flax variables of a network from the state dict of its PyTorch twin.

    Names may be timm's, torchvision's, the official ResNeSt's, Cadene's or the common CIFAR ones,
    those of a network of semantic segmentation torchvision's or of ResNeSt's authors, those of a
    detector torchvision's of now or of its first files (:mod:`senet_jax.interchange.naming`).
    Prefixes of modules that the network was inside, such as ``module.`` or ``_orig_mod.model.``
    (``state_dict.PREFIXES``), are taken away from each name that only then is one of the network's.
    Names do not tell a ``legacy_seresnet50`` from a ``seresnet50``, which has the same shapes and
    other strides: ``name`` must be right. What only training uses is ignored: counters
    (``state_dict.NO_WEIGHTS``) and auxiliary classifiers that the network lacks (Inception-v3's
    ``AuxLogits``).

    Args:
        name: Name in the zoo.
        state_dict: Arrays by name: NumPy's, JAX's or PyTorch's, of any floating precision.
        drop_head: Ignore the classifier and start a fresh one, drawn with ``jax.random.key(0)``. In
            a network of segmentation or detection that is the last layer of each head; weights of a
            classifier, which have nothing of its heads, become those of its backbone, and the heads
            are fresh.
        channels: Channels of the images.
        **fields: Fields of the network that differ from the named one's (``num_classes=10``).

    Returns:
        ``params`` and ``batch_stats`` as nested dictionaries of float32 NumPy arrays.

    Raises:
        UsageError: An unknown name or field.
        MisfitError: Entries that are missing, left over, twice there, or of a wrong shape or
            dtype, all listed in the one error.
    """
    model = create_model(name, **fields)
    leaves = _leaves(name, model, channels)
    if isinstance(model, Composed) and not _has_heads(leaves, state_dict):
        return _from_classifier(name, model, state_dict, drop_head, channels)
    source = _entries(state_dict, _names(name, model, leaves), training_only(model))
    if drop_head:
        leaves, source = _headless(name, model, leaves, source)
    arrays, problems = _match(leaves, source)
    if problems:
        raise _misfit(name, model, leaves, source, channels, problems)
    flat = {leaf.path: leaf.from_torch(arrays[leaf.path]) for leaf in leaves}
    if drop_head:
        flat |= _fresh(name, model, channels, _of_classifier(model))
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
        Float32 arrays, float64 for variables of float64, by timm's names, by Cadene's or the common
        CIFAR ones where those publish the network, and by our own where nobody does
        (``interchange.naming``). There is no ``num_batches_tracked``, which PyTorch does without.

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
        raise UsageError(_complaint(f"the variables are not those of {name}", problems))
    return {leaf.names[0]: leaf.to_torch(np.asarray(flat[leaf.path])) for leaf in leaves}


def _has_heads(leaves: Iterable["_Leaf"], state_dict: Mapping[str, Any]) -> bool:
    """Says if a state dict has a classifier of a composed network."""
    names = {name for leaf in leaves if leaf.is_head for name in leaf.names}
    return any(network_name(str(key), names) for key in state_dict)


def _from_classifier(
    name: str, model: Composed, state_dict: Mapping[str, Any], drop_head: bool, channels: int
) -> dict[str, Any]:
    """Variables of a network whose backbone has the weights of a classifier, with fresh heads.

    Raises:
        MisfitError: The weights do not fit the backbone, or fresh heads are not asked for.
    """
    backbone = backbone_name(name), model.backbone
    leaves = _leaves(*backbone, channels)
    source = _entries(state_dict, _names(*backbone, leaves), ())
    leaves, source = _headless(*backbone, leaves, source)
    arrays, problems = _match(leaves, source)
    if problems:
        raise _misfit(*backbone, leaves, source, channels, problems)
    if not drop_head:
        raise MisfitError(f"the weights fit the backbone of {name} and have none of its heads.", ())
    flat = {
        leaf.path.replace("/", f"/{BACKBONE}", 1): leaf.from_torch(arrays[leaf.path])
        for leaf in leaves
    }
    flat |= _fresh(name, model, channels, lambda path: not _of_backbone(path))
    return traverse_util.unflatten_dict(flat, sep="/")


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """An array of a network."""

    path: str
    """Path in the variables: "params/stage2/block1/conv1/kernel"."""
    shape: tuple[int, ...]
    """Shape in Flax."""
    names: tuple[str, ...]
    """Names in PyTorch, first that of the network's own dialect."""
    is_head: bool
    """It is part of a classifier, whose shape depends on the number of classes."""
    flat: bool = False
    """PyTorch writes it with two axes."""
    transposed: bool = False
    """PyTorch writes its inputs before its outputs."""

    @property
    def torch_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes that PyTorch may have, first that which is written."""
        if len(self.shape) < 2:
            return (self.shape,)
        *window, inputs, outputs = self.shape
        shape = (outputs, inputs, *window)
        if self.flat:
            return ((outputs, inputs * math.prod(window)),)
        if self.transposed:
            return ((inputs, outputs, *window),)
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
            if self.transposed:
                array = np.swapaxes(array, 0, 1)
            array = np.moveaxis(array.reshape(outputs, inputs, *window), (0, 1), (-1, -2))
        return np.array(array, np.float32, order="C")

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """A copy in PyTorch's layout."""
        if len(self.shape) >= 2:
            array = np.moveaxis(array, (-1, -2), (0, 1))
            if self.transposed:
                array = np.swapaxes(array, 0, 1)
            array = array.reshape(self.torch_shapes[0])
        return np.array(array, accurate(array.dtype), order="C")


@dataclasses.dataclass(frozen=True)
class _Entry:
    """An array of a state dict."""

    key: str
    """Name in the state dict."""
    name: str
    """Name in the network; if the network has none such, the key without prefixes."""
    value: Any
    """An array of NumPy or JAX, a tensor of PyTorch, or anything else that does not fit."""


Problems = dict[str, list[str]]
"""The entries that do not fit, by kind."""


def _match(
    leaves: Iterable[_Leaf], source: Iterable[_Entry]
) -> tuple[dict[str, np.ndarray], Problems]:
    """Lays named arrays over leaves; gives those that fit, by path, and the problems."""
    leaf_of = {name: leaf for leaf in leaves for name in leaf.names}
    arrays: dict[str, np.ndarray] = {}
    left_over, wrong_shape, wrong_dtype, not_finite = [], [], [], []
    key_of: dict[str, str] = {}
    for entry in source:
        key, value = _short(entry.key), entry.value
        leaf = leaf_of.get(entry.name)
        if leaf is None:
            left_over.append(key)
            continue
        if leaf.path in key_of:
            left_over.append(f"{key} (the same as {key_of[leaf.path]})")
            continue
        key_of[leaf.path] = key
        if unfit := _unfit(value):
            wrong_dtype.append(f"{key} is {unfit}")
        elif tuple(value.shape) not in leaf.torch_shapes:
            wrong_shape.append(f"{key} is {tuple(value.shape)}, not {leaf.torch_shapes[0]}")
        else:
            arrays[leaf.path] = _numpy(value)
            with np.errstate(over="ignore"):  # Larger than float32 takes is infinite there.
                if not np.isfinite(arrays[leaf.path].astype(np.float32)).all():
                    not_finite.append(key)
    missing = [
        f"{leaf.names[0]} {leaf.torch_shapes[0]}" for leaf in leaves if leaf.path not in key_of
    ]
    problems = {
        "missing": missing,
        "left over": left_over,
        "wrong shape": wrong_shape,
        "wrong dtype": wrong_dtype,
        "not finite in float32": not_finite,
    }
    return arrays, problems if any(problems.values()) else {}


def _complaint(subject: str, problems: Problems) -> str:
    lines = [f"{subject}:"]
    for kind, found in problems.items():
        if not found:
            continue
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        lines.append(f"  {kind} ({len(found)}): {', '.join(found[:_SHOWN])}{more}")
    return "\n".join(lines)


def _short(key: str) -> str:
    key = printable(key)
    return key if len(key) <= _LONGEST else f"{key[:_LONGEST]}..."


def _unfit(value: Any) -> str | None:
    """The kind of a value that is no dense array of floating numbers; None of one that is."""
    # Ask the type: the shape of a nested tensor raises.
    if not (hasattr(type(value), "shape") and hasattr(type(value), "dtype")):
        return f"a {type(value).__name__}, not an array"
    if hasattr(value, "detach"):
        for kind in ("is_nested", "is_sparse", "is_sparse_csr", "is_quantized", "is_meta"):
            if getattr(value, kind):
                return f"a {kind.split('_')[1]} tensor, not a dense one with data"
        if "strided" not in str(value.layout):
            return f"of layout {value.layout}, not dense"
        return None if value.is_floating_point() else f"{value.dtype}, not floating"
    return None if jnp.issubdtype(value.dtype, jnp.floating) else f"{value.dtype}, not floating"


def _numpy(value: Any) -> np.ndarray:
    """A NumPy array of an array or a PyTorch tensor, which may require a gradient."""
    if hasattr(value, "detach"):
        # NumPy has no bfloat16 of PyTorch's, and does not read tensors that are negated lazily.
        value = value.detach().cpu().float().resolve_neg()
    return np.asarray(value)


def _entries(
    state_dict: Mapping[str, Any], names: Collection[str], unused: Iterable[str]
) -> list[_Entry]:
    """The arrays of a state dict by their names in the network.

    Args:
        state_dict: The user's.
        names: All names that the network has.
        unused: Modules that the network here does without.
    """
    entries = []
    left_out = tuple(f"{module}." for module in unused)
    for key, value in ((str(key), value) for key, value in state_dict.items()):
        name = network_name(key, names)
        if name is not None:
            entries.append(_Entry(key, name, value))
        elif not (is_no_weight(key) or bare_name(key).startswith(left_out)):
            entries.append(_Entry(key, bare_name(key), value))
    return entries


def _names(name: str, model: Network, leaves: Iterable[_Leaf]) -> set[str]:
    """The names of the arrays of a network, and of a classifier that it may do without."""
    return {each for leaf in leaves for each in leaf.names} | _head_names(name, model)


def _leaves(name: str, model: Network, channels: int) -> list[_Leaf]:
    """The arrays of a network, in the order of their paths."""
    shapes = _shapes(model, find(name).input_size, channels)
    ways, of_classifier = namings(name, model), _of_classifier(model)
    detector = isinstance(model, FasterRCNN)
    leaves = []
    for path, leaf in shapes.items():
        _, _, inner = path.partition("/")
        module, _, last = inner.rpartition("/")
        spelt = (f"{naming(module)}.{_LEAVES[last]}" for naming in ways)
        names = tuple(dict.fromkeys(spelt))
        flat = detector and bool(detection.FLAT.fullmatch(path))
        transposed = detector and bool(detection.TRANSPOSED.fullmatch(path))
        leaves.append(_Leaf(path, leaf.shape, names, of_classifier(path), flat, transposed))
    return leaves


# A network is traced once for both directions.
@functools.lru_cache(maxsize=16)
def _shapes(model: Network, size: int, channels: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the variables of a network by their paths."""
    shapes = jax.eval_shape(*_initialiser(model, size, channels))
    flat: dict[str, jax.ShapeDtypeStruct] = traverse_util.flatten_dict(shapes, sep="/")
    return flat


def _initialiser(
    model: Network, size: int, channels: int
) -> tuple[Callable[[jax.Array], dict[str, Any]], jax.Array]:
    """A function that initialises a network, and its key."""

    def init(key: jax.Array) -> dict[str, Any]:
        return dict(model.init(key, jnp.zeros((1, size, size, channels)), train=False))

    return init, jax.random.key(0)


def _fresh(
    name: str, model: Network, channels: int, wanted: Callable[[str], bool]
) -> dict[str, np.ndarray]:
    """Freshly drawn variables of a network by their paths, those whose paths are wanted."""
    init, key = _initialiser(model, find(name).input_size, channels)

    @jax.jit  # which leaves out all that the others need
    def draw(key: jax.Array) -> dict[str, jax.Array]:
        flat = traverse_util.flatten_dict(init(key), sep="/")
        return {path: leaf for path, leaf in flat.items() if wanted(path)}

    return {path: np.asarray(array) for path, array in draw(key).items()}


def _of_classifier(model: Network) -> Callable[[str], bool]:
    """Tells the paths of the variables of a network's classifiers."""
    starts = tuple(f"params/{module}/" for module in _classifiers(model))
    return lambda path: path.startswith(starts)


def _of_backbone(path: str) -> bool:
    """Tells the paths of the variables of a composed network's backbone."""
    return path.partition("/")[2].startswith(BACKBONE)


def _classifiers(model: Network) -> Sequence[str]:
    """The modules of a network whose outputs are logits."""
    return model.classifiers if isinstance(model, Composed) else ("head",)


def _head_names(name: str, model: Network) -> set[str]:
    """The names that a classifier of the network has in any naming."""
    # Without a classifier of its own the network has no use for any part of the source's.
    bare = getattr(model, "features_only", False)
    modules = model.head_modules if bare else _classifiers(model)
    return {
        f"{naming(module)}.{leaf}"
        for naming in namings(name, model)
        for module in modules
        for leaf in ("weight", "bias")
    }


def _headless(
    name: str, model: Network, leaves: Iterable[_Leaf], source: Iterable[_Entry]
) -> tuple[list[_Leaf], list[_Entry]]:
    """The leaves and the entries without those of the classifier, which either may lack."""
    heads = _head_names(name, model)
    return (
        [leaf for leaf in leaves if not leaf.is_head],
        [entry for entry in source if entry.name not in heads],
    )


def _misfit(
    name: str,
    model: Network,
    leaves: Iterable[_Leaf],
    source: Sequence[_Entry],
    channels: int,
    problems: Problems,
) -> MisfitError:
    """The error about arrays that do not fit, with the likely reason."""
    body_leaves, body = _headless(name, model, leaves, source)
    head_leaves = [leaf for leaf in leaves if leaf.is_head]
    heads = _head_names(name, model)
    head = [entry for entry in source if entry.name in heads]
    fits_but_head = not _match(body_leaves, body)[1]
    classes = None
    if (head or fits_but_head) and _match(head_leaves, head)[1]:
        # A detector has four numbers of a box for each class besides.
        of_boxes = {n for leaf in leaves if "bbox_pred" in leaf.path for n in leaf.names}
        biases = (
            entry.value.shape[0]
            for entry in head
            if entry.name.endswith("bias")
            and entry.name not in of_boxes
            and not _unfit(entry.value)
            and len(entry.value.shape)
        )
        classes = tuple(dict.fromkeys(biases))
    text = _complaint(f"the weights do not fit {name}", problems)
    likely = [] if fits_but_head else _likely(body, channels)
    if likely and name not in likely:
        text += f"\nAbout the model: the weights have the shapes of {' or '.join(likely)}."
    return MisfitError(text, classes)


def _likely(source: Sequence[_Entry], channels: int) -> list[str]:
    """Classifiers of the zoo with the blocks, the stem and the first block of a headless source."""
    found = (re.match(r"layer(\d+)\.(\d+)\.", entry.name) for entry in source)
    counts = collections.Counter(stage for stage, _ in {match.groups() for match in found if match})
    blocks = tuple(count for _, count in sorted(counts.items()))
    bottleneck = any(entry.name.startswith("layer1.0.conv3.") for entry in source)
    rest = re.compile(r"layer(?!1\.0\.|0)")
    first = [entry for entry in source if not rest.match(entry.name)]
    likely = []
    for name, network in CLASSIFIERS.items():
        own = network.fields
        if network.family is ResNet and (own["blocks"], own["bottleneck"]) == (blocks, bottleneck):
            # Tracing whole networks would take the user a minute.
            short = network.build(blocks=(1,), widths=own["widths"][:1])
            if not _match([x for x in _leaves(name, short, channels) if not x.is_head], first)[1]:
                likely.append(name)
    return likely
