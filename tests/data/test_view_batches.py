import io

import numpy as np
import pytest
from PIL import Image

from senet_jax.data.decode import Unreadable
from senet_jax.data.loader import Host
from senet_jax.data.sources import ArraySource
from senet_jax.data.view_batches import PADDING, ViewBatches
from senet_jax.data.views import Views

VIEWS = (Views(8, "ten-crop"), Views(6, "ten-crop"))


def png(shade):
    file = io.BytesIO()
    Image.new("RGB", (20, 16), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


class Encoded:
    """Images whose shade is ten times their place; the third is damaged, the sixth gone."""

    def __len__(self):
        return 11

    def __getitem__(self, index):
        if index == 5:
            raise Unreadable("gone")
        data = png(10 * index)
        return data[: len(data) // 2] if index == 2 else data, index % 4

    def name(self, index):
        return f"image {index}"


@pytest.mark.parametrize(("hosts", "workers"), [(1, 0), (2, 0), (4, 0), (1, 1)])
def test_every_image_comes_once_over_all_hosts_and_what_is_broken_is_told(hosts, workers):
    batches = [
        list(ViewBatches(Encoded(), VIEWS, 4, host=Host(host, hosts)).read(workers))
        for host in range(hosts)
    ]
    assert {len(own) for own in batches} == {3}
    assert {len(batch.index) for own in batches for batch in own} == {4 // hosts}
    rows = [batch for own in batches for batch in own]
    index = np.concatenate([batch.index for batch in rows])
    assert sorted(index[index >= 0]) == [0, 1, 3, 4, 6, 7, 8, 9, 10]
    assert sorted(index[index < PADDING]) == [-2 - 5, -2 - 2]
    assert sum(index == PADDING) == 1
    errors = {place: reason for batch in rows for place, reason in batch.errors.items()}
    assert errors.keys() == {2, 5}
    assert errors[5] == "gone"
    for batch in rows:
        for view in VIEWS:
            shades = batch.images[view].reshape(len(batch.index), -1)
            there = batch.index >= 0
            np.testing.assert_array_equal(shades.min(1), np.where(there, 10 * batch.index, 0))
            np.testing.assert_array_equal(shades.max(1), np.where(there, 10 * batch.index, 0))
        np.testing.assert_array_equal(batch.label, np.where(there, batch.index % 4, 0))


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
    (batch,) = ViewBatches(Turned(), views, 1, channels=1).read()
    stored, upright = (batch.images[view][0, 0, :, :, 0] for view in views)
    assert stored.ravel().tolist() == list(range(64))
    assert upright.ravel().tolist() == list(range(64))[::-1]


def test_broken_images_in_memory_are_told():
    source = ArraySource(np.ones((3, 8, 8, 1), np.uint8), np.arange(3), {1: "cut off"})
    (batch,) = ViewBatches(source, (Views(8, crop_pct=1.0),), 4, channels=1).read()
    assert batch.index.tolist() == [0, -2 - 1, 2, PADDING]
    assert batch.errors == {1: "cut off"}


def test_grey_networks_are_given_grey_and_arrays_come_as_they_are():
    (batch,) = ViewBatches(Encoded(), (Views(8),), 11, channels=1).read()
    assert batch.images[Views(8)].shape == (11, 1, 8, 8, 1)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    source = ArraySource(images, np.arange(3))
    whole = Views(8, crop_pct=1.0)
    (batch,) = ViewBatches(source, (whole,), 4, channels=1).read()
    np.testing.assert_array_equal(batch.images[whole][:3, 0], images)
    np.testing.assert_array_equal(batch.index, [0, 1, 2, PADDING])
