"""The papers' results for the configs of a study: from a config to a row of a table."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from flax import linen as nn

from senet_jax.analysis.study.detection_papers import DETECTORS
from senet_jax.analysis.study.papers import ABLATIONS, NETWORKS, Published, Recipe
from senet_jax.analysis.study.segmentation_papers import SEGMENTERS
from senet_jax.attention import SqueezeExciteConfig
from senet_jax.config import ModelConfig, TrainConfig
from senet_jax.models.configured import build_model
from senet_jax.models.resnet import ResNet
from senet_jax.models.zoo import find


def published(configs: Sequence[TrainConfig]) -> list[Published | None]:
    """A paper's results for configs that are compared with each other; None if it has none.

    Every paper trains in its own way, so that all figures are of one: of that whose tables have the
    most of the networks, trained on the same data. Configs that are one ResNet without attention
    and with several kinds of it are an ablation: the tables of SENet's section 6 have rows for no
    attention, for the SE of section 3 and for that with one field changed, of SE-ResNet-50 on
    ImageNet, whatever ResNet and data are here.
    """
    papers = dict.fromkeys(row.published.paper for row in _ROWS)
    choices = [[_network(config, paper) for config in configs] for paper in papers]
    networks = max(choices, key=_known)
    if len({_body(config.model) for config in configs}) > 1:
        return networks
    ablation = [_ablation(config.model) for config in configs]
    changed = [row for row in ablation if row not in (None, _PLAIN, _STANDARD)]
    if not changed or _known(ablation) <= _known(networks):
        return networks
    standard = dataclasses.replace(_STANDARD, table=min(row.table for row in changed if row))
    return [standard if row == _STANDARD else row for row in ablation]


_ROWS = (*NETWORKS, *SEGMENTERS, *DETECTORS)


def _known(rows: Sequence[Published | None]) -> int:
    return sum(row is not None for row in rows)


_PLAIN, _STANDARD = ABLATIONS["none", ""], ABLATIONS["standard", ""]


def _network(config: TrainConfig, paper: str) -> Published | None:
    augment, module = config.data.augment, _module(config.model)
    recipe = Recipe(config.label_smoothing, augment.mixup, augment.policy)
    for row in _ROWS:
        if (
            (row.published.paper, row.data) == (paper, config.data.name)
            and row.recipe in (None, recipe)
            and config.data.image_size in (None, find(row.model.name).input_size)
            and _module(row.model) == module
        ):
            return row.published
    return None


@functools.cache
def _module(model: ModelConfig) -> Any:
    """The network without what changes its training alone, or nothing.

    Tables do not say how maps were enlarged, ``align_corners``, so that it is left out, too.
    """
    default = ModelConfig()
    idle = ("shortcut",) if model.residual is False else ()
    return build_model(
        dataclasses.replace(
            model, **{name: getattr(default, name) for name in (*_TRAINING, *idle)}
        ),
        2,
    )


_TRAINING = (
    "zero_init_last",
    "dropout",
    "stochastic_depth",
    "drop_block",
    "block_dropout",
    "drop_rate",
    "aux",
    "aux_dropout",
    "aspp_dropout",
    "drop_channels",
    "frozen_stages",
    "frozen_norms",
    "frozen_epsilon",
    "fused",
    "norm_group",
    "align_corners",
    "remat",
    "dtype",
)


def _body(model: ModelConfig) -> nn.Module:
    """The network without its attention."""
    module = _module(model)
    fields = ("attention", "placement", "stages")
    own = {f.name: f.default for f in dataclasses.fields(module) if f.name in fields}
    return dataclasses.replace(module, **own)


def _ablation(model: ModelConfig) -> Published | None:
    module = _module(model)
    if not isinstance(module, ResNet) or module.cardinality > 1:
        return None
    attention = module.attention
    if attention is None:
        return _PLAIN
    if not isinstance(attention, SqueezeExciteConfig):
        return None
    paper = SqueezeExciteConfig()
    changes: list[tuple[str, str | float]] = [
        (field, getattr(attention, field))
        for field in ("squeeze", "gate", "reduction")
        if getattr(attention, field) != getattr(paper, field)
    ]
    if model.stages is not None:
        changes.append(("stage", model.stages[0] if len(model.stages) == 1 else math.nan))
    if model.placement not in (None, "standard"):
        changes.append(("placement", model.placement))
    if not changes:
        return _STANDARD
    return ABLATIONS.get(changes[0]) if len(changes) == 1 else None
