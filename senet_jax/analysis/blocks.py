"""Where a network has attention, what its gates cost, and how they are replaced.

Gates are found and replaced through ``nn.intercept_methods`` on ``Gated.gated``, which every
attention passes its gate through: no backbone knows of it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
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

Path = tuple[str, ...]
"""Names of modules, from the network's on."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A place of attention in a network."""

    name: str
    """The module that holds the attention, as "stage3/block2"."""
    path: Path
    """The attention itself."""
    stage: int
    """The family's number of its stage."""
    shape: tuple[int, ...]
    """(channels,), or (paths, channels) where paths are weighted against each other."""
    by_pixel: bool
    """Whether pixels have gates of their own."""
    params: int
    """Trainable parameters that do nothing but compute the gate."""

    @property
    def neutral(self) -> Float[np.ndarray, "*paths c"]:
        """The gate of no attention: 1, or the same weight for each path."""
        paths = math.prod(self.shape[:-1])
        return np.full(self.shape, 1 / paths, np.float32)


@dataclasses.dataclass(frozen=True)
class Edit:
    """What is put in the place of a block's gate, for all images and pixels alike."""

    keep: Bool[np.ndarray, "*paths c"]
    """Where the gate stays as it is."""
    value: Float[np.ndarray, "*paths c"]
    """What stands elsewhere."""


Edits = Mapping[str, Edit]
"""By the names of the blocks; the others stay as they are."""


def constant(value: Float[np.ndarray, "*paths c"]) -> Edit:
    """Puts constants in the place of a block's gate."""
    return Edit(np.zeros(value.shape, bool), np.asarray(value, np.float32))


def zeroed(shut: Bool[np.ndarray, "*paths c"]) -> Edit:
    """Sets some channels of a block's gate to zero."""
    return Edit(~shut, np.zeros(shut.shape, np.float32))


def find_blocks(name: str, model: nn.Module, image_shape: tuple[int, int, int]) -> list[Block]:
    """The places of attention, from the image on.

    Args:
        name: What messages call the network.
        model: A network of the zoo.
        image_shape: Height, width and channels of its images.

    Raises:
        UsageError: There is none.
    """
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    found = _gates(model, image)
    if not found:
        raise UsageError(
            f"{name} has no attention, so no gate to look at: give a network that has one, such as "
            "one trained with --model.attention.kind se."
        )
    assert isinstance(model, Backbone)
    stage_of: dict[Path, int] = {}
    for stage in model.stages or model.stage_numbers:
        stage_of |= dict.fromkeys(_gates(model.clone(stages=(stage,)), image), stage)
    short = ["/".join(path[:-1]) for path in found]
    blocks = [
        Block(
            name=holder if holder and short.count(holder) == 1 else "/".join(path),
            path=path,
            stage=stage_of[path],
            shape=gate[3:],
            by_pixel=gate[1:3] != (1, 1),
            params=0,
        )
        for holder, (path, gate) in zip(short, found.items(), strict=True)
    ]
    idle = _idle_params(model, image, blocks)
    return [
        dataclasses.replace(
            block,
            params=sum(
                size for path, size in idle.items() if path[: len(block.path)] == block.path
            ),
        )
        for block in blocks
    ]


def chosen(blocks: Sequence[Block], names: Sequence[str]) -> list[Block]:
    """The blocks of these names.

    Raises:
        UsageError: One does not exist.
    """
    by_name = {block.name: block for block in blocks}
    return [by_name[choose("block", name, by_name)] for name in names]


def replacing(
    gates: Mapping[Path, Callable[[Array], Array]],
) -> AbstractContextManager[None]:
    """Replaces gates in what is traced under it; what is sown stays the network's own gate.

    Args:
        gates: By the paths of blocks, what becomes of their gates.
    """

    def replace(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        gate = next_fun(*args, **kwargs)
        if not _is_gate(context) or context.module.path not in gates:
            return gate
        return gates[context.module.path](gate)

    return nn.intercept_methods(replace)


def _is_gate(context: nn.module.InterceptorContext) -> bool:
    return isinstance(context.module, Gated) and context.method_name == "gated"


def _gates(model: nn.Module, image: jax.ShapeDtypeStruct) -> dict[Path, tuple[int, ...]]:
    """The shapes of the gates by the paths of their modules, in the order of their calls."""
    found: dict[Path, tuple[int, ...]] = {}

    def record(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if _is_gate(context):
            found[context.module.path] = args[0].shape
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(record):
        _abstract_variables(model, image)
    return found


def _abstract_variables(model: nn.Module, image: jax.ShapeDtypeStruct) -> dict[str, Any]:
    with lowering("native"):
        return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def _idle_params(
    model: nn.Module, image: jax.ShapeDtypeStruct, blocks: Sequence[Block]
) -> dict[Path, int]:
    """Sizes of the parameters that the logits do not depend on once all gates are constants."""
    variables = dict(_abstract_variables(model, image))
    params = variables.pop("params")
    constants = {block.path: jnp.ones_like for block in blocks}

    def forward(params: Any, rest: Any, image: Array) -> Any:
        return model.apply({"params": params, **rest}, image, train=False)

    with replacing(constants), lowering("native"):
        jaxpr = jax.make_jaxpr(forward)(params, variables, image).jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        tuple(key.key for key in path): math.prod(leaf.shape)
        for (path, leaf), needed in zip(leaves, used[: len(leaves)], strict=True)
        if not needed
    }
