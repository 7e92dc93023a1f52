"""The gates of networks of semantic segmentation, over scenes.

A scene has several classes, so that its gate belongs to all classes that it has: there are no
variances within and between classes as in classification. Gates are read where the backbone has
them; the heads have none.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float

from senet_jax.analysis.gates.excitation import Gates, Moments
from senet_jax.analysis.gates.probe import captured, summary
from senet_jax.analysis.gates.report import gates_table
from senet_jax.analysis.gates.sites import Block, find_blocks
from senet_jax.data.examples import Batch
from senet_jax.data.subset import some
from senet_jax.errors import UsageError
from senet_jax.inference.segmenter import TrainedSegmenter
from senet_jax.models.segmentation.segmenter import Segmenter
from senet_jax.training.distributed.mesh import over_batch, replicated, to_devices
from senet_jax.training.evaluate import eval_groups, over_batches, without_index


@dataclasses.dataclass(frozen=True)
class SceneGates(Gates):
    """The gates of a block over scenes; a scene counts for each class that it has a pixel of."""

    images: int
    """Number of scenes."""
    over_all: tuple[Float[np.ndarray, "*paths c"], Float[np.ndarray, "*paths c"]]
    """Mean and standard deviation over all scenes, each of which counts once."""

    @property
    def mean(self) -> Float[np.ndarray, "*paths c"]:
        """Over all scenes."""
        return self.over_all[0]

    @property
    def std(self) -> Float[np.ndarray, "*paths c"]:
        """Over all scenes."""
        return self.over_all[1]

    @property
    def between(self) -> Float[np.ndarray, "*paths c"]:
        """Mean square of the distance of the means of the classes to that of all scenes."""
        return np.square(self._there(self.class_mean) - self.mean).mean(axis=0)

    @property
    def specificity(self) -> float | None:
        """None: a scene has several classes."""
        return None


def scene_blocks(trained: TrainedSegmenter) -> list[Block]:
    """The places of attention in the backbone of a network, from the image on.

    Raises:
        UsageError: There is none.
    """
    model = trained.run.model
    assert isinstance(model, Segmenter)
    classifier = model.backbone.clone(features_only=False)
    return find_blocks(trained.name, classifier, trained.dataset.image_shape)


def read_scene_gates(trained: TrainedSegmenter, limit: int | None = None) -> list[SceneGates]:
    """Shows a network its held-out scenes once and gathers the gates of all blocks.

    A scene is shown as in evaluation: with the padding of its group.

    Args:
        trained: The network, with its data.
        limit: Number of the scenes to look at, the same ones each time; None means all.

    Raises:
        UsageError: The network has no attention, or not one scene could be read.
    """
    blocks, run = scene_blocks(trained), trained.run
    dataset, mesh, config = trained.dataset, run.mesh, run.config.data
    classes = len(dataset.classes)
    if limit is not None:
        dataset = dataclasses.replace(dataset, val=some(dataset.val, limit))
    assert isinstance(run.model, Segmenter)
    # Stages that are computed again in a backward pass cannot be looked into.
    model = run.model.clone(backbone=run.model.backbone.clone(remat=False))
    network = dataclasses.replace(run.network, model=model)

    def look(variables: Any, batch: dict[str, Array]) -> Any:
        _, state = network.apply(
            variables, batch["image"], mutable=["intermediates"], capture_intermediates=captured
        )
        kept = traverse_util.flatten_dict(state["intermediates"])
        seen = {}
        for block in blocks:
            path, sown = block.place
            path = ("backbone", *path)
            seen[block.name] = summary(kept[*path, sown][0], kept[*path, "__call__"][0])
        # One class at a time: of all at once the one-hot labels would be large.
        label = batch["label"]
        there = [jnp.any(label == one, axis=(1, 2)) for one in range(classes)]
        return batch["weight"], jnp.stack(there, axis=1), seen

    step = network.jit(
        look,
        in_shardings=(replicated(mesh), over_batch(mesh)),
        out_shardings=replicated(mesh),
    )
    variables = jax.device_put(trained.variables, replicated(mesh))

    def dispatch(batch: Batch) -> Any:
        return step(variables, to_devices(without_index(batch), mesh))

    groups = trained.task.examples(dataset, "val")
    batches = eval_groups(groups, config.eval_batch_size, mesh)
    workers = config.workers if dataset.photographs else 0
    by_class = {block.name: Moments(classes, block.shape) for block in blocks}
    over_all = {block.name: Moments(1, block.shape) for block in blocks}
    sums: dict[str, list[Any]] = {block.name: [0.0] * 3 for block in blocks}
    for _, outputs in over_batches(batches, workers, dispatch):
        weight, present, seen = jax.tree.map(np.asarray, outputs)
        counts = weight > 0
        scene, label = np.nonzero(present[counts])
        for name, fields in seen.items():
            gate = fields["gate"][counts]
            by_class[name].add(gate[scene], label)
            over_all[name].add(gate, np.zeros(len(gate), int))
            sums[name] = [
                total + fields[field][counts].sum(axis=0, dtype=np.float64)
                for total, field in zip(sums[name], ("shut", "open", "output"), strict=True)
            ]
    if not next(iter(over_all.values())).count[0]:
        raise UsageError("not one scene could be read: there is nothing to look at.")
    return [
        _gates(block, by_class[block.name], over_all[block.name], sums[block.name])
        for block in blocks
    ]


def _gates(block: Block, by_class: Moments, over_all: Moments, sums: list[Any]) -> SceneGates:
    count = by_class.count.reshape(-1, *[1] * len(block.shape))
    images = int(over_all.count[0])
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, by_class.mean, np.nan)
        std = np.sqrt(by_class.squares / count)
    shut, opened, output = (total / images for total in sums)
    return SceneGates(
        block=block,
        count=by_class.count,
        class_mean=mean,
        class_std=std,
        shut=float(shut),
        open=float(opened),
        output=np.asarray(output),
        images=images,
        over_all=(over_all.mean[0], np.sqrt(over_all.squares[0] / images)),
    )


def scene_gates_markdown(gates: list[SceneGates]) -> str:
    """A line for each block and what one must know to read it."""
    first = gates[0]
    return gates_table(
        gates,
        f"Gates of {first.images:,} scenes with {np.count_nonzero(first.count):,} classes. A scene "
        "counts for each class that it has a pixel of. Deviations over images and of the means of "
        "the classes from the mean over all scenes are averages over the channels.",
        None,
    )
