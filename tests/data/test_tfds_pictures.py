"""Boxes that TensorFlow Datasets keeps, of miniatures of its own sets."""

import pickle
from io import BytesIO

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from senet_jax.data.picture_sets import PictureOptions, open_pictures
from senet_jax.errors import UsageError

Box = tfds.features.BBox


def features(flag):
    """As TFDS has them of COCO and of VOC."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "objects": tfds.features.Sequence(
                {
                    "bbox": tfds.features.BBoxFeature(),
                    "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                    flag: np.bool_,
                }
            ),
        }
    )


def examples(flag, count):
    """Image i has i objects of which the last is flagged."""
    for index in range(count):
        png = BytesIO()
        Image.new("RGB", (40, 20), (index, 0, 0)).save(png, "png")
        png.seek(0)
        objects = [
            {"bbox": Box(0.1, 0.25, 0.6, 0.75), "label": each % 2, flag: each == 2}
            for each in range(index)
        ]
        yield index, {"image": png, "objects": objects}


with tfds.core.registered.skip_registration():

    class Coco(tfds.core.GeneratorBasedBuilder):
        """Four and three images."""

        VERSION = tfds.core.Version("1.1.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2017")]  # noqa: RUF012

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features("is_crowd"))

        def _split_generators(self, dl_manager):
            return {"train": examples("is_crowd", 4), "validation": examples("is_crowd", 3)}

        def _generate_examples(self):
            raise NotImplementedError

    class Voc(Coco):
        """The same with objects that are difficult."""

        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2012")]  # noqa: RUF012

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features("is_difficult"))

        def _split_generators(self, dl_manager):
            return {"train": examples("is_difficult", 4), "test": examples("is_difficult", 3)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (Coco, Voc):
        builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.parametrize("name", ["coco/2017", "voc/2012"])
def test_boxes_are_read_and_flagged_ones_ignored(root, name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):  # The second time from what was kept.
        dataset = open_pictures(name, PictureOptions(root))
        assert dataset.classes == ["cat", "dog"]
        assert dataset.category_ids == (1, 2)
        assert not dataset.masks
        assert (len(dataset.train), len(dataset.val)) == (4, 3)
        whole = next(
            each
            for each in (dataset.train.picture(i, masks=False) for i in range(4))
            if len(each.boxes) == 3
        )
        np.testing.assert_allclose(whole.boxes, [[10, 2, 30, 12]] * 3, atol=1e-4)
        assert whole.labels.tolist() == [0, 1, 0]
        assert whole.crowd.tolist() == [False, False, True]
        assert whole.image.shape == (20, 40, 3)
        assert whole.image[0, 0].tolist() == [3, 0, 0]
    assert sorted(dataset.train.counts.tolist()) == [0, 1, 2, 2]
    again = pickle.loads(pickle.dumps(dataset.train))
    assert np.array_equal(
        again.picture(0, masks=False).image, dataset.train.picture(0, False).image
    )
    assert "record 0 in" in dataset.train.name(0)


def test_a_set_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"coco/2014 is not in .* `tfds build coco/2014"):
        open_pictures("coco/2014", PictureOptions(tmp_path))
