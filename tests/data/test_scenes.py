import numpy as np
import pytest
from scene_folder import write_masks

from senet_jax.data.config import AugmentConfig, CropConfig
from senet_jax.data.examples import Draws
from senet_jax.data.loader import EvalBatches, Host, TrainBatches
from senet_jax.data.scene_sets import SceneOptions, open_scenes
from senet_jax.data.scene_transforms import SceneTransform
from senet_jax.data.scenes import ArrayScenes, TrainScenes, evaluation_scenes
from senet_jax.errors import UsageError

SIZES = ((6, 8), (8, 6), (5, 9), (6, 8), (12, 5))


@pytest.fixture
def folder(tmp_path):
    write_masks(tmp_path, train=9, val=7, sizes=SIZES)
    return tmp_path


def opened(folder):
    return open_scenes("masks", SceneOptions(folder, frame=(8, 8)))


def train_batches(folder, **fields):
    view = SceneTransform(
        (8, 8), CropConfig(scale=(0.5, 2)), AugmentConfig(flip=True), (0, 0, 0), 255
    )
    examples = TrainScenes(opened(folder).train, view, 3)
    return TrainBatches([examples], **{"batch_size": 4, "seed": 0, "steps": 6, **fields})


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


def test_batches_of_training_have_image_and_label(folder):
    batch, broken = train_batches(folder)[0]
    assert not broken
    assert batch["image"].shape == (4, 8, 8, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].shape == (4, 8, 8)
    assert batch["label"].dtype == np.uint8
    assert set(np.unique(batch["label"])) <= {0, 1, 2, 255}


# test_loader.py has the quick test of the same: the loader knows nothing of the examples.
@pytest.mark.slow
def test_any_workers_and_any_start_give_the_same_batches(folder):
    run = train_batches(folder)
    expected = [run[step][0] for step in range(6)]
    assert not same(expected[0], expected[2])
    for workers, start in ((0, 0), (2, 3)):
        read = list(train_batches(folder, workers=workers).prefetch(start))
        assert len(read) == 6 - start
        assert all(same(*pair) for pair in zip(expected[start:], read, strict=True))


def test_hosts_read_the_rows_of_the_same_batch(folder):
    whole = train_batches(folder)
    parts = [train_batches(folder, host=Host(index, 2)) for index in range(2)]
    for step in (0, 3):
        for key, value in whole[step][0].items():
            joined = np.concatenate([part[step][0][key] for part in parts])
            assert np.array_equal(joined, value)


def test_a_broken_scene_is_replaced(folder):
    (folder / "images/train/03.png").write_bytes(b"")
    run = train_batches(folder)
    broken = [index for step in range(2) for index, _ in run[step][1]]
    assert broken == [3] or not broken
    assert sum(len(run[step][1]) for step in range(6)) > 0


def groups_of(folder, shapes, fill=(1, 2, 3)):
    return evaluation_scenes(opened(folder).val, 3, fill, shapes)


@pytest.mark.parametrize("shapes", [1, 2, 8])
@pytest.mark.parametrize("hosts", [1, 2])
def test_every_scene_is_evaluated_once_at_its_own_size(folder, shapes, hosts):
    val = opened(folder).val
    groups = groups_of(folder, shapes)
    assert len(groups) == min(shapes, 4)
    seen = []
    for group in groups:
        for host in range(hosts):
            for batch in EvalBatches(group, 2 * hosts, Host(host, hosts)).read():
                for row in np.flatnonzero(batch.arrays["weight"]):
                    arrays = {name: values[row] for name, values in batch.arrays.items()}
                    index = int(group.indices[arrays["index"]])
                    scene = val.scene(index)
                    height, width = arrays["size"]
                    assert scene.label.shape == (height, width)
                    assert np.array_equal(arrays["image"][:height, :width], scene.image)
                    assert np.array_equal(arrays["label"][:height, :width], scene.label)
                    assert (arrays["label"][height:] == 255).all()
                    assert (arrays["label"][:, width:] == 255).all()
                    assert (arrays["image"][height:] == (1, 2, 3)).all()
                    seen.append(index)
    assert sorted(seen) == list(range(7))


def test_a_row_without_an_image_is_ignored(folder):
    (group, *_) = groups_of(folder, 1)
    last = list(EvalBatches(group, 4).read())[-1].arrays
    assert last["weight"].tolist() == [1, 1, 1, 0]
    assert (last["label"][3] == 255).all()


def test_names_are_those_of_the_split(folder):
    for group in groups_of(folder, 3):
        for place, index in enumerate(group.indices):
            assert group.name(place) == opened(folder).val.name(index)


def test_with_as_many_shapes_as_sizes_nothing_is_padded(folder):
    assert all(
        (group.scenes.sizes[group.indices] == group.size).all() for group in groups_of(folder, 4)
    )


def test_a_scene_that_has_grown_is_refused(folder):
    groups = groups_of(folder, 4)
    write_masks(folder, train=1, val=7, sizes=((20, 20),))
    with pytest.raises(UsageError, match="was not 20x20 pixels when the data set was opened"):
        groups[0].read(np.array([0]), [Draws(0)])


def test_scenes_in_memory_have_one_shape():
    images = np.zeros((5, 4, 6, 3), np.uint8)
    scenes = ArrayScenes(images, np.zeros((5, 4, 6), np.uint8))
    (group,) = evaluation_scenes(scenes, 2, (0, 0, 0), 8)
    assert group.size == (4, 6)
    assert group.indices.tolist() == list(range(5))
    assert scenes.taken(np.array([1, 2])).sizes.tolist() == [[4, 6], [4, 6]]
