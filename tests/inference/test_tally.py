import csv
import io

import numpy as np
import pytest

from senet_jax.inference.tally import Tally


def log_probabilities(count, classes, seed=0):
    logits = np.random.default_rng(seed).normal(size=(count, classes))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_sums_are_those_of_numpy_whatever_the_batches():
    log_p, rng = log_probabilities(97, 8), np.random.default_rng(1)
    labels = rng.integers(0, 7, 97)
    tally = Tally(8)
    for start in range(0, 97, 13):
        tally.add(log_p[start : start + 13], labels[start : start + 13, None])
    place = (log_p > log_p[np.arange(97), labels][:, None]).sum(1)
    assert tally.metrics() == {
        "val/top1": (place == 0).mean(),
        "val/top5": (place < 5).mean(),
        "val/count": 97,
        "val/loss": pytest.approx(-log_p[np.arange(97), labels].mean(), rel=1e-12),
    }

    confusion = np.zeros((8, 8), int)
    np.add.at(confusion, (labels, log_p.argmax(1)), 1)
    by_class = tally.by_class()
    np.testing.assert_array_equal(by_class.images, confusion.sum(1))
    np.testing.assert_array_equal(by_class.right, confusion.diagonal())
    share = confusion.diagonal()[:7] / confusion.sum(1)[:7]
    assert by_class.ordered() == list(np.argsort(share, kind="stable"))
    np.fill_diagonal(confusion, 0)
    label, taken, times = by_class.confusions(1)[0]
    assert times == confusion.max() == confusion[label, taken]

    names = [f"class, {label}" for label in range(8)]
    rows = list(csv.DictReader(io.StringIO(by_class.to_csv(names))))
    assert [row["class"] for row in rows] == names
    assert rows[7]["top1"] == rows[7]["top5"] == rows[7]["taken_for"] == ""
    for label in range(7):
        mine = labels == label
        assert float(rows[label]["top1"]) == (place[mine] == 0).mean()
        assert float(rows[label]["top5"]) == (place[mine] < 5).mean()
        assert int(rows[label]["times"]) == confusion[label].max()
        assert confusion[label, names.index(rows[label]["taken_for"])] == confusion[label].max()


def test_of_equal_ones_the_first_comes_first_and_nan_is_wrong():
    tally = Tally(6)
    log_p = np.zeros((4, 6))
    log_p[3, 5] = np.nan
    tally.add(log_p, np.array([[0], [4], [5], [0]]))
    assert (tally.right, tally.right5, tally.count) == (1, 2, 4)
    assert tally.by_class().confusions(9) == [(4, 0, 1), (5, 0, 1)]


def test_any_of_several_labels_is_right_and_none_is_not_counted():
    tally = Tally(6)
    log_p = np.log(np.tile([0.05, 0.1, 0.15, 0.2, 0.22, 0.28], (4, 1)))
    tally.add(log_p, np.array([[0, 5], [4, 3], [-1, -1], [0, -1]]))
    assert (tally.count, tally.unlabelled, tally.right, tally.right5) == (3, 1, 1, 2)
    assert tally.metrics() == {"val/top1": 1 / 3, "val/top5": 2 / 3, "val/count": 3}


def test_nan_is_wrong_among_fewer_than_five_classes_too():
    tally = Tally(3)
    tally.add(np.full((2, 3), np.nan), np.array([[0], [2]]))
    assert (tally.right, tally.right5, tally.count) == (0, 0, 2)


def test_five_classes_have_no_top_5():
    tally = Tally(5)
    tally.add(log_probabilities(3, 5), np.zeros((3, 1), int))
    assert "val/top5" not in tally.metrics()
