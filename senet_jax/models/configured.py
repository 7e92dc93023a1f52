"""From the model's config to a module."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from senet_jax.attention import ATTENTIONS, Mechanism
from senet_jax.config import AttentionOverrides, ModelConfig, TrainConfig
from senet_jax.errors import UsageError, choose
from senet_jax.models import zoo
from senet_jax.ranges import range_of


def build_model(config: ModelConfig, num_classes: int) -> nn.Module:
    """Builds the network that a config describes, with so many logits.

    Raises:
        UsageError: As ``model_fields``.
    """
    return zoo.create_model(config.name, **model_fields(config, num_classes))


def image_side(config: TrainConfig) -> int:
    """Side of the images, pixels: the config's, or that which the network was published for."""
    return config.data.image_size or zoo.find(config.model.name).input_size


def model_fields(config: ModelConfig, num_classes: int) -> dict[str, Any]:
    """The fields in which a config's network differs from the named one.

    Args:
        config: The named network and what differs from it.
        num_classes: Number of logits.

    Raises:
        UsageError: An unknown name, or a choice that the network or its attention does not have.
    """
    fields: dict[str, Any] = {"num_classes": num_classes, "dtype": jnp.dtype(config.dtype)}
    defaults = {field.name: field.default for field in dataclasses.fields(ModelConfig)}
    for name in _PASSED_ON:
        if getattr(config, name) != defaults[name]:
            fields[name] = getattr(config, name)
    own: Mechanism | None = getattr(zoo.create_model(config.name), "attention", None)
    attention = _override(own, config.attention, config.name)
    if attention != own:
        fields["attention"] = attention
    if attention is None and (config.placement is not None or config.stages is not None):
        raise UsageError(f"{config.name} has no attention to place: {_ADD}.")
    return fields


_PASSED_ON = (
    "placement",
    "stages",
    "shortcut",
    "residual",
    "blocks",
    "widths",
    "fc_width",
    "stem",
    "bottleneck",
    "cardinality",
    "base_width",
    "stride_by",
    "growth_rate",
    "compression",
    "zero_init_last",
    "dropout",
    "stochastic_depth",
    "drop_block",
    "norm_group",
    "remat",
)
_ADD = "give it one with --model.attention.kind se, or take a network that has one"


def _override(own: Mechanism | None, overrides: AttentionOverrides, model: str) -> Mechanism | None:
    changes = {
        field: value
        for field, value in dataclasses.asdict(overrides).items()
        if value is not None and field != "kind"
    }
    if overrides.kind == "none":
        own = None
    elif overrides.kind is not None:
        own = ATTENTIONS[choose("attention", overrides.kind, [*ATTENTIONS, "none"])]()
    if own is None:
        if changes:
            raise UsageError(f"{model} has no attention whose {min(changes)} could change: {_ADD}.")
        return None
    valid = [field.name for field in dataclasses.fields(own)]
    for field in changes:
        choose(f"field of {type(own).__name__}", field, valid)
        row = range_of(type(own), field)
        if row and row.whole and isinstance(changes[field], float) and changes[field].is_integer():
            changes[field] = int(changes[field])  # A config has one type for all mechanisms.
    return dataclasses.replace(own, **changes)
