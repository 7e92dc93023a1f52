"""In which order the images of an epoch come: functions of the seed and the epoch."""

import numpy as np
from jaxtyping import Int


class EpochOrder:
    """Orders of epochs, the last two kept.

    Args:
        size: Number of images.
        seed: Seed of the run.
        labels: Class of every image, to draw each class equally often; None draws each image once.
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
