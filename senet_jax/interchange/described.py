"""The network that a file of weights says it is of: its name, and what differs from the named one.

Names and shapes of arrays do not tell a sigmoid from a tanh, or one placement from another. The
files that ``save_weights`` writes carry the config of the network beside the arrays; those of other
programs do not, and are taken for the named network's.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from senet_jax.config import ModelConfig
from senet_jax.errors import UsageError
from senet_jax.interchange import hub
from senet_jax.interchange.files import read_about
from senet_jax.models.configured import config_of
from senet_jax.models.zoo import find

KEY = "senet_jax.model"
"""The name of the text beside the arrays: a ModelConfig as JSON, without what is None."""


def description(name: str, fields: Mapping[str, Any]) -> dict[str, str]:
    """The text that says which network some weights are of.

    Args:
        name: Name in the zoo.
        fields: The fields in which the network differs from the named one.
    """
    config = config_of(name, fields)
    if config is None:
        return {KEY: json.dumps({"name": name, "attention": {"kind": OWN}})}
    values = dataclasses.asdict(config)
    attention = _given(values.pop("attention"))
    return {KEY: json.dumps(_given(values) | ({"attention": attention} if attention else {}))}


OWN = "own"
"""The kind of attention of a network that no config describes."""


def network_of(source: str | os.PathLike[str], name: str) -> ModelConfig:
    """The config of the network that a file of weights is of.

    Args:
        source: A file, or "hf-hub:owner/repository".
        name: The name that the user gives it.

    Returns:
        What the file says; for a file that says nothing, the named network.

    Raises:
        UsageError: An unknown name; the file cannot be read, or says another name, or a network
            that this version does not have or no config describes.
    """
    find(name)
    text = read_about(hub.local(source)).get(KEY)
    if text is None:
        return ModelConfig(name=name)
    import dacite

    try:
        values = json.loads(text)
        own = values.get("attention", {}).get("kind") == OWN
        settings = dacite.Config(strict=True, cast=[tuple])
        config = None if own else dacite.from_dict(ModelConfig, values, settings)
    except (dacite.DaciteError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"{source} describes no network of this version: {error}.") from error
    if config is None:
        raise UsageError(
            f"{source} is of a network with parts of a script's own, which no config describes: "
            "load it there (load_weights)."
        )
    if config.name != name:
        raise UsageError(f"{source} has the weights of {config.name}: give --model {config.name}.")
    return config


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
