"""The count of what was right: top-1, top-5, loss, by class, and what is taken for what."""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from senet_jax.tasks.classification import TOP, rank
from senet_jax.text import comma_separated, spreadsheet


@dataclasses.dataclass
class Tally:
    """Sums over images, exact whatever the batches."""

    classes: int
    count: int = 0
    """Images counted."""
    unlabelled: int = 0
    """Images that have no valid label, and are not counted."""
    right: int = 0
    right5: int = 0
    """Images with a valid label among the first five."""
    several: bool = False
    """An image had several valid labels; then there is no loss and nothing by class."""
    loss: float = 0.0
    pairs: Counter[tuple[int, int]] = dataclasses.field(default_factory=Counter)
    """The number of times that a class (first) was taken for a class (second)."""
    right5_of: Counter[int] = dataclasses.field(default_factory=Counter)

    def add(self, log_p: Float[np.ndarray, "n classes"], valid: Int[np.ndarray, "n most"]) -> None:
        """Counts images.

        Args:
            log_p: Logarithms of the probabilities. Ties go to the lower class; an image with a NaN
                is wrong.
            valid: The valid labels of each image, filled up with -1.
        """
        labelled = (valid >= 0).any(axis=1)
        self.unlabelled += int(np.sum(~labelled))
        log_p, valid = log_p[labelled], valid[labelled]
        ranks = [
            np.where(labels >= 0, rank(log_p, np.maximum(labels, 0), np), self.classes)
            for labels in valid.T
        ]
        best = np.min(ranks, axis=0)
        self.count += len(valid)
        self.right += int(np.sum(best < 1))
        # The rank of an image with a NaN is the number of classes, which may be below five.
        among = best < min(TOP, self.classes)
        self.right5 += int(np.sum(among))
        self.several |= bool((np.sum(valid >= 0, axis=1) > 1).any())
        label = valid.max(axis=1)
        self.loss -= float(np.take_along_axis(log_p, label[:, None], axis=1).sum())
        # A row with a NaN is taken for no class.
        taken = np.where(np.isnan(log_p).any(axis=1), -1, log_p.argmax(axis=1))
        self.pairs.update(zip(label.tolist(), taken.tolist(), strict=True))
        self.right5_of.update(label[among].tolist())

    def metrics(self) -> dict[str, Any]:
        """As keys of ``metrics.jsonl``, as far as they are defined.

        There is no top-5 of five classes or fewer, and no loss of several valid labels.
        """
        values: dict[str, Any] = {"val/top1": self.right / self.count, "val/count": self.count}
        if not self.several:
            values["val/loss"] = self.loss / self.count
        if self.classes > TOP:
            values["val/top5"] = self.right5 / self.count
        return values

    def by_class(self) -> "ByClass":
        """The same by class."""
        images, right = np.zeros((2, self.classes), np.int64)
        for (label, taken), times in self.pairs.items():
            images[label] += times
            right[label] += times * (label == taken)
        right5 = np.array([self.right5_of[label] for label in range(self.classes)])
        return ByClass(images, right, right5, self.pairs)


@dataclasses.dataclass(frozen=True)
class ByClass:
    """The accuracy of each class."""

    images: Int[np.ndarray, " classes"]
    right: Int[np.ndarray, " classes"]
    right5: Int[np.ndarray, " classes"]
    pairs: Counter[tuple[int, int]]

    def ordered(self) -> list[int]:
        """The classes that have images, the worst first; of equal ones that of the lower label."""
        there = [int(label) for label in np.flatnonzero(self.images)]
        return sorted(there, key=lambda label: (self.right[label] / self.images[label], label))

    def confusions(self, most: int) -> list[tuple[int, int, int]]:
        """The most frequent (class, taken for, times)."""
        wrong = [
            (label, taken, times)
            for (label, taken), times in self.pairs.items()
            if taken not in (label, -1)
        ]
        return sorted(wrong, key=lambda row: (-row[2], row[0], row[1]))[:most]

    def to_csv(self, names: list[str]) -> str:
        """A line a class; a class without images has no accuracy."""
        head = ("label", "class", "images", "right", "top1", "top5", "taken_for", "times")
        rows: list[tuple[object, ...]] = [head]
        worst: dict[int, tuple[int, int]] = {}
        for label, taken, times in self.confusions(len(self.pairs)):
            worst.setdefault(label, (taken, times))
        for label, name in enumerate(names):
            images = self.images[label]
            rates = [x[label] / images if images else "" for x in (self.right, self.right5)]
            taken, times = worst.get(label, (-1, 0))
            taken_for = spreadsheet(names[taken]) if times else ""
            shown = spreadsheet(name)
            rows.append((label, shown, images, self.right[label], *rates, taken_for, times))
        return comma_separated(rows)
