import dataclasses

import numpy as np
import pytest

from senet_jax.config import TrainConfig
from senet_jax.data.datasets import Dataset, open_dataset
from senet_jax.data.sources import ArraySource, EncodedSource
from senet_jax.data.subset import some, training_share
from senet_jax.errors import UsageError
from senet_jax.training.run import Run


class Photographs(EncodedSource):
    """A hundred photographs whose bytes say which they are."""

    labels = np.arange(100, dtype=np.int32) % 7

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return str(index).encode(), int(self.labels[index])

    def name(self, index):
        return f"{index}.jpg"


def test_a_share_of_small_images_is_always_the_same():
    digits = open_dataset("digits")
    share = training_share(digits, 0.1)
    assert len(share.train) == 144
    whole = {image.tobytes() for image in digits.train.images}
    assert {image.tobytes() for image in share.train.images} <= whole
    again = training_share(digits, 0.1)
    np.testing.assert_array_equal(share.train.images, again.train.images)
    assert share.val is digits.val
    assert training_share(digits, 1.0) is digits


def test_broken_images_in_memory_keep_their_place():
    source = ArraySource(np.zeros((4, 2, 2, 1), np.uint8), np.arange(4), {1: "one", 3: "three"})
    assert source.taken(np.array([3, 0])).broken == {0: "three"}
    assert source.read(np.array([3, 0]), ())[1] == {0: "three"}


def test_a_share_of_photographs_keeps_labels_and_names():
    photographs = Photographs()
    dataset = Dataset("p", photographs, photographs, [str(c) for c in range(7)], (0.5,), (0.2,))
    train = training_share(dataset, 0.25).train
    assert len(train) == 25
    read = [train[index] for index in range(25)]
    places = [int(data) for data, _ in read]
    assert len(set(places)) == 25
    assert [label for _, label in read] == [place % 7 for place in places]
    assert train.labels.tolist() == [place % 7 for place in places]
    assert train.name(3) == f"{places[3]}.jpg"


def test_some_images_of_a_split_and_those_at_given_places():
    photographs, val = Photographs(), open_dataset("digits").val
    assert some(val, 360) is val
    few = some(photographs, 3)
    assert [few[index] for index in range(3)] == [some(photographs, 3)[i] for i in range(3)]
    assert sorted(map(few.name, range(3)), key=lambda name: int(name[:-4])) == [
        few.name(index) for index in range(3)
    ]
    two = val.taken(np.array([7, 5]))
    np.testing.assert_array_equal(two.images, val.images[[7, 5]])
    assert [photographs.taken(np.array([7, 5]))[index] for index in (0, 1)] == [
        (b"7", 0),
        (b"5", 5),
    ]


def test_a_run_trains_on_its_share():
    config = TrainConfig()
    data = dataclasses.replace(config.data, name="digits", fraction=0.2, batch_size=32)
    model = dataclasses.replace(config.model, name="cifar_resnet8")
    run = Run(dataclasses.replace(config, data=data, model=model, epochs=3))
    assert len(run.dataset.train) == 287
    assert run.batches.steps == 3 * 8


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_a_share_is_above_zero_and_at_most_all(fraction):
    config = TrainConfig()
    data = dataclasses.replace(config.data, fraction=fraction)
    with pytest.raises(UsageError, match=r"data\.fraction must be above 0 and at most 1"):
        dataclasses.replace(config, data=data).validate()
