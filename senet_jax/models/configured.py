"""From the model's config to a module."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax.numpy as jnp

from senet_jax.attention import ATTENTIONS, Mechanism
from senet_jax.config import AttentionOverrides, ModelConfig, TrainConfig
from senet_jax.errors import UsageError, choose
from senet_jax.models import zoo
from senet_jax.ranges import check_config, range_of


def build_model(config: ModelConfig, num_classes: int) -> zoo.Network:
    """Builds the network that a config describes, with ``num_classes`` logits.

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
    check_config(config, "model.")
    fields: dict[str, Any] = {"num_classes": num_classes, "dtype": jnp.dtype(config.dtype)}
    fields |= _given(config, besides=("name", "dtype", "attention"))
    zoo.check_fields(config.name, fields)
    own: Mechanism | None = zoo.find(config.name).fields["attention"]
    attention = _override(own, config.attention, config.name)
    if attention != own:
        fields["attention"] = attention
    if attention is None and (config.placement is not None or config.stages is not None):
        raise UsageError(f"{config.name} has no attention to place: {_ADD}.")
    return fields


def config_of(name: str, fields: Mapping[str, Any]) -> ModelConfig | None:
    """The inverse of ``model_fields``, but for the precision and the number of logits.

    Args:
        name: Name in the zoo.
        fields: The fields in which the network differs from the named one.

    Returns:
        Its config; None if no config describes it, such as with an attention of a script's own.

    Raises:
        UsageError: An unknown name.
    """
    fields = {field: x for field, x in fields.items() if field not in _NOT_OF_A_CONFIG}
    others = {field: x for field, x in fields.items() if field != "attention"}
    own = zoo.find(name).fields
    for overrides in _overrides_for(own["attention"], fields.get("attention", own["attention"])):
        try:
            config = ModelConfig(name=name, attention=overrides, **others)
            found = model_fields(config, 1)
        except (TypeError, UsageError):
            continue
        wanted = own | fields
        if all((own | found)[each] == wanted[each] for each in {*wanted} - {*_NOT_OF_A_CONFIG}):
            return config
    return None


def _overrides_for(own: Mechanism | None, wanted: Mechanism | None) -> Iterator[AttentionOverrides]:
    """Overrides that may make one attention of another, those that say least first."""
    if wanted == own:
        yield AttentionOverrides()
    elif wanted is None:
        yield AttentionOverrides(kind="none")
    elif kind := _kind_of(wanted):
        starts: list[tuple[Any, Any]] = [(kind, ATTENTIONS[kind]())]
        if type(own) is type(wanted):
            starts = [(None, own), *starts]
        for given, start in starts:
            changed = {field: x for field, x in vars(wanted).items() if x != getattr(start, field)}
            yield AttentionOverrides(kind=given, **changed)


def _kind_of(attention: Mechanism) -> Any:
    """The name of a mechanism among ``ATTENTIONS``; None for a script's own."""
    return next((kind for kind, each in ATTENTIONS.items() if type(attention) is each), None)


def changes_of_attention(config: ModelConfig) -> str:
    """The flags that change the attention of the named network, behind its name; "" if none does.

    Example:
        >>> changes_of_attention(ModelConfig(attention=AttentionOverrides(gate="tanh")))
        ' with attention.gate tanh'
    """
    given = {f"attention.{field}": x for field, x in _given(config.attention, besides=()).items()}
    others = _given(config, besides=("name", "dtype", "attention"))
    given |= {field: others[field] for field in ("placement", "stages") if field in others}
    shown = [f"{field} {_shown(value)}" for field, value in given.items()]
    return f" with {', '.join(shown)}" if shown else ""


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


_NOT_OF_A_CONFIG = ("num_classes", "dtype", "remat")
"""Fields that a data set decides, or that change no result but its rounding."""


_ADD = "give it one with --model.attention.kind se, or take a network that has one"


def _given(config: Any, besides: Collection[str]) -> dict[str, Any]:
    """The values of the fields that are not None."""
    names = [field.name for field in dataclasses.fields(config) if field.name not in besides]
    return {name: value for name in names if (value := getattr(config, name)) is not None}


def _override(own: Mechanism | None, overrides: AttentionOverrides, model: str) -> Mechanism | None:
    changes = _given(overrides, besides=("kind",))
    if overrides.kind == "none":
        own = None
    elif overrides.kind is not None:
        own = ATTENTIONS[overrides.kind]()
    if own is None:
        if changes:
            raise UsageError(f"{model} has no attention whose {min(changes)} could change: {_ADD}.")
        return None
    valid = [field.name for field in dataclasses.fields(own)]
    for field in changes:
        choose(f"field of the attention {_kind_of(own) or type(own).__name__}", field, valid)
        row = range_of(type(own), field)
        if row and row.whole and isinstance(changes[field], float) and changes[field].is_integer():
            changes[field] = int(changes[field])  # A config has one type for all mechanisms.
    return dataclasses.replace(own, **changes)
