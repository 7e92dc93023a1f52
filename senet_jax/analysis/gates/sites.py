"""The places of attention in a network, the cost of its gates, and their replacement.

Gates are found and replaced through ``nn.intercept_methods`` on ``Gated.expose_gate``, which every
attention passes its gate through: no backbone knows of it.
"""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.interpreters import partial_eval
from jaxtyping import Array, Bool, Float

from senet_jax.attention import Gated
from senet_jax.errors import UsageError, choose
from senet_jax.models.backbone import Backbone
from senet_jax.ops.conv_lowering import lowering

Place = tuple[tuple[str, ...], str]
"""The place of a gate: names of the modules down to the attention, and that of the intermediate."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A place of attention in a network."""

    name: str
    """The module that holds the attention, as "stage3/block2"; of a second gate with its own name
    after it, as "stage3/block2/spatial_gate"."""
    place: Place
    stage: int
    """The family's number of its stage."""
    shape: tuple[int, ...]
    """(channels,), or (paths, channels) where paths are weighted against each other."""
    by_pixel: bool
    """Pixels have gates of their own."""
    weights: Mapping[str, int]
    """The sizes, by path, of the trainable arrays that the gate needs and that compute nothing but
    gates. Another gate of the attention may need some of them, too."""

    @property
    def neutral(self) -> Float[np.ndarray, "*paths c"]:
        """The gate of no attention: 1, or the same weight for each path."""
        paths = math.prod(self.shape[:-1])
        return np.full(self.shape, 1 / paths, np.float32)


@dataclasses.dataclass(frozen=True)
class Edit:
    """The replacement of a block's gate, for all images and pixels alike."""

    keep: Bool[np.ndarray, "*paths c"]
    """True for the gates that stay as they are."""
    value: Float[np.ndarray, "*paths c"]
    """The values of the other gates."""


Edits = Mapping[str, Edit]
"""By the names of the blocks; the others stay as they are."""


def constant(value: Float[np.ndarray, "*paths c"]) -> Edit:
    """Puts constants in the place of a block's gate."""
    return Edit(np.zeros(value.shape, bool), np.asarray(value, np.float32))


def zeroed(shut: Bool[np.ndarray, "*paths c"]) -> Edit:
    """Sets some channels of a block's gate to zero."""
    return Edit(~shut, np.zeros(shut.shape, np.float32))


def find_blocks(name: str, model: Backbone, image_shape: tuple[int, int, int]) -> list[Block]:
    """The places of attention, from the image on.

    Args:
        name: The name of the network in messages.
        model: A network of the zoo.
        image_shape: Height, width and channels of its images.

    Raises:
        UsageError: There is none.
    """
    # Values that a backward pass computes again cannot be read.
    model = model.clone(remat=False)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    found = _gates(model, image)
    if not found:
        raise UsageError(
            f"{name} has no attention, so no gate to look at: give a network that has one, such as "
            "one of `senet-jax train --model.attention.kind se`."
        )
    stage_of: dict[Place, int] = {}
    for stage in model.stages or model.stage_numbers:
        stage_of |= dict.fromkeys(_gates(model.clone(stages=(stage,)), image), stage)
    names, weights = _names(found), _gate_weights(model, image, list(found))
    return [
        Block(names[place], place, stage_of[place], gate[3:], gate[1:3] != (1, 1), weights[place])
        for place, gate in found.items()
    ]


def params_saved(blocks: Collection[Block], removed: Sequence[Block]) -> int:
    """Trainable parameters that a network does without if some of its gates are removed.

    Args:
        blocks: All places of attention.
        removed: Some of them. Weights that the others need stay.
    """
    kept = {path for block in blocks if block not in removed for path in block.weights}
    weights = {path: size for block in removed for path, size in block.weights.items()}
    return sum(size for path, size in weights.items() if path not in kept)


def _names(places: Iterable[Place]) -> dict[Place, str]:
    """The names of the modules around the attentions, or, of two in one, of the attentions."""
    attentions = dict.fromkeys(path for path, _ in places)
    around = Counter(path[:-1] for path in attentions)
    return {
        (path, sown): "/".join(
            (path[:-1] if path[:-1] and around[path[:-1]] == 1 else path)
            + ((sown,) if sown != "gate" else ())
        )
        for path, sown in places
    }


def chosen(blocks: Sequence[Block], names: Sequence[str]) -> list[Block]:
    """The blocks of these names.

    Raises:
        UsageError: One does not exist.
    """
    by_name = {block.name: block for block in blocks}
    return [by_name[choose("block", name, by_name)] for name in names]


def replacing(gates: Mapping[Place, Callable[[Array], Array]]) -> AbstractContextManager[None]:
    """Replaces gates in what is traced under it; what is sown stays the network's own gate.

    Args:
        gates: By the places of blocks, what becomes of their gates.
    """

    def replace(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        gate = next_fun(*args, **kwargs)
        if not _is_gate(context):
            return gate
        return gates.get(_place(context, *args, **kwargs), lambda own: own)(gate)

    return nn.intercept_methods(replace)


def _is_gate(context: nn.module.InterceptorContext) -> bool:
    return isinstance(context.module, Gated) and context.method_name == "expose_gate"


def _place(context: nn.module.InterceptorContext, gate: Array, sown: str = "gate") -> Place:
    """The path of the gate in a call of ``Gated.expose_gate``, from its arguments."""
    return context.module.path, sown


def _gates(model: nn.Module, image: jax.ShapeDtypeStruct) -> dict[Place, tuple[int, ...]]:
    """The shapes of the gates in the order of their calls."""
    found: dict[Place, tuple[int, ...]] = {}

    def record(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if _is_gate(context):
            found[_place(context, *args, **kwargs)] = args[0].shape
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(record):
        _abstract_variables(model, image)
    return found


def _abstract_variables(model: nn.Module, image: jax.ShapeDtypeStruct) -> dict[str, Any]:
    with lowering("native"):
        return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def _gate_weights(
    model: nn.Module, image: jax.ShapeDtypeStruct, places: Sequence[Place]
) -> dict[Place, dict[str, int]]:
    """The sizes of the arrays that each gate depends on and no logit does, by their paths.

    The network is traced with constants for gates, so that no gate depends on another.
    """
    variables = dict(_abstract_variables(model, image))
    params = variables.pop("params")
    own: dict[Place, Array] = {}

    def constants(place: Place, gate: Array) -> Array:
        own[place] = gate
        return jnp.ones_like(gate)

    def forward(params: Any, rest: Any, image: Array) -> tuple[Any, list[Array]]:
        with replacing({place: functools.partial(constants, place) for place in places}):
            logits = model.apply({"params": params, **rest}, image, train=False)
        return logits, [own[place] for place in places]

    with lowering("native"):
        jaxpr = jax.make_jaxpr(forward)(params, variables, image).jaxpr
    sizes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): math.prod(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }

    def needed(output: int) -> set[str]:
        wanted = [place == output for place in range(len(jaxpr.outvars))]
        used = partial_eval.dce_jaxpr(jaxpr, wanted)[1][: len(sizes)]
        return set(itertools.compress(sizes, used))

    elsewhere = needed(0)
    found = {place: needed(output) - elsewhere for output, place in enumerate(places, 1)}
    return {place: {path: sizes[path] for path in sorted(own)} for place, own in found.items()}
