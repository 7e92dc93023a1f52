"""State dicts as PyTorch's users save them: under keys, beside averages, with prefixes."""

import dataclasses
import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from senet_jax.errors import UsageError, choose

LOGGER = logging.getLogger(__name__)

WeightsOf = Literal["auto", "average", "raw"]
"""The weights to take of a training checkpoint: the moving average, or those that the optimizer
updated; "auto" takes the average if there is one, as timm does."""

CHOICES: tuple[WeightsOf, ...] = ("auto", "average", "raw")

RAW = ("state_dict", "model_state_dict", "model", "net", "network")
"""Keys under which training scripts keep the weights beside the optimizer's state."""

AVERAGED = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_state_dict_ema",
    "model_ema_state_dict",
    "ema_model",
    "ema",
)
"""Keys under which they keep the moving average of the weights."""

AVERAGED_PREFIXES = ("model_ema", "ema_model")
"""Names of the averaged network in a module that holds the raw one too. A network may have a
module of its own by the name of "ema"."""

PREFIXES = ("module", "_orig_mod", "model", "online_model", "backbone", "net", "network")
"""Names that a network has inside DataParallel, ``torch.compile``, SWA's AveragedModel, Lightning
and modules of one's own."""

INNER = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Names that wrappers of a part of a network put into the middle of a key."""

NO_WEIGHTS = (
    "num_batches_tracked",
    "n_averaged",
    "total_ops",
    "total_params",
    "initted",
    "num_updates",
    "step",
)
"""Last parts of keys that are no weights: counters of batch norms, of AveragedModel and of other
averages, and the counts that the package thop leaves in a model."""

_DEPTH = 4
"""Keys above a state dict at most; a damaged checkpoint may contain itself."""


@dataclasses.dataclass(frozen=True)
class _Found:
    """A state dict in a checkpoint."""

    place: str
    """The keys above it, as "'model'"; empty for the content of the file itself."""
    averaged: bool
    arrays: Mapping[str, Any]


def take_weights(content: Any, weights_of: WeightsOf, source: str) -> dict[str, Any]:
    """Takes the weights out of the content of a checkpoint.

    If the average is taken because there is one, a line of the log says so.

    Args:
        content: The unpickled file: a state dict, alone or under keys, beside other values.
        weights_of: The weights to take.
        source: Name of the file, for messages.

    Raises:
        UsageError: There is no state dict, or not the one that is asked for.
    """
    choose("choice of weights", weights_of, CHOICES)
    found = list(_state_dicts(content, _DEPTH))
    average = next((one for one in found if one.averaged), None)
    raw = next((one for one in found if not one.averaged), None)
    if not found:
        raise UsageError(
            f"{source} holds no state dict (arrays by name), alone or under "
            f"{', '.join(map(repr, RAW))} or, averaged, {', '.join(map(repr, AVERAGED))}."
        )
    if weights_of == "raw":
        taken, missing = raw, "weights besides their moving average"
    elif weights_of == "average":
        taken, missing = average, "moving average of its weights"
    else:
        taken, missing = average or raw, ""
    if taken is None:
        places = " and ".join(one.place or "its content" for one in found)
        raise UsageError(
            f"{source} has no {missing}: there is {places}; leave --weights-of (weights_of) out."
        )
    if weights_of == "auto" and taken is average:
        other = "" if raw is None else " --weights-of raw takes the others."
        LOGGER.warning(
            "%s: took the moving average of the weights%s.%s",
            source,
            taken.place and f" ({taken.place})",
            other,
        )
    return dict(taken.arrays)


def _state_dicts(content: Any, depth: int) -> Iterator[_Found]:
    """The state dicts of a checkpoint, the usual keys first."""
    if not isinstance(content, Mapping) or not depth:
        return
    if _is_state_dict(content):
        yield from _parted(content)
        return
    for keys, averaged in ((RAW, False), (AVERAGED, True)):
        for key in keys:
            for inner in _state_dicts(content.get(key), depth - 1):
                place = f"{key!r}{' / ' if inner.place else ''}{inner.place}"
                yield _Found(place, averaged or inner.averaged, inner.arrays)


def _parted(content: Mapping[str, Any]) -> Iterator[_Found]:
    """A state dict, in which the averaged network may stand beside the raw one by a prefix."""
    for prefix in AVERAGED_PREFIXES:
        inside = {
            key.removeprefix(f"{prefix}."): array
            for key, array in content.items()
            if key.startswith(f"{prefix}.")
        }
        if inside:
            others = {key: array for key, array in content.items() if not key.startswith(prefix)}
            if not all(map(is_no_weight, others)):
                yield _Found("", False, others)
            yield _Found(f"'{prefix}.*'", True, inside)
            return
    yield _Found("", any(_last(key) == "n_averaged" for key in content), content)


def _is_state_dict(content: Mapping[Any, Any]) -> bool:
    # Ask the type: the shape of a nested tensor raises.
    return bool(content) and all(
        isinstance(key, str) and hasattr(type(value), "shape") for key, value in content.items()
    )


def network_name(key: str, names: Collection[str]) -> str | None:
    """The name of an array in its network, without the prefixes of what the network was inside.

    Args:
        key: Name in a state dict.
        names: The names that the network has. One that begins like a prefix is left as it is.

    Returns:
        One of ``names``; None if the key is none of them, with or without prefixes.
    """
    inner = ".".join(part for part in key.split(".") if part not in INNER)
    for candidate in (key, inner):
        for name in _shortened(candidate):
            if name in names:
                return name
    return None


def bare_name(key: str) -> str:
    """The key without any prefix, for an array that the network does not have."""
    return list(_shortened(key))[-1]


def is_no_weight(key: str) -> bool:
    """Tells counters, which state dicts have beside the weights."""
    return _last(key) in NO_WEIGHTS


def _shortened(key: str) -> Iterator[str]:
    """The key, and what is left of it when its prefixes are taken away one by one."""
    yield key
    while True:
        first, _, key = key.partition(".")
        if first not in PREFIXES or not key:
            return
        yield key


def _last(key: str) -> str:
    return key.rpartition(".")[2]
