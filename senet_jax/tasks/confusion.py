"""The confusion matrix of semantic segmentation, in exact integers, and the metrics of it.

A row of the matrix is a class of the labels, a column a class of the predictions, as in
scikit-learn. A batch is counted on the devices in int32, which :func:`count_pixels` refuses to let
overflow; the split is summed on the host in int64, which holds the pixels of four trillion images
of Cityscapes.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from senet_jax.errors import UsageError

MOST_PIXELS = 2**31 - 1
"""Most pixels of a batch: the largest int32."""


def count_pixels(
    predicted: Int[Array, "n h w"], label: Int[Array, "n h w"], classes: int, ignore_label: int
) -> Int[Array, "c c"]:
    """Counts the pixels of a batch by their class and the class that is predicted for them.

    The images of each device are counted there; the sum over the batch is the only communication.

    Args:
        predicted: The predicted classes, 0 to ``classes`` - 1. A pixel that is ignored may have
            any prediction.
        label: The classes, of the same shape, or ``ignore_label``, which is not counted.
        classes: Number of classes.
        ignore_label: The label of pixels that have no class.

    Returns:
        The matrix, int32. If a label is neither a class nor ignored, its pixel is not counted.

    Raises:
        UsageError: The batch has more pixels than int32 can count.
    """
    if label.size > MOST_PIXELS:
        raise UsageError(
            f"a batch of evaluation of {label.size:,} pixels cannot be counted, {MOST_PIXELS:,} "
            "are the most: lower --data.eval-batch-size."
        )

    def one(predicted: Int[Array, "h w"], label: Int[Array, "h w"]) -> Int[Array, "c c"]:
        label, predicted = label.astype(jnp.int32), predicted.astype(jnp.int32)
        counts = (label >= 0) & (label < classes) & (label != ignore_label)
        # The pixels that do not count go to a cell of their own, which is cut off.
        cell = jnp.where(counts, label * classes + predicted, classes**2)
        cells = jnp.zeros(classes**2 + 1, jnp.int32).at[cell.ravel()].add(1)
        return cells[:-1].reshape(classes, classes)

    return jnp.sum(jax.vmap(one)(predicted, label), axis=0, dtype=jnp.int32)


def pixel_accuracy(confusion: Int[np.ndarray, "c c"]) -> float:
    """Share of the labelled pixels whose class is predicted, 0 to 1; NaN without any."""
    return _ratio(int(np.trace(confusion)), int(confusion.sum()))


def class_iou(confusion: Int[np.ndarray, "c c"]) -> Float[np.ndarray, " c"]:
    """Intersection over union of each class, 0 to 1.

    NaN for a class that is absent: neither in the labels nor in the predictions.
    """
    intersection = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    ious = np.full(len(union), np.nan)
    np.divide(intersection, union, out=ious, where=union > 0)
    return ious


def mean_iou(confusion: Int[np.ndarray, "c c"]) -> float:
    """Mean IoU over the classes that are present in labels or predictions, 0 to 1.

    This is the convention of PASCAL VOC and torchvision. NaN if no class is present.
    """
    ious = class_iou(confusion)
    present = ious[~np.isnan(ious)]
    return float(present.mean()) if len(present) else float("nan")


def mean_iou_over_all(confusion: Int[np.ndarray, "c c"]) -> float:
    """Mean IoU over all classes, 0 to 1, in which an absent class counts as 0.

    This is the convention of the ResNeSt authors' code (PyTorch-Encoding).
    """
    return float(np.nan_to_num(class_iou(confusion)).mean())


class ConfusionMatrix:
    """An accumulator (``tasks.base.Accumulator``) of confusion matrices and of the loss.

    It takes the sums ``confusion``, of ``count_pixels``, and ``loss``, that of the losses of the
    pixels that count. All hosts have both. An evaluation without a loss leaves it out.

    Args:
        classes: Names of the classes, in the order of their labels.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.names = tuple(classes)
        self.counts = np.zeros((len(self.names), len(self.names)), np.int64)
        """The matrix so far."""
        self._loss: float | None = None

    def add(self, sums: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> None:
        """As ``Accumulator.add``."""
        self.counts += sums["confusion"]
        if "loss" in sums:
            self._loss = (self._loss or 0.0) + float(sums["loss"])

    def part(self) -> Mapping[str, np.ndarray]:
        """As ``Accumulator.part``: nothing, since all hosts have the sums."""
        return {}

    def summary(self, parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
        """The metrics of the split.

        Returns:
            ``miou`` over the classes that are present, ``miou_all`` over all, ``pixel_accuracy``,
            ``loss`` (the mean over the pixels that count) if there were losses,
            ``classes_present`` and, for each class that is present, ``iou/NAME``.
        """
        counts = self.counts
        ious = class_iou(counts)
        present = np.flatnonzero(~np.isnan(ious))
        return {
            "miou": mean_iou(counts),
            "miou_all": mean_iou_over_all(counts),
            "pixel_accuracy": pixel_accuracy(counts),
            **({} if self._loss is None else {"loss": _ratio(self._loss, int(counts.sum()))}),
            "classes_present": float(len(present)),
            **{f"iou/{self.names[index]}": float(ious[index]) for index in present},
        }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
