import logging

import numpy as np
import pytest
from PIL import Image

from senet_jax.data.datasets import open_dataset
from senet_jax.data.sources import FolderSource
from senet_jax.errors import UsageError


def write(file, size, colour, mode="RGB"):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(file)


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / split / "cat" / "a.png", (8, 8), (255, 0, 0))
        write(tmp_path / split / "cat" / "b.png", (16, 8), (0, 255, 0))
        write(tmp_path / split / "dog" / "c.png", (5, 11), 77, "L")
    (tmp_path / "train" / "dog" / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_is_a_data_set_with_the_folders_as_classes(folder):
    dataset = open_dataset("folder", folder, 8)
    assert dataset.classes == ["cat", "dog"]
    assert dataset.train.labels.tolist() == [0, 0, 1]
    images, intact = dataset.train.read(np.arange(3))
    assert intact.all()
    assert images.shape == (3, 8, 8, 3)
    assert [image[4, 4].tolist() for image in images] == [[255, 0, 0], [0, 255, 0], [77] * 3]


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (8, 16), (9, 8), (31, 17)])
def test_the_centre_is_cut_out_at_the_scale_of_the_shorter_side(tmp_path, size):
    width, height = size
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    (tmp_path / "x").mkdir()
    Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / "x" / "ramp.png")
    image = FolderSource(tmp_path, 8, ["x"]).read(np.array([0]))[0][0]
    # A ramp is symmetric about the centre, and so is a crop of its centre.
    pairs = image[:, :, 0].astype(int) + image[:, ::-1, 0]
    assert np.abs(pairs - 255).max() <= 4 + 255 // width
    assert image.shape == (8, 8, 3)


def test_a_broken_image_is_named_once_and_marked(folder, caplog):
    whole = (folder / "train" / "cat" / "a.png").read_bytes()
    (folder / "train" / "cat" / "a.png").write_bytes(whole[: len(whole) // 2])
    (folder / "train" / "cat" / "b.png").write_bytes(b"")
    source = FolderSource(folder / "train", 8, ["cat", "dog"])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            _, intact = source.read(np.arange(3))
            assert intact.tolist() == [False, False, True]
    assert len(caplog.records) == 2
    assert "a.png" in caplog.text
    assert len(source.broken) == 2


def test_what_is_missing_is_said(folder, tmp_path):
    with pytest.raises(UsageError, match=r"--data\.dir and --data\.image-size"):
        open_dataset("folder")
    with pytest.raises(UsageError, match="there is no folder"):
        open_dataset("folder", tmp_path / "nowhere", 8)
    write(folder / "val" / "bird" / "d.png", (8, 8), 0)
    with pytest.raises(UsageError, match="bird"):
        open_dataset("folder", folder, 8)
    (tmp_path / "none" / "empty").mkdir(parents=True)
    with pytest.raises(UsageError, match="no images"):
        FolderSource(tmp_path / "none", 8, ["empty"])
