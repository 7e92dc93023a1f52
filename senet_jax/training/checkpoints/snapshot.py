"""A state as it is saved: copied, known to be finite, and with a fingerprint."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree, UInt32

from senet_jax.training.distributed.mesh import path_name
from senet_jax.training.state import TrainState


class NotFinite(ArithmeticError):
    """A state was to be saved that holds infinities or NaNs."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A copy of a state, for when the buffers of the state are donated."""

    state: TrainState
    """A copy, which lies where the state lay."""
    digests: dict[str, UInt32[Array, ""]]
    """The checksum of each leaf, by its path; not waited for."""

    @property
    def fingerprint(self) -> dict[str, int]:
        """The digests as numbers; waits for the devices."""
        return {name: int(digest) for name, digest in self.digests.items()}


def take_snapshot(state: TrainState) -> Snapshot:
    """Copies a state; on several hosts all call it.

    Each leaf is read twice: for the copy, and for all that is asked of its numbers. A jitted
    function of one leaf is compiled for each shape; one of a whole state would be compiled for half
    a minute.

    Raises:
        NotFinite: The state holds a number that is not finite.
    """
    copy = jax.tree.map(_copy, state)
    found = _digests(state)
    # Waits for the digests, before which the devices have made the copies.
    if any(jax.device_get([not_finite for _, not_finite in found.values()])):
        raise NotFinite
    return Snapshot(copy, {name: digest for name, (digest, _) in found.items()})


def fingerprint(tree: PyTree[Array]) -> dict[str, int]:
    """A number of each leaf, by its path, that depends on every bit of it, however it is divided.

    TensorStore reads a chunk that is missing as zeros, without an error; this is what notices. On
    several hosts all call it.
    """
    digests = {name: digest for name, (digest, _) in _digests(tree).items()}
    return {name: int(digest) for name, digest in jax.device_get(digests).items()}


def _digests(tree: PyTree[Array]) -> dict[str, tuple[UInt32[Array, ""], UInt32[Array, ""]]]:
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        found[path_name(path)] = _digest(leaf)
        if jax.default_backend() == "cpu" and not leaf.is_fully_replicated:
            # Many programs with collectives at once can wait for each other's threads for ever.
            jax.block_until_ready(found[path_name(path)])
    return found


_copy = jax.jit(jnp.copy)


@jax.jit
def _digest(leaf: Array) -> tuple[UInt32[Array, ""], UInt32[Array, ""]]:
    """The digest of a leaf, and how many of its numbers are not finite, in one pass."""
    words = _words(leaf)
    # Indices as the leaf is shaped, not raveled: so a divided leaf need not be gathered.
    index = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        index = index * np.uint32(size) + lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    # Odd weights, so that no bit of any element can be lost; the sum wraps around.
    weighted = words * (2 * index + np.uint32(1))
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    not_finite = ~jnp.isfinite(leaf) if floating else jnp.zeros(leaf.shape, bool)
    not_finite = jnp.broadcast_to(not_finite.reshape(*leaf.shape, 1), words.shape)
    zero = np.uint32(0)
    digest, count = lax.reduce(
        (weighted, not_finite.astype(jnp.uint32)), (zero, zero), _add, tuple(range(words.ndim))
    )
    return digest + np.uint32(words.size), count


def _words(leaf: Array) -> UInt32[Array, "*shape words"]:
    """The bits of a leaf, in a new last axis of one or two."""
    size = leaf.dtype.itemsize
    if size == 8:
        return lax.bitcast_convert_type(leaf, jnp.uint32)
    bits = leaf if leaf.dtype == bool else lax.bitcast_convert_type(leaf, f"uint{8 * size}")
    return bits.astype(jnp.uint32)[..., None]


def _add(one: Any, other: Any) -> Any:
    return one[0] + other[0], one[1] + other[1]
