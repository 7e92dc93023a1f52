import struct
from io import BytesIO

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from senet_jax.data import decode as module
from senet_jax.data.decode import Unreadable, decode, decode_crop, read_size


def scene(width=96, height=64):
    """A smooth image in which every place has a colour of its own."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1).astype(np.uint8)


def encode(image, form="JPEG", mode="RGB", **options):
    out = BytesIO()
    Image.fromarray(image).convert(mode).save(out, form, **options)
    return out.getvalue()


def pillow(data):
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


FORMS = {
    "colour": {"quality": 95},
    "fine chroma": {"quality": 95, "subsampling": 0},
    "grey": {"mode": "L"},
    "progressive": {"progressive": True},
    "CMYK": {"mode": "CMYK"},
    "PNG": {"form": "PNG"},
    "palette": {"form": "PNG", "mode": "P"},
    "alpha": {"form": "PNG", "mode": "RGBA"},
    "black and white": {"form": "PNG", "mode": "1"},
    "GIF": {"form": "GIF", "mode": "P"},
    "BMP": {"form": "BMP"},
}


@pytest.mark.parametrize("form", FORMS)
def test_whatever_it_is_encoded_as_it_is_what_pillow_shows(form):
    data = encode(scene(), **FORMS[form])
    assert read_size(data) == (64, 96)
    # Both are libjpeg-turbo; versions may round chroma differently.
    np.testing.assert_allclose(decode(data).astype(int), pillow(data), atol=2)
    crop = decode_crop(data, (0, 0, 64, 64), 64, "bilinear")
    np.testing.assert_allclose(crop.astype(int), pillow(data)[:, :64], atol=2)


def test_adobe_cmyk_is_inverted_and_ycck_converted():
    data = encode(np.full((16, 16, 3), (200, 30, 60), np.uint8), mode="CMYK", quality=100)
    assert b"Adobe" in data
    assert np.abs(decode(data).astype(int) - (200, 30, 60)).max() <= 8


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    out = BytesIO()
    Image.fromarray(values).save(out, "PNG")
    assert np.array_equal(decode(out.getvalue()), np.repeat(values[..., None] >> 8, 3, axis=-1))


def test_the_orientation_of_exif_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(scene(), exif=exif, quality=95)
    assert decode(data).shape == (64, 96, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_one_pixel_fills_the_square(form):
    data = encode(np.full((1, 1, 3), 77, np.uint8), form)
    assert read_size(data) == (1, 1)
    assert np.abs(decode_crop(data, (0, 0, 1, 1), 5, "bicubic").astype(int) - 77).max() <= 2


@pytest.mark.parametrize("quality", [50, 98])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(
    "box", [(0, 0, 32, 32), (7, 3, 32, 32), (40, 21, 32, 32), (64, 32, 32, 32)]
)
def test_rows_below_the_crop_do_not_matter(box, subsampling, quality):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    data = encode(noise, quality=quality, subsampling=subsampling)
    left, top, width, height = box
    whole = simplejpeg.decode_jpeg(data, "RGB")
    crop = decode_crop(data, box, 32, "bilinear")
    assert np.array_equal(crop, whole[top : top + height, left : left + width])


def test_rows_below_the_crop_are_not_decoded(monkeypatch):
    data = encode(scene(96, 640))
    shapes = []
    real = simplejpeg.decode_jpeg

    def spy(data, *args, buffer, **kwargs):
        shapes.append(buffer.shape)
        return real(data, *args, buffer=buffer, **kwargs)

    monkeypatch.setattr(module.simplejpeg, "decode_jpeg", spy)
    decode_crop(data, (0, 10, 96, 90), 64, "bilinear")
    decode_crop(data, (0, 0, 96, 640), 24, "bilinear")
    assert shapes == [(102, 96, 3), (160, 24, 3)]


@pytest.mark.parametrize("times", [1, 2, 3, 4, 8, 11])
def test_a_large_crop_is_the_mean_of_its_pixels_at_any_scale(times):
    side = 16
    image = scene(side * times, side * times)
    for form in ("JPEG", "PNG"):
        options = {"quality": 98, "subsampling": 0} if form == "JPEG" else {}
        data = encode(image, form, **options)
        crop = decode_crop(data, (0, 0, side * times, side * times), side, "bilinear")
        means = image.reshape(side, times, side, times, 3).mean(axis=(1, 3))
        # The third channel wraps around.
        np.testing.assert_allclose(crop[..., :2], means[..., :2], atol=6)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_truncated_file_is_unreadable(form):
    data = encode(scene(), form)
    for length in (0, 3, 30, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(Unreadable):
            decode(data[:length])
        with pytest.raises(Unreadable):
            decode_crop(data[:length], (0, 0, 96, 64), 32, "bilinear")


def test_a_crop_above_the_place_where_a_file_ends_is_still_unreadable():
    data = encode(scene(96, 640), quality=95)
    with pytest.raises(Unreadable, match="truncated"):
        decode_crop(data[: len(data) // 8], (0, 0, 96, 300), 32, "bilinear")


@pytest.mark.parametrize("data", [b"", b"no image at all", b"\xff\xd8\xff\xd9", b"\xff\xd8" * 50])
def test_what_is_no_image_is_unreadable(data):
    for read in (read_size, decode):
        with pytest.raises(Unreadable):
            read(data)


def test_damage_never_raises_anything_else():
    rng = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "GIF", "TIFF", "WEBP"):
        whole = encode(scene(), form)
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 4):
                data[place] = rng.integers(256)
            try:
                height, width = read_size(bytes(data))
                side = min(height, width, 500)
                image = decode_crop(bytes(data), (0, 0, side, side), 32, "bilinear")
            except Unreadable:
                continue
            assert image.shape == (32, 32, 3)


def test_a_header_that_promises_too_much_is_refused_before_it_is_decoded():
    data = bytearray(encode(scene()))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 65000, 65000)
    assert read_size(bytes(data)) == (65000, 65000)
    with pytest.raises(Unreadable):
        decode(bytes(data))
