import io

import numpy as np
import pytest
from PIL import Image

from senet_jax.data.decode import Unreadable
from senet_jax.data.loader import PADDING, EvalBatches, Host
from senet_jax.data.sources import ArraySource, EncodedSource
from senet_jax.data.views import ViewedExamples, Views, view_name

VIEWS = (Views(8, "ten-crop"), Views(6, "ten-crop"))


def png(shade):
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


class Encoded(EncodedSource):
    """Images whose shade is ten times their place; the third is damaged, the sixth gone."""

    labels = np.arange(11) % 4

    def __len__(self):
        return 11

    def __getitem__(self, index):
        if index == 5:
            raise Unreadable("gone")
        data = png(10 * index)
        return data[: len(data) // 2] if index == 2 else data, index % 4

    def name(self, index):
        return f"image {index}"


def read(source, views, batch_size, channels=3, host=None, workers=0):
    """The batches of the views of a split."""
    batches = EvalBatches(ViewedExamples(source, views, channels), batch_size, host or Host())
    return list(batches.read(workers))


@pytest.mark.parametrize(("hosts", "workers"), [(1, 0), (2, 0), (4, 0), (1, 1)])
def test_all_hosts_give_every_image_once_and_name_broken_ones(hosts, workers):
    batches = [
        read(Encoded(), VIEWS, 4, host=Host(host, hosts), workers=workers) for host in range(hosts)
    ]
    assert {len(own) for own in batches} == {3}
    assert {len(batch.arrays["index"]) for own in batches for batch in own} == {4 // hosts}
    rows = [batch for own in batches for batch in own]
    index = np.concatenate([batch.arrays["index"] for batch in rows])
    assert sorted(index[index >= 0]) == [0, 1, 3, 4, 6, 7, 8, 9, 10]
    assert sorted(index[index < PADDING]) == [-2 - 5, -2 - 2]
    assert sum(index == PADDING) == 1
    errors = {place: reason for batch in rows for place, reason in batch.errors.items()}
    assert errors.keys() == {2, 5}
    assert errors[5] == "gone"
    for batch in rows:
        places = batch.arrays["index"]
        there = places >= 0
        for view in range(len(VIEWS)):
            shades = batch.arrays[view_name(view)].reshape(len(places), -1)
            np.testing.assert_array_equal(shades.min(1), np.where(there, 10 * places, 0))
            np.testing.assert_array_equal(shades.max(1), np.where(there, 10 * places, 0))
        np.testing.assert_array_equal(batch.arrays["label"], np.where(there, places % 4, 0))


def test_views_are_turned_by_exif_where_they_ask_for_it():
    exif = Image.Exif()
    exif[0x0112] = 3
    file = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file, "PNG", exif=exif)

    class Turned(Encoded):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return file.getvalue(), 0

    views = Views(8, crop_pct=1.0), Views(8, crop_pct=1.0, exif_orientation=True)
    (batch,) = read(Turned(), views, 1, channels=1)
    stored, upright = (batch.arrays[view_name(view)][0, 0, :, :, 0] for view in range(2))
    assert stored.ravel().tolist() == list(range(64))
    assert upright.ravel().tolist() == list(range(64))[::-1]


def test_broken_images_in_memory_are_told():
    source = ArraySource(np.ones((3, 8, 8, 1), np.uint8), np.arange(3), {1: "cut off"})
    (batch,) = read(source, (Views(8, crop_pct=1.0),), 4, channels=1)
    assert batch.arrays["index"].tolist() == [0, -2 - 1, 2, PADDING]
    assert batch.errors == {1: "cut off"}


def test_grey_networks_get_grey_and_arrays_stay_as_they_are():
    (batch,) = read(Encoded(), (Views(8),), 11, channels=1)
    assert batch.arrays[view_name(0)].shape == (11, 1, 8, 8, 1)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    source = ArraySource(images, np.arange(3))
    whole = Views(8, crop_pct=1.0)
    (batch,) = read(source, (whole,), 4, channels=1)
    np.testing.assert_array_equal(batch.arrays[view_name(0)][:3, 0], images)
    np.testing.assert_array_equal(batch.arrays["index"], [0, 1, 2, PADDING])
