"""A trained network of semantic segmentation: of a run, or of a file of weights."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from senet_jax.config import TrainConfig
from senet_jax.data.config import DataConfig
from senet_jax.data.scenes import EvalScenes, SceneDataset
from senet_jax.inference.sliding import Sliding, evaluate_sliding
from senet_jax.inference.trained import restore_run
from senet_jax.interchange import load_weights, network_of
from senet_jax.interchange.state_dict import WeightsOf
from senet_jax.models.configured import model_fields
from senet_jax.models.segmentation.segmenter import Segmenter
from senet_jax.tasks.segmentation import Segmentation
from senet_jax.training.evaluate import evaluate
from senet_jax.training.run import Run


@dataclasses.dataclass(frozen=True)
class TrainedSegmenter:
    """A network of segmentation with its data, on all devices that are here."""

    name: str
    """Its name as the user gave it."""
    step: int | None
    """The step of a checkpoint; None for a file of weights."""
    run: Run
    variables: dict[str, Any]
    """``params`` and ``batch_stats``."""

    @property
    def task(self) -> Segmentation:
        """Its task."""
        task = self.run.task
        assert isinstance(task, Segmentation)
        return task

    @property
    def dataset(self) -> SceneDataset:
        """Its data, or a stand-in of the same facts."""
        dataset = self.run.dataset
        assert isinstance(dataset, SceneDataset)
        return dataset

    def sliding(
        self,
        scales: tuple[float, ...] = (1.0,),
        *,
        flip: bool = False,
        crop: tuple[int, int] | None = None,
        base: int | None = None,
    ) -> Sliding:
        """Crops that slide over the scaled images.

        Args:
            scales: As in ``Sliding``.
            flip: Likewise.
            crop: Likewise; if None, that of the training.
            base: Likewise; if None, that of the training.
        """
        model, config = self.run.model, self.run.config.data.crop
        height, width = self.dataset.image_shape[:2]
        return Sliding(
            crop=crop or config.shape or (height, width),
            align_corners=isinstance(model, Segmenter) and model.align_corners,
            scales=scales,
            flip=flip,
            base=base or config.base,
            side=config.side,
        )

    def evaluate(
        self, sliding: Sliding | None = None, *, own_sizes: bool = False
    ) -> dict[str, float]:
        """Evaluates the network on the validation split.

        Args:
            sliding: The scales and crops. None shows the network each image as it is, with the
                padding of its group.
            own_sizes: Show it each image without padding; each size is a program of its own.

        Returns:
            As ``training.evaluate.evaluate``; sliding crops have no loss.

        Raises:
            UsageError: Not one image can be read, or the network does not take the crop.
        """
        run, config = self.run, self.run.config.data
        workers = config.workers if self.dataset.photographs else 0
        if sliding is not None:
            groups: list[EvalScenes] = []
            for group in run.val:
                assert isinstance(group, EvalScenes)
                groups.append(group)
            return evaluate_sliding(
                self.task,
                run.network,
                self.variables,
                groups,
                config.eval_batch_size,
                sliding,
                workers,
            )
        if not own_sizes:
            return run.evaluate(self.variables)
        sizes = len(np.unique(self.dataset.val.sizes, axis=0))
        by_size = dataclasses.replace(
            self.task, data=dataclasses.replace(config, eval_shapes=sizes)
        )
        return evaluate(
            self.task,
            run.programs.evaluate,
            self.variables,
            by_size.examples(self.dataset, "val"),
            config.eval_batch_size,
            run.mesh,
            workers,
        )


def segmenter_run(
    path: Path, which: Literal["last", "best"] = "last", *, with_data: bool = False
) -> TrainedSegmenter:
    """A run's network; arguments and errors as ``restore_run``."""
    run, step, variables = restore_run(path, which, with_data=with_data)
    return TrainedSegmenter(str(path), step, run, variables)


def segmenter_weights(
    source: str,
    network: str,
    data: DataConfig,
    dataset: SceneDataset | None = None,
    *,
    weights_of: WeightsOf = "auto",
) -> TrainedSegmenter:
    """The network of a file of weights.

    Args:
        source: A file, or "hf-hub:owner/repository".
        network: Name in the zoo; a file that ``save_weights`` wrote says what differs from it.
        data: The data set, and how the network takes images.
        dataset: The data set if it is open already, or a ``Card.stand_in``.
        weights_of: As in ``load_weights``.

    Raises:
        UsageError: The data set is not there, or the weights cannot be had or read.
        MisfitError: The weights do not fit the network with as many classes as the data set has.
    """
    # Nothing is trained: one image fits any training split, and no auxiliary head is needed.
    data = dataclasses.replace(data, batch_size=1)
    model = dataclasses.replace(network_of(source, network), aux=False)  # type: ignore[call-arg]
    config = TrainConfig(run_dir=Path(), task=Segmentation.name, model=model, data=data)
    run = Run(config, dataset)
    variables = load_weights(
        source,
        network,
        weights_of=weights_of,
        channels=run.dataset.image_shape[2],
        **model_fields(model, len(run.dataset.classes)),
    )
    return TrainedSegmenter(source, None, run, variables)
