"""The order of the images of an epoch: a function of the seed and the epoch."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


class EpochOrder:
    """Orders of epochs, the last two kept.

    Args:
        size: Number of images.
        seed: Seed of the run.
        labels: Class of every image, to draw each class equally often; None draws each image once.

    Example:
        >>> order = EpochOrder(size=5, seed=0)
        >>> sorted(order(epoch=3).tolist())
        [0, 1, 2, 3, 4]
        >>> bool((order(3) == EpochOrder(5, seed=0)(3)).all())
        True
    """

    def __init__(
        self, size: int, seed: int, labels: Int[np.ndarray, " size"] | None = None
    ) -> None:
        self._size, self._seed = size, seed
        self._members = None if labels is None else _members(labels)
        self._kept: dict[int, Int[np.ndarray, " size"]] = {}

    def __call__(self, epoch: int) -> Int[np.ndarray, " size"]:
        """Indices of the images of an epoch, as many as there are images."""
        order = self._kept.get(epoch)
        if order is None:
            rng = np.random.default_rng((self._seed, 0, epoch))
            if self._members is None:
                order = rng.permutation(self._size)
            else:
                order = _balanced(self._members, self._size, rng)
            # Threads may ask at once; each then finds the same.
            self._kept = {key: kept for key, kept in self._kept.items() if key == epoch - 1}
            self._kept[epoch] = order
        return order


class GroupedOrder:
    """Orders of epochs whose batches each have images of one group; the last two are kept.

    The images of a group are shuffled and cut into batches, and then the batches of all groups are
    shuffled. What does not fill a batch of its group is left out, other images each epoch.

    Args:
        groups: The images of each group.
        batch_size: Images of a batch.
        seed: Seed of the run.
    """

    def __init__(self, groups: Sequence[Int[np.ndarray, " m"]], batch_size: int, seed: int) -> None:
        self._groups, self._batch_size, self._seed = groups, batch_size, seed
        self._kept: dict[int, tuple[Int[np.ndarray, " b"], Int[np.ndarray, "b s"]]] = {}

    def __call__(self, epoch: int) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, "b s"]]:
        """The group of each batch of an epoch, and its images."""
        order = self._kept.get(epoch)
        if order is None:
            rng = np.random.default_rng((self._seed, 0, epoch))
            of_group, batches = [], []
            for number, images in enumerate(self._groups):
                count = len(images) // self._batch_size
                drawn = rng.permutation(images)[: count * self._batch_size]
                batches.append(drawn.reshape(count, self._batch_size))
                of_group.append(np.full(count, number))
            shuffled = rng.permutation(sum(map(len, batches)))
            order = np.concatenate(of_group)[shuffled], np.concatenate(batches)[shuffled]
            # Threads may ask at once; each then finds the same.
            self._kept = {key: kept for key, kept in self._kept.items() if key == epoch - 1}
            self._kept[epoch] = order
        return order


def steps_of_groups(groups: Sequence[Int[np.ndarray, " m"]], batch_size: int) -> int:
    """Batches of an epoch of ``GroupedOrder``."""
    return sum(len(images) // batch_size for images in groups)


def _members(labels: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, " m"]]:
    """The images of each class that has any; negative labels stand for none."""
    order = np.argsort(labels, kind="stable")
    order = order[np.count_nonzero(labels < 0) :]
    starts = np.flatnonzero(np.diff(labels[order])) + 1
    return np.split(order, starts)


def _balanced(
    members: list[Int[np.ndarray, " m"]], size: int, rng: np.random.Generator
) -> Int[np.ndarray, " size"]:
    """Draws ``size`` images, of each class equally many (or one more, by chance), in random order.

    No image of a class comes again before all of the class have come.
    """
    shares = np.full(len(members), size // len(members))
    shares[rng.permutation(len(members))[: size % len(members)]] += 1
    drawn = [
        np.concatenate([rng.permutation(own) for _ in range(-(-share // len(own)))])[:share]
        for own, share in zip(members, shares.tolist(), strict=True)
        if share
    ]
    return rng.permutation(np.concatenate(drawn))
