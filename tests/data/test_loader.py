import dataclasses
import logging
import shutil

import numpy as np
import pytest
from photographs import write_photographs

from senet_jax.data import workers
from senet_jax.data.config import AugmentConfig, DataConfig
from senet_jax.data.datasets import Dataset, open_dataset
from senet_jax.data.loader import EvalBatches, Host, TrainBatches
from senet_jax.data.sources import ArraySource
from senet_jax.errors import UsageError
from senet_jax.tasks.classification import Classification


def source(count):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return ArraySource(images, np.arange(count, dtype=np.int32))


def batches(count=10, batch_size=3, seed=0, steps=9, **fields):
    return TrainBatches([source(count)], batch_size, seed, steps, **fields)


def labels(sequence):
    return [batch["label"].tolist() for batch in sequence]


def at(run, steps):
    """The batches of some steps."""
    return [run[step][0] for step in steps]


def same(left, right):
    return all(
        a.tobytes() == b.tobytes() for a, b in zip(left.values(), right.values(), strict=True)
    )


def test_images_without_a_label_are_refused():
    unlabelled = ArraySource(source(4).images, np.array([0, 1, -1, 2], np.int32))
    dataset = Dataset("x", unlabelled, unlabelled, list("abc"), (0.5,), (0.5,))
    task = Classification()
    with pytest.raises(UsageError, match="training image has the label -1"):
        TrainBatches(task.examples(dataset, "train"), 4, 0, 1)[0]
    with pytest.raises(UsageError, match="validation image has the label -1"):
        list(EvalBatches(*task.examples(dataset, "val"), 2).read())


def test_images_in_memory_that_are_all_broken_are_refused():
    broken = ArraySource(source(4).images, source(4).labels, dict.fromkeys(range(4), "cut"))
    with pytest.raises(UsageError, match=r"nearly all .* \(cut\)"):
        TrainBatches([broken], 4, 0, 1)[0]


def test_an_epoch_shows_an_image_at_most_once_and_drops_the_rest():
    run = batches()
    assert run.steps_per_epoch == 3
    for epoch in range(3):
        parts = [run[3 * epoch + place][0]["label"] for place in range(3)]
        assert len(set(np.concatenate(parts).tolist())) == 9


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second = labels(at(batches(), (0, 3)))
    assert first != second
    assert first != labels(at(batches(seed=1), [0]))[0]


def test_images_and_labels_belong_together():
    for step in range(9):
        batch, _ = batches()[step]
        assert batch["image"][:, 0, 0, 0].tolist() == batch["label"].tolist()
        assert batch.keys() == {"image", "label"}


@pytest.mark.parametrize("start", [0, 1, 5, 9])
def test_prefetching_from_any_step_equals_random_access(start):
    run = batches()
    assert labels(run.prefetch(start)) == labels(at(run, range(start, 9)))


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 16])
def test_evaluation_counts_every_image_once(batch_size):
    parts = [batch.arrays for batch in EvalBatches(source(10), batch_size).read()]
    weights = np.concatenate([part["weight"] for part in parts])
    seen = np.concatenate([part["label"] for part in parts])[weights > 0]
    assert seen.tolist() == list(range(10))
    assert all(len(part["label"]) == batch_size for part in parts)


@pytest.fixture
def photographs(tmp_path):
    """18 training photographs of 3 classes, and 5 of validation."""
    write_photographs(tmp_path / "train")
    write_photographs(tmp_path / "val", (2, 2, 1), seed=1)
    return tmp_path


def photo_batches(folder, sizes=(12,), balanced=False, **fields):
    data = DataConfig(train_sizes=sizes, balanced=balanced, augment=AugmentConfig(flip=True))
    task, dataset = Classification(data=data), open_dataset("folder", folder, 12)
    settings = {"batch_size": 4, "seed": 0, "steps": 12, **fields}
    forms = task.examples(dataset, "train")
    labels = task.classes(dataset)
    return TrainBatches(forms, classes=lambda: labels, **settings)


def eval_parts(folder, workers=0, host=None):
    task = Classification(data=DataConfig(crop_pct=1.0))
    (examples,) = task.examples(open_dataset("folder", folder, 12), "val")
    return list(EvalBatches(examples, 4, host or Host()).read(workers))


def test_any_workers_and_any_start_give_the_same_batches(photographs):
    expected = at(photo_batches(photographs), range(12))
    assert expected[0]["image"].shape == (4, 12, 12, 3)
    assert not same(expected[0], expected[4])
    for workers_, start in ((0, 0), (0, 5), (2, 7)):
        read = list(photo_batches(photographs, workers=workers_).prefetch(start))
        assert len(read) == 12 - start
        assert all(same(a, b) for a, b in zip(expected[start:], read, strict=True))


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_read_the_rows_of_the_same_global_batch(photographs, hosts, balanced):
    whole = photo_batches(photographs, balanced=balanced)
    parts = [dataclasses.replace(whole, host=Host(index, hosts)) for index in range(hosts)]
    for step in (0, 3, 9):
        for key, value in whole[step][0].items():
            assert np.array_equal(np.concatenate([part[step][0][key] for part in parts]), value)


def test_hosts_stay_in_step_where_images_are_broken(photographs):
    for index in range(0, 9, 2):
        (photographs / "train" / "cat" / f"{index:02}.jpg").write_bytes(b"")
    whole = photo_batches(photographs)
    parts = [dataclasses.replace(whole, host=Host(index, 2)) for index in range(2)]
    for step in range(12):
        halves = [part[step][0]["image"] for part in parts]
        assert np.array_equal(np.concatenate(halves), whole[step][0]["image"])


def test_balanced_classes_come_equally_often(photographs):
    run = photo_batches(photographs, batch_size=6, steps=6, balanced=True)
    for epoch in range(2):
        drawn = np.concatenate([run[3 * epoch + place][0]["label"] for place in range(3)])
        assert np.bincount(drawn).tolist() == [6, 6, 6]


def test_images_without_a_label_belong_to_no_class(photographs):
    run = photo_batches(photographs, batch_size=6, steps=3, balanced=True)
    labels = run.classes()
    labels[3] = -1
    order = np.concatenate([run._order(epoch) for epoch in range(3)])
    assert 3 not in order
    assert np.bincount(labels[order]).tolist() == [18, 18, 18]


def test_sizes_take_equal_shares_of_the_epochs(photographs):
    run = photo_batches(photographs, sizes=(4, 8, 12))
    sides = [batch["image"].shape[1] for batch in run.prefetch(0)]
    assert sides == [4] * 4 + [8] * 4 + [12] * 4


def break_photographs(folder, count):
    for file in sorted((folder / "train").glob("*/*.jpg"))[:count]:
        file.write_bytes(file.read_bytes()[:300])


@pytest.mark.parametrize("workers_", [0, 1])
def test_broken_images_are_replaced_and_each_is_named_once(photographs, caplog, workers_):
    break_photographs(photographs, 5)
    with caplog.at_level(logging.WARNING, "senet_jax"):
        read = list(photo_batches(photographs, workers=workers_).prefetch(0))
    again = photo_batches(photographs)
    assert all(same(batch, again[step][0]) for step, batch in enumerate(read))
    named = [record.getMessage() for record in caplog.records if "broken image" in record.message]
    assert len(named) == 5
    assert len({line for line in named if "cat/0" in line}) == 5


def test_the_broken_images_of_a_step_are_named(photographs):
    (photographs / "train" / "cat" / "00.jpg").rename(photographs / "train" / "cat" / "\033.jpg")
    break_photographs(photographs, 1)
    named = [entry for step in range(4) for entry in photo_batches(photographs).broken(step)]
    assert [name.rpartition("/")[2] for name, _ in named] == ["\\x1b.jpg"]


def test_too_many_broken_images_stop_the_run(photographs):
    break_photographs(photographs, 9)
    assert len(list(photo_batches(photographs, steps=40).prefetch(0))) == 40
    break_photographs(photographs, 10)
    with pytest.raises(UsageError, match=r"10 of 1\d training images .* data\.max_corrupt"):
        list(photo_batches(photographs, steps=40).prefetch(0))
    assert len(list(photo_batches(photographs, steps=40, max_corrupt=0.7).prefetch(0))) == 40


def test_a_split_that_is_broken_throughout_is_refused(photographs):
    break_photographs(photographs, 18)
    with pytest.raises(UsageError, match="nearly all"):
        photo_batches(photographs)[0]


@pytest.mark.parametrize("workers_", [0, 1])
def test_a_data_set_that_vanishes_gives_one_clear_error(photographs, workers_):
    reading = photo_batches(photographs, steps=4000, workers=workers_).prefetch(0)
    next(reading)
    # At once, as a disk that is unmounted; file by file they would be broken images at first.
    (photographs / "train").rename(photographs / "elsewhere")
    with pytest.raises(UsageError, match="can no longer be read: bring it back"):
        list(reading)


# One more worker process adds nothing to test_view_batches.py, which reads with the same code.
@pytest.mark.parametrize("workers_", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_views_are_evaluated_once_and_broken_ones_do_not_count(photographs, workers_):
    (photographs / "val" / "dog" / "00.jpg").write_bytes(b"")
    parts = eval_parts(photographs, workers_)
    assert [part.arrays["weight"].tolist() for part in parts] == [[1, 1, 0, 1], [1, 0, 0, 0]]
    assert [part.arrays["label"].tolist() for part in parts] == [[0, 0, 0, 1], [2, 0, 0, 0]]
    assert [part.arrays["index"].tolist() for part in parts] == [[0, 1, -4, 3], [4, -1, -1, -1]]
    assert [list(part.errors) for part in parts] == [[2], []]
    halves = [eval_parts(photographs, host=Host(index, 2)) for index in range(2)]
    for part, *both in zip(parts, *halves, strict=True):
        for name, whole in part.arrays.items():
            assert np.array_equal(np.concatenate([h.arrays[name] for h in both]), whole)


def test_too_little_shared_memory_is_refused_before_a_bus_error(photographs, monkeypatch):
    monkeypatch.setattr(
        workers.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0)
    )
    with pytest.raises(UsageError, match="shm-size"):
        next(photo_batches(photographs, workers=2).prefetch(0))
