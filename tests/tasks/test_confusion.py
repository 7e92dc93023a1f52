import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from sklearn import metrics

from senet_jax.errors import UsageError
from senet_jax.tasks.confusion import (
    ConfusionMatrix,
    class_iou,
    count_pixels,
    mean_iou,
    mean_iou_over_all,
    pixel_accuracy,
)

CLASSES, IGNORE = 5, 255


def drawn(seed=0, shape=(8, 13, 17), classes=CLASSES):
    """Labels with ignored pixels, and predictions that are right about half of the time."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, shape).astype(np.uint8)
    predicted = np.where(rng.random(shape) < 0.5, label, rng.integers(0, classes, shape))
    label[rng.random(shape) < 0.3] = IGNORE
    return predicted.astype(np.int32), label


def counted(predicted, label, classes=CLASSES, ignore=IGNORE):
    return np.asarray(count_pixels(jnp.array(predicted), jnp.array(label), classes, ignore))


def test_counts_are_those_of_scikit_learn():
    predicted, label = drawn()
    valid = label != IGNORE
    expected = metrics.confusion_matrix(label[valid], predicted[valid], labels=range(CLASSES))
    found = counted(predicted, label)
    assert found.dtype == np.int32
    assert np.array_equal(found, expected)
    assert found.sum() == valid.sum()


def test_metrics_are_those_of_scikit_learn():
    predicted, label = drawn(1)
    confusion = counted(predicted, label)
    valid = label != IGNORE
    right, guess = label[valid], predicted[valid]
    ious = metrics.jaccard_score(right, guess, labels=range(CLASSES), average=None)
    assert class_iou(confusion) == pytest.approx(ious, abs=1e-15)
    assert mean_iou(confusion) == pytest.approx(ious.mean(), abs=1e-15)
    assert pixel_accuracy(confusion) == metrics.accuracy_score(right, guess)


def test_an_absent_class_is_left_out_or_counts_as_zero():
    label = np.array([[[0, 0, 1, 1, 3, IGNORE]]])
    predicted = np.array([[[0, 1, 1, 1, 0, 4]]])
    confusion = counted(predicted, label)
    ious = class_iou(confusion)
    # Class 3 is in the labels alone; 2 is nowhere, and 4 only where pixels are ignored.
    assert ious[:2] == pytest.approx([1 / 3, 2 / 3])
    assert ious[3] == 0
    assert np.isnan(ious[[2, 4]]).all()
    assert mean_iou(confusion) == pytest.approx((1 / 3 + 2 / 3) / 3)
    assert mean_iou_over_all(confusion) == pytest.approx((1 / 3 + 2 / 3) / 5)


def test_a_class_that_is_only_predicted_is_present():
    confusion = counted(np.array([[[2]]]), np.array([[[0]]]))
    assert class_iou(confusion)[2] == 0
    assert mean_iou(confusion) == 0
    assert np.isnan(class_iou(confusion)[1])


def test_without_a_labelled_pixel_nothing_is_measured():
    confusion = counted(np.zeros((1, 2, 2), int), np.full((1, 2, 2), IGNORE))
    assert confusion.sum() == 0
    assert np.isnan([mean_iou(confusion), pixel_accuracy(confusion)]).all()
    assert mean_iou_over_all(confusion) == 0


def test_an_ignore_label_among_the_class_numbers_is_ignored():
    predicted, label = drawn(2)
    found = counted(predicted, np.where(label == IGNORE, 3, label), ignore=3)
    assert not found[3].any()
    kept = (label != IGNORE) & (label != 3)
    assert found.sum() == kept.sum()


def test_eight_devices_count_as_one():
    predicted, label = drawn(3)
    mesh = jax.make_mesh((8,), ("data",))
    divided = NamedSharding(mesh, PartitionSpec("data"))
    count = jax.jit(
        count_pixels, static_argnums=(2, 3), out_shardings=NamedSharding(mesh, PartitionSpec())
    )
    found = count(jax.device_put(predicted, divided), jax.device_put(label, divided), 5, IGNORE)
    assert np.array_equal(found, counted(predicted, label))


def test_a_batch_that_int32_cannot_count_is_refused():
    rows = jax.ShapeDtypeStruct((1025, 1024, 2048), jnp.uint8)
    with pytest.raises(UsageError, match=r"2,149,580,800 pixels .* lower --data.eval-batch-size"):
        jax.eval_shape(lambda a, b: count_pixels(a, b, 2, 255), rows, rows)


def test_batches_merge_into_the_matrix_of_all():
    accumulator = ConfusionMatrix("abcde")
    predicted, label = drawn(4)
    for rows in (slice(0, 3), slice(3, 8)):
        sums = {
            "confusion": counted(predicted[rows], label[rows]),
            "loss": np.float32((label[rows] != IGNORE).sum() / 4),
        }
        accumulator.add(sums, {})
    whole = counted(predicted, label)
    summary = accumulator.summary([accumulator.part()])
    assert np.array_equal(accumulator.counts, whole)
    assert summary["miou"] == mean_iou(whole)
    assert summary["miou_all"] == mean_iou_over_all(whole)
    assert summary["pixel_accuracy"] == pixel_accuracy(whole)
    assert summary["loss"] == pytest.approx(1 / 4)
    assert [summary[f"iou/{name}"] for name in "abcde"] == class_iou(whole).tolist()
    assert summary["classes_present"] == 5


def test_the_sum_over_batches_exceeds_int32():
    accumulator = ConfusionMatrix("ab")
    batch = np.array([[2**31 - 1, 0], [1, 3]], np.int32)
    for _ in range(3):
        accumulator.add({"confusion": batch, "loss": np.float32(0)}, {})
    assert accumulator.counts.tolist() == [[3 * (2**31 - 1), 0], [3, 9]]
    assert 0 < accumulator.summary([{}])["pixel_accuracy"] < 1


def test_an_absent_class_has_no_metric_of_its_own():
    accumulator = ConfusionMatrix(["road", "car", "sky"])
    accumulator.add({"confusion": np.diag([4, 0, 2]), "loss": np.float32(3)}, {})
    summary = accumulator.summary([{}])
    assert [key for key in summary if key.startswith("iou/")] == ["iou/road", "iou/sky"]
    assert summary["classes_present"] == 2
