"""Segmentation at several scales, in crops that slide over each scaled image.

This is how ResNeSt's authors measure what they report (PyTorch-Encoding,
``encoding/models/sseg/base.py``, ``MultiEvalModule``). At each scale an image is resized bilinearly
without antialiasing, is made as large as a crop by black pixels to the right and below, and is cut
into crops two thirds of their side apart. The score of a pixel is the exponential of its logits, to
which those of the mirrored crop are added; it is no softmax. Scores are averaged over the crops
that have the pixel, resized to the size of the image, and added over the scales.

To resize an axis and to cut it is one product with a matrix, which is data: the network is compiled
once, for the crop, and what surrounds it once for each shape that images are padded to.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from senet_jax.data.examples import Batch
from senet_jax.data.scenes import EvalScenes
from senet_jax.network import Network
from senet_jax.ops.resize import bilinear_sources
from senet_jax.tasks.base import Measured
from senet_jax.tasks.confusion import count_pixels
from senet_jax.tasks.segmentation import OUT, Segmentation
from senet_jax.training.distributed.mesh import over_batch, replicated, to_devices
from senet_jax.training.evaluate import EvalGroups, eval_batches, measure_batches

LARGEST_LOGIT = 85.0
"""Sums of logits are cut off here: float32 has no exponential of 89, and sums of such follow."""

SCORE_BYTES = 2**30
"""Bytes of the scores of the images that a device has at a time, if there is more than one."""


@dataclasses.dataclass(frozen=True)
class Sliding:
    """The scales of an image and the crops of it that a network is shown."""

    crop: tuple[int, int]
    """Height and width of the crops, pixels."""
    align_corners: bool
    """The grid on which images and scores are resized, see ``resize_bilinear``; the authors resize
    them as their network resizes its maps."""
    scales: tuple[float, ...] = (1.0,)
    """Multiples of ``base``."""
    flip: bool = False
    """Add the logits of the mirrored crop."""
    base: int | None = None
    """Side of a scaled image at scale 1, pixels; if None, the image's own."""
    side: Literal["long", "short"] = "long"
    """Side of an image that ``base`` is for; the authors' is the longer one."""

    def scaled(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        """Height and width of a scaled image, pixels.

        Args:
            size: Height and width of the image, pixels.
            scale: One of ``scales``.
        """
        long = self.side == "long"
        own = max(size) if long else min(size)
        side = math.ceil((self.base or own) * scale)
        # As the training crops: the authors round the other side, torchvision cuts it off.
        height, width = (
            (2 * each * side + own) // (2 * own) if long else each * side // own for each in size
        )
        return max(height, 1), max(width, 1)


def grid(side: int, crop: int) -> int:
    """Number of crops along an axis of this many pixels."""
    return math.ceil((max(side, crop) - crop) / stride(crop)) + 1


def stride(crop: int) -> int:
    """Distance between crops along an axis, pixels."""
    return max(2 * crop // 3, 1)


class Taps(NamedTuple):
    """The rows of a matrix with two entries each, which resizes an axis and cuts it."""

    source: Int[np.ndarray, "rows 2"]
    """The columns of the entries; one outside the matrix does not count."""
    weight: Float[np.ndarray, "rows 2"]


def crop_taps(before: int, after: int, crop: int, place: int, align_corners: bool) -> Taps:
    """From the pixels of an axis to those of a crop of the resized axis; beyond it is zero.

    Args:
        before: Pixels of the axis.
        after: Pixels of the resized axis.
        crop: Pixels of a crop.
        place: The crop among those of the axis.
        align_corners: As in ``resize_bilinear``.
    """
    source, weight = bilinear_sources(before, after, align_corners)
    part = slice(place * stride(crop), place * stride(crop) + crop)
    return _padded(source[part], weight[part], crop)


def score_taps(
    before: int, after: int, crop: int, place: int, align_corners: bool, rows: int
) -> Taps:
    """From the scores of a crop to its part in those of the axis; zero beyond the axis.

    Over all crops of an axis the parts add up to the mean over the crops, resized.

    Args:
        before: Pixels of the axis.
        after: Pixels of the resized axis.
        crop: Pixels of a crop.
        place: The crop among those of the axis. One that the axis does not have has no part.
        align_corners: As in ``resize_bilinear``.
        rows: Pixels of the axis with padding.
    """
    if place >= grid(after, crop):
        return _padded(np.zeros((0, 2)), np.zeros((0, 2)), rows)
    starts = np.arange(grid(after, crop)) * stride(crop)
    pixels = np.arange(after)[:, None]
    crops = ((starts <= pixels) & (pixels < starts + crop)).sum(1)
    source, weight = bilinear_sources(after, before, align_corners)
    return _padded(source - starts[place], weight / crops[source], rows)


def _padded(source: np.ndarray, weight: np.ndarray, rows: int) -> Taps:
    taps = Taps(np.zeros((rows, 2), np.int32), np.zeros((rows, 2), np.float32))
    taps.source[: len(source)], taps.weight[: len(weight)] = source, weight
    return taps


class SlidingScores:
    """The scores of the classes of all pixels of images.

    Args:
        network: A network of segmentation; a batch is sharded over its mesh.
        variables: ``params`` and ``batch_stats``.
        sliding: The scales and the crops.
    """

    def __init__(self, network: Network, variables: Mapping[str, Any], sliding: Sliding) -> None:
        self.sliding, self.mesh = sliding, network.mesh
        self._variables = jax.device_put(variables, replicated(network.mesh))
        divided = over_batch(network.mesh)

        def forward(variables: Any, crops: Float[Array, "n y x 3"]) -> Float[Array, "n y x c"]:
            logits: Float[Array, "n y x c"] = network.apply(variables, crops)[OUT]
            return logits

        self._forward = network.jit(
            forward, in_shardings=(replicated(network.mesh), divided), out_shardings=divided
        )
        self._cut = network.jit(_cut, out_shardings=divided)
        self._start = network.jit(_start, out_shardings=divided)
        self._add = network.jit(_add, out_shardings=divided, donate_argnums=0)

    def __call__(
        self,
        images: UInt8[np.ndarray, "n h w 3"],
        sizes: Int[np.ndarray, "n 2"],
        all_sizes: Int[np.ndarray, "m 2"],
    ) -> Float[Array, "n h w c"]:
        """Scores of a batch; zero of padding.

        Args:
            images: This host's images with padding to the right and below.
            sizes: Their own heights and widths, pixels.
            all_sizes: Those of all images of a group, by which all hosts know how many crops there
                are at the most.
        """
        frame = images.shape[1:3]
        sizes = np.maximum(sizes, 1)  # A row without an image has none.
        pixels = to_devices(images, self.mesh)
        total: Any = None
        for scale in self.sliding.scales:
            scaled = [self.sliding.scaled((h, w), scale) for h, w in sizes.tolist()]
            largest = np.max(
                [
                    self.sliding.scaled((h, w), scale)
                    for h, w in np.unique(all_sizes, axis=0).tolist()
                ],
                axis=0,
            )
            down, across = (grid(*each) for each in zip(largest, self.sliding.crop, strict=True))
            for row in range(down):
                for column in range(across):
                    total = self._crop(total, pixels, sizes, scaled, (row, column), frame)
            # Work that waits for the devices takes memory.
            jax.block_until_ready(total)
        return total

    def forget(self) -> None:
        """Drops the programs that belong to shapes of images; that of the network stays."""
        programs: tuple[Any, ...] = (self._cut, self._start, self._add)
        for program in programs:
            program.clear_cache()

    def _crop(
        self,
        total: Any,
        pixels: Any,
        sizes: Int[np.ndarray, "n 2"],
        scaled: Sequence[tuple[int, int]],
        place: tuple[int, int],
        frame: tuple[int, ...],
    ) -> Any:
        """Adds the scores of one crop of each image."""
        align, crop = self.sliding.align_corners, self.sliding.crop
        to_crop, to_scores = [], []
        for axis in (0, 1):
            side, at, rows = crop[axis], place[axis], frame[axis]
            lengths = sizes[:, axis].tolist(), [each[axis] for each in scaled]
            pairs = list(zip(*lengths, strict=True))
            to_crop.append(
                _stacked([crop_taps(own, other, side, at, align) for own, other in pairs])
            )
            to_scores.append(
                _stacked([score_taps(own, other, side, at, align, rows) for own, other in pairs])
            )
        rows, columns, back_rows, back_columns = to_devices((*to_crop, *to_scores), self.mesh)
        logits = [self._forward(self._variables, self._cut(pixels, rows, columns, False))]
        if self.sliding.flip:
            logits.append(self._forward(self._variables, self._cut(pixels, rows, columns, True)))
        if total is None:
            total = self._start(pixels, logits[0])
        return self._add(total, logits, back_rows, back_columns)


def _stacked(taps: Sequence[Taps]) -> Taps:
    return Taps(*(np.stack(each) for each in zip(*taps, strict=True)))


def _matrix(taps: Any, length: int) -> Float[Array, "n rows {length}"]:
    hit = taps.source[..., None] == jnp.arange(length)
    return jnp.sum(jnp.where(hit, taps.weight[..., None], 0), axis=2)


def _apply(rows: Any, columns: Any, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
    """Multiplies both axes of maps by matrices of their own."""
    down, across = _matrix(rows, x.shape[1]), _matrix(columns, x.shape[2])
    x = jnp.einsum("nyh,nhwc->nywc", down, x, precision=lax.Precision.HIGHEST)
    return jnp.einsum("nxw,nywc->nyxc", across, x, precision=lax.Precision.HIGHEST)


def _cut(images: UInt8[Array, "n h w 3"], rows: Any, columns: Any, mirrored: Any) -> Array:
    """A crop of each scaled image, 0 to 255; black beyond the image."""
    crop = _apply(rows, columns, images.astype(jnp.float32))
    return jnp.where(mirrored, crop[:, :, ::-1], crop)


def _start(images: UInt8[Array, "n h w 3"], logits: Float[Array, "n y x c"]) -> Array:
    return jnp.zeros((*images.shape[:3], logits.shape[3]), jnp.float32)


def _add(
    total: Float[Array, "n h w c"], logits: list[Array], rows: Any, columns: Any
) -> Float[Array, "n h w c"]:
    """Adds what a crop says: its logits and, if there are, those of the mirrored crop."""
    both = logits[0] + sum(each[:, :, ::-1] for each in logits[1:])
    return total + _apply(rows, columns, jnp.exp(jnp.minimum(both, LARGEST_LOGIT)))


def evaluate_sliding(
    task: Segmentation,
    network: Network,
    variables: Mapping[str, Any],
    groups: Sequence[EvalScenes],
    batch_size: int,
    sliding: Sliding,
    workers: int = 0,
) -> dict[str, float]:
    """Evaluates variables on all images of a split; see the module.

    Args:
        task: The task.
        network: The network; a batch is sharded over its mesh.
        variables: ``params`` and ``batch_stats``.
        groups: The split: each image is in one of them.
        batch_size: Images of a step at the most; there are fewer if their scores would take more
            than ``SCORE_BYTES`` of a device.
        sliding: The scales and the crops.
        workers: Processes that prepare the images; 0 means threads.

    Returns:
        The metrics as keys of ``metrics.jsonl``, without a loss: scores are no probabilities.

    Raises:
        UsageError: Not one image of the split could be read, or the network does not take the crop.
        RuntimeError: Images were lost or counted twice.
    """
    mesh, classes = network.mesh, len(task.names)
    pixels = max(math.prod(group.size) for group in groups)
    most = mesh.size * max(SCORE_BYTES // (4 * classes * pixels), 1)
    # All groups have batches of one size, for which the network is compiled once.
    size = min(batch_size, most, max(map(len, groups)))
    batches = EvalGroups(tuple(eval_batches(group, size, mesh) for group in groups))
    sizes: dict[tuple[int, int], Any] = {}
    for group in groups:
        own = group.scenes.sizes[group.indices]
        sizes[group.size] = np.concatenate([sizes.get(group.size, own[:0]), own])
    scores = SlidingScores(network, variables, sliding)

    def count(scores: Array, label: Array, weight: Array) -> dict[str, Array]:
        label = jnp.where(weight[:, None, None] > 0, label, task.ignore_label)
        predicted = jnp.argmax(scores, axis=-1)
        return {
            "confusion": count_pixels(predicted, label, classes, task.ignore_label),
            "count": jnp.sum(weight),
        }

    counted = network.jit(count, out_shardings=replicated(mesh))

    def dispatch(batch: Batch) -> Measured:
        height, width = batch["label"].shape[1:]
        found = scores(batch["image"], batch["size"], sizes[height, width])
        label, weight = to_devices((batch["label"], batch["weight"]), mesh)
        return Measured(counted(found, label, weight), {})

    return measure_batches(task, batches, dispatch, workers)
