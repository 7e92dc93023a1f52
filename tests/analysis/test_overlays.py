import numpy as np
import pytest
from PIL import Image

from senet_jax.analysis.overlays import STRENGTH, draw_overlays, overlay, write_label
from senet_jax.analysis.pictures import draw_images
from senet_jax.data.label_files import decode_label
from senet_jax.data.scene_names import voc_colors
from senet_jax.errors import UsageError

PALETTE = ((0, 0, 255), (255, 0, 0), (0, 255, 0))


def test_pixels_take_the_colour_of_their_class_in_part():
    image = np.full((2, 2, 3), 100, np.uint8)
    label = np.array([[0, 1], [255, 2]], np.uint8)
    shown = overlay(image, label, PALETTE)
    for (row, column), index in (((0, 0), 0), ((0, 1), 1), ((1, 1), 2)):
        expected = 100 + STRENGTH * (np.array(PALETTE[index]) - 100)
        assert shown[row, column] == pytest.approx(expected, abs=0.5)
    assert (shown[1, 0] == 100).all(), "an ignored pixel keeps its colour"
    assert (image == 100).all()


def test_grey_images_take_colours_too():
    shown = overlay(np.full((1, 1, 1), 50, np.uint8), np.array([[1]]), PALETTE)
    assert shown.tolist() == [[[173, 20, 20]]]


def drawn(tmp_path, labels, name):
    images = np.full((len(labels), 8, 8, 3), 128, np.uint8)
    file = tmp_path / "folder" / f"{name}.png"
    names = ["sky", "a $ sign", "_car"]
    draw_overlays(file, images, labels, [""] * len(labels), names, PALETTE)
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def test_a_legend_names_the_classes_that_are_there(tmp_path):
    some = np.zeros((4, 8, 8), np.uint8)
    some[1:, :4] = 1
    some[2, 7] = 255
    picture = drawn(tmp_path, some, "some")

    def has(color):
        return (np.abs(picture - color).sum(-1) <= 6).any()

    # The patches of the legend have the pure colours, the images do not.
    assert has(PALETTE[0])
    assert has(PALETTE[1])
    assert not has(PALETTE[2])
    without = tmp_path / "without.png"
    draw_images(without, np.full((4, 8, 8, 3), 128, np.uint8), [""] * 4)
    assert len(picture) > len(np.asarray(Image.open(without)))


def test_a_label_is_written_as_it_is_read(tmp_path):
    label = np.random.default_rng(0).integers(0, 11, (7, 9))
    label[0, 0] = 255
    file = write_label(tmp_path / "label.png", label, voc_colors(11))
    assert np.array_equal(decode_label(file.read_bytes()), label)
    shown = np.asarray(Image.open(file).convert("RGB"))
    assert tuple(shown[1, 1]) == voc_colors(11)[label[1, 1]]


def test_many_classes_are_written_with_sixteen_bits(tmp_path):
    label = np.array([[0, 299], [65535, 7]])
    file = write_label(tmp_path / "label.png", label, [(0, 0, 0)] * 300)
    assert np.array_equal(decode_label(file.read_bytes()), label)
    for value in (-1, 65536):
        with pytest.raises(UsageError, match="0 to 65535"):
            write_label(file, np.array([[value]]), PALETTE)
