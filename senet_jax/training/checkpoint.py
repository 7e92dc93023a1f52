"""Checkpoints through Orbax: asynchronous, whole or not at all, verified when they are read."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Array, PyTree, UInt32
from orbax.checkpoint import checkpoint_managers

from senet_jax.errors import UsageError
from senet_jax.training.state import TrainState

LOGGER = logging.getLogger(__name__)


class NotFinite(ArithmeticError):
    """A state was to be saved that holds infinities or NaNs."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """A checkpoint that was read and found whole."""

    step: int
    state: TrainState
    extra: dict[str, Any]
    """What the loop saved beside the state."""


class Checkpoints:
    """The checkpoints of a run, one folder a step.

    Args:
        folder: Where they lie; made when something is saved.
        keep_last: How many of the newest are kept, besides the best by validation top-1.
    """

    def __init__(self, folder: Path, keep_last: int = 1) -> None:
        self.folder = folder.absolute()
        self._kept = _NewestAndBest(self.folder, keep_last)
        options = ocp.CheckpointManagerOptions(preservation_policy=self._kept, create=False)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def steps(self) -> list[int]:
        """Steps that have a finished checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step of the best validation top-1, if one was saved with its validation."""
        return self._kept.best(self.steps())

    def save(self, state: TrainState, extra: dict[str, Any], top1: float | None) -> None:
        """Starts to save a state; the state may be donated as soon as this returns.

        Args:
            state: The state; its ``step`` names the checkpoint.
            extra: Plain values to save beside it.
            top1: The validation top-1 of this very state, if it was validated.

        Raises:
            NotFinite: The state holds a number that is not finite.
        """
        if not bool(_finite(state)):
            raise NotFinite
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        meta = {
            "fingerprint": [int(x) for x in _fingerprint(state)],
            "top1": top1,
            "extra": extra,
        }
        self._kept.top1[step] = top1
        self._manager.save(
            step,
            args=ocp.args.Composite(
                # A copy: Orbax reads while the next step writes into the donated buffers.
                state=ocp.args.StandardSave(jax.tree.map(jnp.copy, state)),
                meta=ocp.args.JsonSave(meta),
            ),
        )

    def restore(self, step: int, like: TrainState) -> Restored:
        """Reads one checkpoint.

        Args:
            step: A step of ``steps()``.
            like: An abstract state (shapes, types and shardings) of the network that is expected.

        Raises:
            UsageError: It is damaged, or of another network.
        """
        try:
            read = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like), meta=ocp.args.JsonRestore()
                ),
            )
            meta: dict[str, Any] = read.meta
            whole = meta["fingerprint"] == [int(x) for x in _fingerprint(read.state)]
        # What Orbax and TensorStore raise for damaged files has no common base.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise UsageError(
                f"checkpoint {self.folder / str(step)} cannot be read: {reason or type(error)}"
            ) from error
        if not whole:
            raise UsageError(
                f"checkpoint {self.folder / str(step)} is damaged: its numbers are not those that "
                "were saved."
            )
        return Restored(step, read.state, meta["extra"])

    def restore_newest(self, like: TrainState) -> Restored | None:
        """Reads the newest checkpoint that is whole, or returns None if there is none at all.

        Damaged ones are moved to ``<folder>-damaged`` and named in the log.

        Raises:
            UsageError: There are checkpoints, and not one can be read.
        """
        steps = self.steps()
        damaged: list[int] = []
        for step in reversed(steps):
            try:
                restored = self.restore(step, like)
            except UsageError as error:
                damaged.append(step)
                LOGGER.warning("%s", error)
                continue
            for bad in damaged:
                self._set_aside(bad)
                LOGGER.warning("falling back to the checkpoint of step %d", step)
            return restored
        if steps:
            raise UsageError(
                f"none of the {len(steps)} checkpoints in {self.folder} can be read: move the "
                "folder away to start afresh."
            )
        return None

    def _set_aside(self, step: int) -> None:
        aside = self.folder.with_name(f"{self.folder.name}-damaged")
        aside.mkdir(exist_ok=True)
        names = [str(step), *(f"{step}-{copy}" for copy in range(1, 1000))]
        free = next(aside / name for name in names if not (aside / name).exists())
        shutil.move(self.folder / str(step), free)
        self._manager.reload()

    def wait(self) -> None:
        """Returns when all that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and gives the threads back."""
        self._manager.close()


class _NewestAndBest(checkpoint_managers.PreservationPolicy):
    """Keeps the newest checkpoints and the one of the best validation top-1.

    The top-1 is read from what the checkpoints say, so that a damaged one counts as without.
    """

    def __init__(self, folder: Path, newest: int) -> None:
        self._newest = newest
        self.top1: dict[int, float | None] = {}
        for file in folder.glob("*/meta/metadata"):
            if file.parts[-3].isdecimal():
                self.top1[int(file.parts[-3])] = _read_top1(file)

    def best(self, steps: Sequence[int]) -> int | None:
        """The best of some steps, the earlier one where two are alike."""
        known = {step: top1 for step in steps if (top1 := self.top1.get(step)) is not None}
        return max(known, key=lambda step: (known[step], -step)) if known else None

    def should_preserve(
        self,
        checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: checkpoint_managers.PreservationContext,
    ) -> Sequence[bool]:
        steps = [info.step for info in checkpoints]
        keep = {*sorted(steps)[-self._newest :], self.best(steps)}
        return [step in keep for step in steps]


def _read_top1(file: Path) -> float | None:
    try:
        return json.loads(file.read_text())["top1"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


@jax.jit
def _finite(tree: PyTree[Array]) -> Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


@jax.jit
def _fingerprint(tree: PyTree[Array]) -> list[UInt32[Array, ""]]:
    """A number of each leaf that depends on every bit of it, whatever its sharding.

    TensorStore reads a chunk that is missing as zeros, without an error; this is what notices.
    """

    def of(leaf: Array) -> Array:
        if leaf.dtype.itemsize != 4:
            raise TypeError(f"a leaf of {leaf.dtype} has no fingerprint")
        bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32).ravel()
        # Odd weights, so that no bit of any element can be lost; the sum wraps around.
        weights = 2 * jax.lax.iota(jnp.uint32, bits.size) + np.uint32(1)
        return jnp.sum(bits * weights, dtype=jnp.uint32) + np.uint32(bits.size)

    return [of(leaf) for leaf in jax.tree.leaves(tree)]
