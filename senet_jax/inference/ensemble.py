"""Ensembles of trained networks: the average of their softmaxes.

Networks run in their own precision on the devices; softmaxes and averages are taken in float64 on
the host: over the views of a size, over the sizes, over the networks, each with the same weight.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from senet_jax.data.examples import Batch
from senet_jax.data.loader import PADDING, EvalBatch
from senet_jax.data.normalization import Normalization
from senet_jax.data.sources import Source
from senet_jax.data.views import ViewedExamples, Views, view_name
from senet_jax.errors import UsageError
from senet_jax.models.backbone import Backbone
from senet_jax.network import Network
from senet_jax.ops.lowerings import Lowering
from senet_jax.training.distributed.mesh import over_batch, replicated, to_devices
from senet_jax.training.evaluate import eval_batches, over_batches

LogitsStep = Callable[[dict[str, Any], dict[str, Array]], dict[str, Array]]


@dataclasses.dataclass(frozen=True)
class Member:
    """A trained network and how images are shown to it."""

    name: str
    """Its name in messages."""
    model: Backbone
    variables: dict[str, Any]
    normalization: Normalization
    views: tuple[Views, ...]
    """The views of each size; all have as many."""
    classes: int
    conv_lowering: Lowering | None = None

    def on(self, mesh: Mesh) -> Network:
        """The network on the devices of a mesh."""
        return Network(self.model, self.normalization, mesh, self.conv_lowering)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The answers for the images of a batch, without padding and unreadable images."""

    index: Int[np.ndarray, " n"]
    """The index of each image in its split."""
    label: Int[np.ndarray, " n"]
    log_p: Float[np.ndarray, "n classes"]
    """Logarithms of the probabilities, float64."""
    unreadable: list[int]
    """The indices of images that could not be read, on all hosts."""
    errors: dict[int, str]
    """Why not, of those that this host reads."""


class Ensemble:
    """Networks whose softmaxes are averaged.

    Args:
        members: At least one; their inputs may differ, their classes may not.
        mesh: The devices that share each batch.

    Raises:
        UsageError: The members have different numbers of classes or channels.
    """

    def __init__(self, members: list[Member], mesh: Mesh) -> None:
        first = members[0]
        for member in members[1:]:
            if member.classes != first.classes:
                raise UsageError(
                    f"{first.name} has {first.classes} classes and {member.name} "
                    f"{member.classes}: networks of one ensemble must have the same."
                )
            channels = [len(one.normalization.mean) for one in (first, member)]
            if channels[0] != channels[1]:
                raise UsageError(
                    f"{first.name} takes images of {channels[0]} channel(s) and {member.name} of "
                    f"{channels[1]}: networks of one ensemble must take the same."
                )
        self.classes = first.classes
        self._members, self._mesh = members, mesh
        self._steps: list[tuple[Member, LogitsStep, Any]] = [
            (
                member,
                make_logits_step(member.on(mesh)),
                jax.device_put(member.variables, replicated(mesh)),
            )
            for member in members
        ]

    def predict(
        self,
        source: Source,
        batch_size: int,
        *,
        channels: int = 3,
        workers: int = 0,
    ) -> Iterator[Predictions]:
        """Yields the predictions for all images of a split, in order.

        Args:
            source: The split.
            batch_size: Views of a step over all devices and hosts; at least one image a device.
            channels: Channels of the images.
            workers: Processes that decode; 0 decodes in threads.
        """
        views = tuple(dict.fromkeys(view for m in self._members for view in m.views))
        images = max(1, batch_size // max(map(len, views)))
        batches = eval_batches(ViewedExamples(source, views, channels), images, self._mesh)

        def dispatch(batch: Batch) -> list[list[dict[str, Array]]]:
            return [
                [
                    step(variables, self._on_devices(batch, views.index(view)))
                    for view in member.views
                ]
                for member, step, variables in self._steps
            ]

        for batch, outputs in over_batches(batches, workers, dispatch):
            yield _collect(batch, outputs)

    def _on_devices(self, batch: Batch, view: int) -> dict[str, Array]:
        names = {"image": view_name(view), "index": "index", "label": "label"}
        return to_devices({name: batch[array] for name, array in names.items()}, self._mesh)


def make_logits_step(network: Network) -> LogitsStep:
    """Builds the jitted forward pass of some views of the images of a batch.

    Args:
        network: The network; the batch is sharded over its mesh.

    Returns:
        ``(variables, batch) -> batch``: in place of ``image`` (n, views, h, w, c) it has ``logits``
        (n, views, classes), float32; the rest is passed on. Every device, so every host, has all.
    """

    def step(variables: dict[str, Any], batch: dict[str, Array]) -> dict[str, Array]:
        images = batch["image"]
        logits: Any = network.apply(variables, images.reshape(-1, *images.shape[2:]))
        logits = logits.reshape(*images.shape[:2], -1).astype(jnp.float32)
        return {**{name: x for name, x in batch.items() if name != "image"}, "logits": logits}

    everywhere = replicated(network.mesh)
    shardings = (everywhere, over_batch(network.mesh))
    compiled: LogitsStep = network.jit(step, in_shardings=shardings, out_shardings=everywhere)
    return compiled


def _collect(batch: EvalBatch, outputs: list[list[dict[str, Array]]]) -> Predictions:
    members = [
        log_mean([log_mean(_views(np.asarray(size["logits"]))) for size in sizes])
        for sizes in outputs
    ]
    # The rows of all hosts, in whatever order the devices stand.
    index, label = (np.asarray(outputs[0][0][name]) for name in ("index", "label"))
    there = index >= 0
    return Predictions(
        index=index[there],
        label=label[there],
        log_p=log_mean(members)[there],
        unreadable=[int(-2 - i) for i in index[index < PADDING]],
        errors=batch.errors,
    )


def _views(logits: Float[np.ndarray, "n v classes"]) -> list[Float[np.ndarray, "n classes"]]:
    """The logarithms of the softmax of each view."""
    x = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):
        x -= x.max(axis=-1, keepdims=True)
        x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return list(np.moveaxis(x, 1, 0))


def log_mean(log_p: list[Float[np.ndarray, "n classes"]]) -> Float[np.ndarray, "n classes"]:
    """The logarithm of the mean of probabilities given as logarithms.

    Of a single array it is this array, to the bit, and none is lost that is too small for a float.
    """
    if len(log_p) == 1:
        return log_p[0]
    with np.errstate(invalid="ignore"):
        return np.logaddexp.reduce(log_p) - np.log(len(log_p))
