import numpy as np
import pytest

from senet_jax.data.datasets import Dataset
from senet_jax.data.loader import TrainBatches, eval_batches
from senet_jax.data.sources import ArraySource
from senet_jax.errors import UsageError


class BrokenSource(ArraySource):
    """Images with an odd index cannot be read."""

    def read(self, indices):
        images, _ = super().read(indices)
        return images, indices % 2 == 0


def source(count, kind=ArraySource):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return kind(images, np.arange(count, dtype=np.int32))


def batches(count=10, batch_size=3, seed=0, steps=9, kind=ArraySource):
    dataset = Dataset("x", source(count, kind), source(count), list("ab"), (0.5,), (0.5,))
    return TrainBatches(dataset, batch_size, seed, steps)


def labels(sequence):
    return [batch["label"].tolist() for batch in sequence]


def test_an_epoch_shows_every_image_at_most_once_and_drops_the_rest():
    run = batches()
    assert run.steps_per_epoch == 3
    for epoch in range(3):
        parts = [run[3 * epoch + place]["label"] for place in range(3)]
        assert len(set(np.concatenate(parts).tolist())) == 9


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second = labels(batches()[step] for step in (0, 3))
    assert first != second
    assert first != labels([batches(seed=1)[0]])[0]


def test_images_and_labels_belong_together():
    for step in range(9):
        batch = batches()[step]
        assert batch["image"][:, 0, 0, 0].tolist() == batch["label"].tolist()
        assert batch["weight"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("start", [0, 1, 5, 9])
def test_reading_ahead_from_any_step_gives_the_batches_of_random_access(start):
    run = batches()
    assert labels(run.read_ahead(start)) == labels(run[step] for step in range(start, 9))


def test_images_that_cannot_be_read_are_replaced_the_same_way_every_time():
    drawn = [labels(batches(kind=BrokenSource)[step] for step in range(9)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert all(label % 2 == 0 for batch in drawn[0] for label in batch)


def test_a_split_that_is_broken_throughout_is_refused():
    class Hopeless(ArraySource):
        def read(self, indices):
            return super().read(indices)[0], np.zeros(len(indices), bool)

    with pytest.raises(UsageError, match="nearly all"):
        batches(kind=Hopeless)[0]
    # Also through the threads that read ahead.
    with pytest.raises(UsageError, match="nearly all"):
        list(batches(kind=Hopeless).read_ahead(0))


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 16])
def test_evaluation_counts_every_image_once(batch_size):
    parts = list(eval_batches(source(10), batch_size))
    weights = np.concatenate([part["weight"] for part in parts])
    seen = np.concatenate([part["label"] for part in parts])[weights > 0]
    assert seen.tolist() == list(range(10))
    assert all(len(part["label"]) == batch_size for part in parts)


def test_evaluation_does_not_count_what_cannot_be_read():
    parts = list(eval_batches(source(10, BrokenSource), 4))
    weights = np.concatenate([part["weight"] for part in parts])
    assert weights.sum() == 5
