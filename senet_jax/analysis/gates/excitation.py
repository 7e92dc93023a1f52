"""Statistics of gates over images and classes, as in section 7 of the SENet paper.

Of each class and channel a mean and a sum of squared deviations are kept in float64 and joined
batch by batch (Chan, Golub and LeVeque 1979), so that the result does not depend on the batches and
a small deviation about a large mean is not lost. All else follows from these.
"""

import dataclasses
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from senet_jax.analysis.gates.probe import Probe
from senet_jax.analysis.gates.sites import Block


class Moments:
    """Means and squared deviations of vectors, by class.

    Args:
        classes: Number of classes.
        shape: Shape of a vector.
    """

    def __init__(self, classes: int, shape: tuple[int, ...]) -> None:
        self.count = np.zeros(classes, np.int64)
        self.mean = np.zeros((classes, *shape))
        self.squares = np.zeros((classes, *shape))
        """Sums of squared deviations from the mean of the class."""

    def add(self, values: Float[np.ndarray, "n ..."], label: Int[np.ndarray, " n"]) -> None:
        """Joins some more vectors to those of their classes."""
        for one in np.unique(label):
            more = values[label == one].astype(np.float64)
            mean = more.mean(axis=0)
            before, added = self.count[one], len(more)
            total, gap = before + added, mean - self.mean[one]
            self.squares[one] += np.square(more - mean).sum(axis=0)
            self.squares[one] += np.square(gap) * (before * added / total)
            self.mean[one] += gap * (added / total)
            self.count[one] = total


@dataclasses.dataclass(frozen=True)
class Gates:
    """The gates of a block over images. Standard deviations are those of a population (1 / n)."""

    block: Block
    count: Int[np.ndarray, " classes"]
    """Images of each class."""
    class_mean: Float[np.ndarray, "classes *paths c"]
    """Not a number where a class has no images, as what follows from it."""
    class_std: Float[np.ndarray, "classes *paths c"]
    """Over the images of a class."""
    shut: float
    """Share of the gates, over images, channels and pixels, that are shut (``probe.EDGE``)."""
    open: float
    """Share of the gates that are open."""
    output: Float[np.ndarray, " c"]
    """Mean magnitude of what leaves the attention."""

    @cached_property
    def mean(self) -> Float[np.ndarray, "*paths c"]:
        """Over all images."""
        return np.average(self._there(self.class_mean), axis=0, weights=self.count[self._seen])

    @cached_property
    def within(self) -> Float[np.ndarray, "*paths c"]:
        """Variance over the images of a class, averaged over all images."""
        squares = np.square(self._there(self.class_std))
        return np.average(squares, axis=0, weights=self.count[self._seen])

    @cached_property
    def between(self) -> Float[np.ndarray, "*paths c"]:
        """Variance of the means of the classes, each image counting its class's once."""
        squares = np.square(self._there(self.class_mean) - self.mean)
        return np.average(squares, axis=0, weights=self.count[self._seen])

    @property
    def std(self) -> Float[np.ndarray, "*paths c"]:
        """Over all images."""
        return np.sqrt(self.within + self.between)

    @property
    def specificity(self) -> float | None:
        """Share of the variance over images that lies between classes, over all channels.

        It is epsilon squared: 1 less the ratio of the variances within the classes and over all,
        each by its degrees of freedom (n - classes and n - 1), as in the adjusted R squared. A gate
        that knows nothing of the class has 0 on average, where the plain share would grow as the
        images of a class become few; it may fall below. None where a class has no second image or
        the gate never changes.
        """
        images, classes = int(self.count.sum()), len(self._seen)
        total = float((self.within + self.between).sum())
        if images <= classes or total <= 0:
            return None
        within = float(self.within.sum()) * images / (images - classes)
        return 1 - within / (total * images / (images - 1))

    @property
    def _seen(self) -> Int[np.ndarray, " there"]:
        return np.flatnonzero(self.count)

    def _there(
        self, of_classes: Float[np.ndarray, "classes ..."]
    ) -> Float[np.ndarray, "there ..."]:
        return of_classes[self._seen]


def read_gates(probe: Probe) -> list[Gates]:
    """Shows a network its images once and gathers the gates of all blocks, from the image on.

    Raises:
        UsageError: Not one image could be read.
    """
    classes = probe.member.classes
    moments = {block.name: Moments(classes, block.shape) for block in probe.blocks}
    sums: dict[str, list[np.ndarray | float]] = {block.name: [0.0] * 3 for block in probe.blocks}
    for label, seen in probe.gates():
        for name, one in seen.items():
            moments[name].add(one.gate, label)
            more = (one.shut, one.open, one.output)
            sums[name] = [
                total + x.sum(axis=0, dtype=np.float64)
                for total, x in zip(sums[name], more, strict=True)
            ]
    return [_gates(block, moments[block.name], sums[block.name]) for block in probe.blocks]


def _gates(block: Block, moments: Moments, sums: list[np.ndarray | float]) -> Gates:
    count = moments.count.reshape(-1, *[1] * len(block.shape))
    with np.errstate(invalid="ignore"):
        mean = np.where(count > 0, moments.mean, np.nan)
        std = np.sqrt(moments.squares / count)
    shut, opened, output = (total / moments.count.sum() for total in sums)
    return Gates(block, moments.count, mean, std, float(shut), float(opened), np.asarray(output))
