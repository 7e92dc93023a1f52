"""A trained network that is shown images while its gates are read or replaced.

Gates are read through Linen's intermediates. The network runs as in evaluation, where attention is
never joined to a batch norm (``norm_with_attention``): every gate is computed and applied in a
module of its own.
"""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, UInt8
from scipy.special import log_softmax

from senet_jax.analysis.gates.sites import Edits, chosen, find_blocks, replacing
from senet_jax.attention import Gated
from senet_jax.data.sources import Source
from senet_jax.data.views import ViewedExamples, view_name
from senet_jax.errors import UsageError
from senet_jax.inference.ensemble import Member
from senet_jax.tasks.classification import rank
from senet_jax.training.distributed.mesh import over_batch, replicated, to_devices
from senet_jax.training.evaluate import eval_batches

LOGGER = logging.getLogger(__name__)

EDGE = 0.05
"""A gate is shut where its magnitude is below this, and open where it is above 1 less this: at both
ends a sigmoid is saturated."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """The gates of one block at the images of a batch."""

    gate: Float[np.ndarray, "n *paths c"]
    """The gates, or their mean over the pixels if pixels have gates of their own."""
    shut: Float[np.ndarray, " n"]
    """Share of the gates that are shut."""
    open: Float[np.ndarray, " n"]
    """Share of the gates that are open."""
    output: Float[np.ndarray, "n c"]
    """Mean magnitude of what leaves the attention."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """The answers of a network for the images, in their order."""

    right: Bool[np.ndarray, " n"]
    """True if the most probable class is the right one."""
    loss: Float[np.ndarray, " n"]
    """Cross-entropy."""

    @property
    def error(self) -> float:
        """Top-1 error, %."""
        return 100 * float(np.mean(~self.right))


class Probe:
    """A trained network and the images that it is shown.

    Args:
        member: The network; it is shown the first of its views.
        source: The images.
        mesh: The devices that share a batch.
        batch_size: Images of a step over all devices and hosts; at least one a device.
        workers: Processes that decode; 0 decodes in threads.

    Raises:
        UsageError: The network has no attention.
    """

    def __init__(
        self,
        member: Member,
        source: Source,
        mesh: Mesh,
        *,
        batch_size: int = 256,
        workers: int = 0,
    ) -> None:
        self.member, self.source = member, source
        self._view, channels = member.views[0], len(member.normalization.mean)
        side = self._view.size
        self.blocks = find_blocks(member.name, member.model, (side, side, channels))
        self._mesh, self._workers = mesh, workers
        examples = ViewedExamples(source, (self._view,), channels)
        self._batches = eval_batches(examples, batch_size, mesh)
        self._variables = jax.device_put(member.variables, replicated(mesh))
        self._network = member.on(mesh)
        self._look = self._step(self._gates)
        self._ask = self._step(self._logits)
        self._unreadable: set[int] = set()

    @property
    def params(self) -> int:
        """Trainable parameters of the network."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.member.variables["params"]))

    def gates(self) -> Iterator[tuple[Int[np.ndarray, " n"], dict[str, Seen]]]:
        """Yields, batch by batch, the labels of all images and what was seen, by block.

        Raises:
            UsageError: Not one image could be read.
        """
        for _, label, seen in self._run(self._look, [{}]):
            yield label, {name: Seen(**fields) for name, fields in seen.items()}

    def answers(self, variants: Sequence[Edits]) -> list[Answers]:
        """The answers of the network for all images with other gates; the images are read once.

        Args:
            variants: Gates that are replaced together; ``{}`` is the network as it is.

        Raises:
            UsageError: A block that does not exist, or not one image could be read.
        """
        right: list[list[np.ndarray]] = [[] for _ in variants]
        loss: list[list[np.ndarray]] = [[] for _ in variants]
        for place, label, logits in self._run(self._ask, variants):
            log_p = log_softmax(logits.astype(np.float64), axis=-1)
            right[place].append((label >= 0) & (rank(log_p, label, np) < 1))
            loss[place].append(-log_p[np.arange(len(label)), label])
        return [
            Answers(np.concatenate(r), np.concatenate(x)) for r, x in zip(right, loss, strict=True)
        ]

    def _step(self, what: Callable[[Any, Array], Any]) -> Callable[..., Any]:
        """The jitted step: index, label, and what is asked of a network with other gates."""

        def step(variables: Any, batch: dict[str, Array], edits: Any) -> Any:
            gates = {b.place: functools.partial(_edited, *edits[b.name]) for b in self.blocks}
            with replacing(gates):
                return batch["index"], batch["label"], what(variables, batch["image"])

        whole = replicated(self._mesh)
        shardings = (whole, over_batch(self._mesh), whole)
        return self._network.jit(step, in_shardings=shardings, out_shardings=whole)

    def _logits(self, variables: Any, images: UInt8[Array, "n h w c"]) -> Array:
        logits: Any = self._network.apply(variables, images)
        return logits

    def _gates(self, variables: Any, images: UInt8[Array, "n h w c"]) -> dict[str, Any]:
        _, state = self._network.apply(
            variables,
            images,
            mutable=["intermediates"],
            capture_intermediates=captured,
        )
        kept = traverse_util.flatten_dict(state["intermediates"])
        return {
            block.name: summary(kept[*path, sown][0], kept[*path, "__call__"][0])
            for block in self.blocks
            for path, sown in [block.place]
        }

    def _run(
        self, step: Callable[..., Any], variants: Sequence[Edits]
    ) -> Iterator[tuple[int, Int[np.ndarray, " n"], Any]]:
        """Yields the place of a variant, the labels of some images, and what a step says of them.

        It is read once the next step is under way, so that the devices do not wait; no more steps
        are, since on CPUs the collectives of many starve.
        """
        readable = False
        pending = None
        for following in itertools.chain(self._dispatch(step, variants), [None]):
            if pending is not None:
                place, outputs = pending
                index, label, what = jax.tree.map(np.asarray, outputs)
                there = index >= 0
                readable |= bool(there.any())
                yield place, label[there], jax.tree.map(lambda x, there=there: x[there], what)
            pending = following
        if not readable:
            raise UsageError("not one image could be read: there is nothing to look at.")

    def _dispatch(
        self, step: Callable[..., Any], variants: Sequence[Edits]
    ) -> Iterator[tuple[int, tuple[Array, Array, Any]]]:
        edits = [jax.device_put(self._arrays(v), replicated(self._mesh)) for v in variants]
        for batch in self._batches.read(self._workers):
            for index, reason in batch.errors.items():
                if index not in self._unreadable:
                    LOGGER.warning("%s is left out: %s", self.source.name(index), reason)
                    self._unreadable.add(index)
            arrays = batch.arrays
            values = {name: arrays[name] for name in ("index", "label")}
            on_devices = to_devices({"image": arrays[view_name(0)][:, 0], **values}, self._mesh)
            for place, edit in enumerate(edits):
                yield place, step(self._variables, on_devices, edit)

    def _arrays(self, edits: Edits) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The edits of all blocks, so that one compiled step serves any of them."""
        chosen(self.blocks, list(edits))
        arrays = {
            block.name: (np.ones(block.shape, bool), np.zeros(block.shape, np.float32))
            for block in self.blocks
        }
        return {**arrays, **{name: (edit.keep, edit.value) for name, edit in edits.items()}}


def _edited(
    keep: Bool[Array, "*paths c"], value: Float[Array, "*paths c"], gate: Float[Array, "n h w ..."]
) -> Float[Array, "n h w ..."]:
    return jnp.where(keep, gate, value.astype(gate.dtype))


def captured(module: nn.Module, method: str) -> bool:
    """Says if the output of a method is kept among Linen's intermediates: that of attention is."""
    return isinstance(module, Gated) and method == "__call__"


def summary(
    gate: Float[Array, "n h w *paths c"], output: Float[Array, "n h2 w2 c"]
) -> dict[str, Array]:
    """The fields of ``Seen``.

    Args:
        gate: The gate of each image.
        output: The maps that leave the attention.
    """
    size, others = jnp.abs(gate), range(1, gate.ndim)
    return {
        "gate": gate.mean(axis=(1, 2)),
        "shut": jnp.mean(size < EDGE, axis=others, dtype=jnp.float32),
        "open": jnp.mean(size > 1 - EDGE, axis=others, dtype=jnp.float32),
        "output": jnp.abs(output).mean(axis=(1, 2), dtype=jnp.float32),
    }
