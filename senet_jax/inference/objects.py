"""The objects in images, by a run of detection."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from senet_jax.data.picture_examples import padded, rounded_up, shown_image
from senet_jax.data.pictures import PictureDataset
from senet_jax.inference.trained import restore_run
from senet_jax.network import Network
from senet_jax.ops.masks import PasteStyle, paste_masks
from senet_jax.tasks.detection import Detection
from senet_jax.tasks.detections import on_original
from senet_jax.training.distributed.mesh import make_mesh


@dataclasses.dataclass(frozen=True)
class Found:
    """The objects of an image, those of the best scores first."""

    boxes: Float[np.ndarray, "k 4"]
    """x1, y1, x2, y2 in pixels of the image."""
    labels: Int[np.ndarray, " k"]
    """Classes, from 0."""
    scores: Float[np.ndarray, " k"]
    """0 to 1."""
    masks: "PastedMasks | None"
    """The pixels of each object; None of a network without a mask head."""


class PastedMasks(Sequence[np.ndarray]):
    """The masks of objects, bool (h, w), each pasted into its image when it is read.

    All of a large image at once would take gigabytes.

    Args:
        masks: Probabilities in a grid over each box.
        boxes: In pixels of the image.
        height: Rows of the image.
        width: Columns of the image.
        style: Whose rule of pasting.
    """

    def __init__(
        self,
        masks: Float[np.ndarray, "k m m"],
        boxes: Float[np.ndarray, "k 4"],
        height: int,
        width: int,
        style: PasteStyle,
    ) -> None:
        self._masks, self._boxes = masks, boxes
        self._size, self._style = (height, width), style

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, index: Any) -> Any:
        """The mask of one object, (h, w), or those of a slice, (j, h, w)."""
        if isinstance(index, slice):
            masks, boxes = self._masks[index], self._boxes[index]
            return paste_masks(masks, boxes, *self._size, self._style)
        own = self._masks[index][None], self._boxes[index][None]
        return paste_masks(*own, *self._size, self._style)[0]


class ObjectDetector:
    """A trained network of detection on one device.

    It is compiled once for each shape of images, whose sides are multiples of 32 pixels.

    Args:
        path: Folder of a run, or of one of its checkpoints.
        which: As in ``restore_run``.

    Raises:
        UsageError: There is no such run or checkpoint, or it cannot be read.
    """

    def __init__(self, path: Path, which: Literal["last", "best"] = "last") -> None:
        run, self.step, variables = restore_run(path, which)
        assert isinstance(run.dataset, PictureDataset)
        assert isinstance(run.task, Detection)
        self.classes: Sequence[str] = run.dataset.classes
        """Names of the classes."""
        self.category_ids = run.dataset.category_ids
        """The number of each class in the annotations of the data set."""
        self.exif_orientation = run.config.data.exif_orientation
        """The run turned images by their EXIF."""
        self._objects, task = run.config.data.objects, run.task
        self._paste = task.paste
        network = Network(
            run.model,
            run.network.normalization,
            make_mesh(1, devices=jax.devices()[:1]),
            run.config.conv_lowering,
        )

        def find(variables: Any, arrays: Any) -> Any:
            return network.apply(variables, *task.inputs(arrays, train=False))

        self._variables = jax.device_get(variables)
        self._find = network.jit(find)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], least_score: float = 0.0) -> Found:
        """Finds the objects of an image.

        Args:
            image: The image, of any size.
            least_score: Objects with lower scores are left out.

        Raises:
            UsageError: The image is smaller or longer than the network takes.
        """
        shown = shown_image(image, self._objects)
        size, original = np.array(shown.shape[:2], np.int32), np.array(image.shape[:2], np.int32)
        arrays = {
            "image": padded(shown, rounded_up(shown.shape[:2]))[None],
            "size": size[None],
        }
        outputs = {
            name: np.asarray(rows[0]) for name, rows in self._find(self._variables, arrays).items()
        }
        kept = np.flatnonzero(outputs["valid"] & (outputs["scores"] >= least_score))
        boxes = on_original(outputs["boxes"][kept], size, original)
        masks = None
        if "masks" in outputs:
            height, width = image.shape[:2]
            masks = PastedMasks(outputs["masks"][kept], boxes, height, width, self._paste)
        return Found(boxes, outputs["labels"][kept] - 1, outputs["scores"][kept], masks)
