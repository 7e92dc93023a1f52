import numpy as np
import pytest

from senet_jax.data.order import EpochOrder


def test_every_image_once_in_an_order_of_the_epoch_and_the_seed():
    orders = [EpochOrder(50, seed)(epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    again = EpochOrder(50, 0)
    assert [again(1).tolist(), again(0).tolist()] == [orders[1], orders[0]]


@pytest.mark.parametrize("counts", [(30, 5, 1), (7, 7, 7), (1, 50, 0, 3)])
def test_balanced_classes_come_equally_often(counts):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    order = EpochOrder(len(labels), 3, labels)
    totals = np.zeros(len(counts), int)
    for epoch in range(20):
        drawn = order(epoch)
        assert len(drawn) == len(labels)
        seen = np.bincount(labels[drawn], minlength=len(counts))
        present = seen[np.array(counts) > 0]
        assert present.max() - present.min() <= 1
        assert np.array_equal(seen > 0, np.array(counts) > 0)
        totals += seen
        # No image comes twice more often than another of its class.
        times = np.bincount(drawn, minlength=len(labels))
        for label in range(len(counts)):
            own = times[labels == label]
            assert not len(own) or own.max() - own.min() <= 1
    # The classes that have one more are drawn anew each epoch.
    assert totals[totals > 0].std() < 4


def test_balanced_orders_are_shuffled_and_repeatable():
    labels = np.repeat(np.arange(4), 10)
    order = EpochOrder(40, 0, labels)
    assert not np.array_equal(labels[order(0)], np.sort(labels[order(0)]))
    assert not np.array_equal(order(0), order(1))
    assert np.array_equal(order(0), EpochOrder(40, 0, labels)(0))
