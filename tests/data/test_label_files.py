import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from senet_jax.data.decode import Unreadable
from senet_jax.data.label_files import (
    BadValue,
    LabelMap,
    decode_label,
    ignore_label,
    label_size,
    label_type,
)
from senet_jax.errors import UsageError

LABELS = np.array([[0, 1, 2], [3, 2, 255]], np.uint8)


def png(image, mode=None, palette=None):
    made = Image.fromarray(image) if mode is None else Image.fromarray(image).convert(mode)
    if palette is not None:
        made = Image.frombytes("P", image.shape[::-1], image.tobytes())
        made.putpalette(palette)
    out = BytesIO()
    made.save(out, "PNG")
    return out.getvalue()


def raw_png(rows, bits, colour=0):
    """A PNG written byte by byte: Pillow saves no grey of 2 or 4 bits."""
    height, width = len(rows), len(rows[0])

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    packed = b""
    for row in rows:
        number = int(
            "".join(f"{value:0{bits}b}" for value in row).ljust(-(-width * bits // 8) * 8, "0"), 2
        )
        packed += b"\0" + number.to_bytes(-(-width * bits // 8), "big")
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header)
    if colour == 3:
        body += chunk(b"PLTE", bytes(3 * 2**bits))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")


def test_a_palette_is_read_as_indices_whatever_its_colours():
    palette = np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes()
    assert np.array_equal(decode_label(png(LABELS, palette=palette)), LABELS)


def test_grey_levels_are_read_as_they_are():
    assert np.array_equal(decode_label(png(LABELS)), LABELS)


@pytest.mark.parametrize("colour", [0, 3])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_few_bits_are_not_scaled(bits, colour):
    rows = np.arange(2 * 5).reshape(2, 5) % min(2**bits, 10)
    assert np.array_equal(decode_label(raw_png(rows.tolist(), bits, colour)), rows)


def test_sixteen_bits_are_read():
    labels = np.array([[0, 300], [65535, 12]], np.uint16)
    assert np.array_equal(decode_label(png(labels)), labels)


def test_colours_and_other_files_are_refused():
    for mode in ("RGB", "RGBA", "LA"):
        with pytest.raises(Unreadable, match=f"colours {mode}, and labels are numbers"):
            decode_label(png(LABELS, mode))
    jpeg = BytesIO()
    Image.fromarray(LABELS).save(jpeg, "JPEG")
    for data in (jpeg.getvalue(), b"", b"GIF89a"):
        with pytest.raises(Unreadable, match="from PNG files of one channel"):
            decode_label(data)
    with pytest.raises(Unreadable):
        decode_label(png(LABELS)[:50])


def test_the_labels_of_sbd_are_read():
    out = BytesIO()
    savemat(
        out, {"GTcls": {"Segmentation": LABELS, "Boundaries": np.zeros(3), "CategoriesPresent": 1}}
    )
    assert np.array_equal(decode_label(out.getvalue()), LABELS)
    other = BytesIO()
    savemat(other, {"GTinst": {"Segmentation": LABELS}})
    with pytest.raises(Unreadable, match="no labels of SBD"):
        decode_label(other.getvalue())


def test_the_size_comes_from_the_first_bytes():
    assert label_size(png(LABELS)[:26]) == (2, 3)
    assert label_size(png(LABELS)[:20]) is None
    assert label_size(b"MATLAB 5.0") is None


def test_values_become_classes():
    numbers = LabelMap((7, 8, 11), (0, 255))
    assert numbers(np.array([[7, 8, 11], [0, 255, 7]], np.uint8)).tolist() == [
        [0, 1, 2],
        [255, 255, 0],
    ]
    assert str(numbers) == "7 to 11 (without 9, 10) are the classes and 0, 255 are ignored"


@pytest.mark.parametrize(
    ("ignored", "values"), [(255, (0, 1, 2)), (3, (0, 1, 2)), (0, (1, 2, 3)), (1, (0, 2, 3))]
)
def test_classes_count_around_the_ignored_value(ignored, values):
    assert LabelMap.counting(3, ignored) == LabelMap(values, (ignored,))


def test_a_value_that_is_no_class_is_told():
    with pytest.raises(BadValue, match="values 9, 37") as found:
        LabelMap.counting(3, 255)(np.array([[0, 9], [37, 9]], np.uint8))
    assert found.value.pixels == 3
    for value in (-1, 70_000):
        with pytest.raises(BadValue, match=f"value {value}"):
            LabelMap.counting(3, 255)(np.array([[0, value]], np.int32))


def test_more_classes_than_a_byte_holds_have_two():
    assert (label_type(255), ignore_label(255)) == (np.uint8, 255)
    assert (label_type(256), ignore_label(256)) == (np.uint16, 65535)
    mapped = LabelMap.counting(300, 65535)(np.array([[299, 65535]], np.uint16))
    assert mapped.dtype == np.uint16
    assert mapped.tolist() == [[299, 65535]]
    with pytest.raises(UsageError, match="at most 65,535"):
        label_type(65_536)
