"""Weights of a network from wherever they are, and into a file."""

import os
from collections.abc import Mapping
from typing import Any

from senet_jax.interchange import hub
from senet_jax.interchange.described import description
from senet_jax.interchange.files import load_arrays, save_arrays
from senet_jax.interchange.state_dict import WeightsOf
from senet_jax.interchange.torch import MisfitError, from_torch, to_torch
from senet_jax.models.zoo import find


def load_weights(
    source: str | os.PathLike[str],
    name: str,
    *,
    drop_head: bool = False,
    weights_of: WeightsOf = "auto",
    channels: int = 3,
    **fields: Any,
) -> dict[str, Any]:
    """Variables of a network from a file or the hub, in any naming of :func:`from_torch`.

    Args:
        source: A file that ``load_arrays`` reads, or "hf-hub:owner/repository".
        name: Name in the zoo.
        drop_head: Ignore the classifier and start a fresh one.
        weights_of: As in ``load_arrays``.
        channels: Channels of the images.
        **fields: Fields of the network that differ from the named one's.

    Returns:
        ``params`` and ``batch_stats`` as nested dictionaries of float32 NumPy arrays.

    Raises:
        UsageError: An unknown name; or the source cannot be had or read.
        MisfitError: The source does not fit; the message names it.
    """
    find(name)
    arrays = load_arrays(hub.local(source), weights_of=weights_of)
    try:
        return from_torch(name, arrays, drop_head=drop_head, channels=channels, **fields)
    except MisfitError as error:
        raise error.of(str(source)) from error


def save_weights(
    path: str | os.PathLike[str],
    name: str,
    variables: Mapping[str, Any],
    *,
    channels: int = 3,
    **fields: Any,
) -> None:
    """Writes the variables of a network in PyTorch's names and layouts, and its config beside them.

    Args:
        path: A .safetensors or .npz file; one that exists is replaced.
        name: Name in the zoo.
        variables: ``params`` and ``batch_stats`` of the network.
        channels: Channels of the images.
        **fields: Fields of the network that differ from the named one's.

    Raises:
        UsageError: A file of another kind, or variables that are not those of the network.
    """
    arrays = to_torch(name, variables, channels=channels, **fields)
    save_arrays(path, arrays, description(name, fields))
