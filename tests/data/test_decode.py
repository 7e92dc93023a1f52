import re
import struct
import subprocess
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import EpsImagePlugin, Image, ImageOps

import senet_jax
from senet_jax.data import decode as module
from senet_jax.data.decode import Unreadable, decode, decode_crop, read_size
from senet_jax.data.formats import FORMATS


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


RAMP = np.linspace(0, 1, 256).reshape(16, 16)


def save(image, form="TIFF", **options):
    out = BytesIO()
    Image.fromarray(image).save(out, form, **options)
    return out.getvalue()


def scaled(greatest, dtype=np.uint16):
    return np.round(RAMP * greatest).astype(dtype)


def by_opencv(suffix, greatest, channels=3):
    image = np.repeat(scaled(greatest)[..., None], channels, axis=-1)
    if channels == 4:
        image[..., 3] = 65535
    return cv2.imencode(suffix, image)[1].tobytes()


GREY = scaled(65535) >> 8

SCALED = {
    "16 bits, PNG": (save(scaled(65535), "PNG"), GREY),
    "16 bits, TIFF": (save(scaled(65535)), GREY),
    "16 bits, big-endian TIFF": (save(scaled(65535).astype(">u2")), GREY),
    "16 bits, white is zero": (save(scaled(65535), tiffinfo={262: 0}), 255 - GREY),
    "12 bits that TIFF declares": (save(scaled(4095), tiffinfo={281: 4095}), scaled(4095) >> 4),
    "12 bits, PGM": (b"P5 16 16 4095\n" + scaled(4095, ">u2").tobytes(), GREY),
    "black in 16 bits": (save(scaled(0), "PNG"), scaled(0)),
    "colour in 16 bits": (by_opencv(".png", 65535), GREY),
    "black colour in 16 bits": (by_opencv(".png", 0), scaled(0)),
    "floats to 1": (save(RAMP.astype(np.float32)), np.rint(255 * RAMP)),
    "floats to 1, PFM": (save(RAMP.astype(np.float32), "PPM"), np.rint(255 * RAMP)),
}


@pytest.mark.parametrize("kind", SCALED)
def test_samples_of_more_than_8_bits_are_scaled(kind):
    data, expected = SCALED[kind]
    image = decode(data)
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image[..., 0].astype(int), expected, atol=kind.endswith("PGM"))
    assert np.array_equal(image, np.repeat(image[..., :1], 3, axis=-1))
    crop = decode_crop(data, (0, 0, 16, 16), 16, "bilinear")
    assert np.array_equal(crop, image)


REFUSED = {
    "12 bits in 16, TIFF": (save(scaled(4095)), "12 or fewer"),
    "12 bits in 16, PNG": (save(scaled(4095), "PNG"), "12 or fewer"),
    "8 bits in 16, PNG": (save(scaled(200), "PNG"), "12 or fewer"),
    "12 bits in 16, PGM": (save(scaled(4095, np.int32), "PPM"), "12 or fewer"),
    "colour of 12 bits, PNG": (by_opencv(".png", 4095), "12 or fewer"),
    "colour of 12 bits, TIFF": (by_opencv(".tiff", 4095), "12 or fewer"),
    "colour of 12 bits, PPM": (by_opencv(".ppm", 4095), "12 or fewer"),
    "colour of 8 bits in 16": (by_opencv(".png", 200), "12 or fewer"),
    "12 bits and opacity": (by_opencv(".png", 4095, 4), "12 or fewer"),
    "32-bit integers": (save((RAMP * 2**30).astype(np.int32)), "32-bit or signed"),
    "floats to 255": (save((255 * RAMP).astype(np.float32)), "outside 0 to 1"),
    "negative floats": (save((RAMP - 0.5).astype(np.float32)), "outside 0 to 1"),
    "not a number": (save((RAMP * np.nan).astype(np.float32)), "outside 0 to 1"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_samples_without_a_known_range_are_refused(kind):
    data, reason = REFUSED[kind]
    with pytest.raises(Unreadable, match=reason):
        decode(data)
    with pytest.raises(Unreadable, match=reason):
        decode_crop(data, (0, 0, 16, 16), 16, "bilinear")


MODES = ("1", "L", "P", "LA", "PA", "RGBA", "RGBX", "CMYK", "LAB", "YCbCr", "I;16", "I;16B", "F")


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_decoded_to_rgb(mode):
    white = Image.new("RGB", (9, 7), "white")
    if mode == "F":
        white = Image.new("F", (9, 7), 1.0)
    elif mode.startswith("I"):
        white = Image.fromarray(np.full((7, 9), 65535, ">u2" if mode.endswith("B") else "<u2"))
    out = BytesIO()
    white.convert(mode).save(out, "TIFF")
    image = decode(out.getvalue())
    assert image.shape == (7, 9, 3)
    assert image.min() >= 253


def test_images_are_decoded_to_the_channels_asked_for():
    data = encode(scene(), "PNG", "RGBA")
    assert decode(data, channels=4)[..., 3].min() == 255
    grey = np.asarray(Image.open(BytesIO(data)).convert("L"))
    assert np.array_equal(decode(data, channels=1)[..., 0], grey)


def test_the_orientation_of_exif_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(scene(), exif=exif, quality=95)
    assert decode(data).shape == (64, 96, 3)


def with_orientation(value, form, image=None):
    exif = Image.Exif()
    exif[0x0112] = value
    options = {"exif": exif, "quality": 95, "lossless": True}
    return encode(scene() if image is None else image, form, **options)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_the_orientation_of_exif_is_applied_if_asked(value, form):
    data = with_orientation(value, form)
    with Image.open(BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    assert read_size(data, True) == upright.shape[:2]
    assert upright.shape[:2] == ((64, 96) if value < 5 else (96, 64))
    np.testing.assert_allclose(decode(data, True).astype(int), upright, atol=2)
    left, top, side = 7, 12, 40
    crop = decode_crop(data, (left, top, side, side), side, "bilinear", True).astype(int)
    np.testing.assert_allclose(crop, upright[top : top + side, left : left + side], atol=2)


@pytest.mark.parametrize("value", [3, 6])
def test_a_reduced_crop_of_a_turned_jpeg_is_the_same_place(value):
    whole = scene(640, 480)
    data = with_orientation(value, "JPEG", whole)
    upright = np.rot90(whole, -1 if value == 6 else 2)
    box = (100, 200, 300, 260)
    crop = decode_crop(data, box, 32, "bilinear", True)
    part = upright[200:460, 100:400]
    expected = cv2.resize(np.ascontiguousarray(part), (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(crop[..., :2].astype(int), expected[..., :2], atol=6)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_a_damaged_exif_says_nothing(form):
    data = with_orientation(6, form)
    place = data.index(b"MM\0*" if b"MM\0*" in data else b"II*\0")
    damaged = data[:place] + b"??" + data[place + 2 :]
    assert decode(damaged, True).shape == (64, 96, 3)


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
    for length in (0, 3, 30, len(data) // 2):
        with pytest.raises(Unreadable):
            decode(data[:length])
        with pytest.raises(Unreadable):
            decode_crop(data[:length], (0, 0, 96, 64), 32, "bilinear")


def test_a_crop_above_the_end_of_a_cut_file_is_unreadable():
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


def test_a_header_of_too_many_pixels_is_refused_undecoded():
    data = bytearray(encode(scene()))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 65000, 65000)
    assert read_size(bytes(data)) == (65000, 65000)
    with pytest.raises(Unreadable):
        decode(bytes(data))


ELSEWHERE = ("EPS", "BLP", "ICNS", "DDS", "TGA", "PCX", "SGI", "XBM")


@pytest.mark.parametrize("form", ELSEWHERE)
def test_formats_that_are_not_listed_are_no_images(form, monkeypatch):
    def start(*arguments, **keywords):
        raise AssertionError("a program was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    monkeypatch.setattr(subprocess, "Popen", start)
    mode = {"BLP": "P", "XBM": "1"}.get(form, "RGB")
    data = encode(np.full((32, 32, 3), 200, np.uint8), form, mode)
    for read in (read_size, decode, lambda data: decode_crop(data, (0, 0, 8, 8), 8, "bilinear")):
        with pytest.raises(Unreadable, match="no image"):
            read(data)


def test_every_image_is_opened_with_the_list_of_formats():
    sources = Path(senet_jax.__file__).parent.rglob("*.py")
    calls = [
        call for file in sources for call in re.findall(r"Image\.open\((.*)\)", file.read_text())
    ]
    assert set(calls) == {"BytesIO(data), formats=FORMATS"}
    assert {"JPEG", "PNG", "TIFF", "WEBP"} <= set(FORMATS)
    assert not {"EPS", "WMF", "PDF"} & set(FORMATS)


ERRORS = (
    RuntimeError("AVIF"),
    NotImplementedError(),
    MemoryError(),
    subprocess.CalledProcessError(1, "gs"),
    cv2.error("OpenCV"),
    struct.error("short"),
    KeyError("AVIF"),
    Warning("PYTHONWARNINGS=error"),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_decoder_raises_is_a_broken_image(error, monkeypatch):
    def fail(*arguments, **keywords):
        raise error

    monkeypatch.setattr(module.Image, "open", fail)
    monkeypatch.setattr(module.simplejpeg, "decode_jpeg", fail)
    jpeg, png = encode(scene()), encode(scene(), "PNG")
    for read in (
        lambda: decode(jpeg),
        lambda: decode(png),
        lambda: read_size(png),
        lambda: decode_crop(jpeg, (0, 0, 8, 8), 8, "bilinear"),
        lambda: decode_crop(png, (0, 0, 8, 8), 8, "bilinear"),
    ):
        with pytest.raises(Unreadable, match=r".+"):
            read()


@pytest.mark.parametrize("form", ["AVIF", "JPEG2000", "ICO", "QOI", "PPM"])
def test_damage_in_other_formats_never_raises_anything_else(form):
    whole = encode(scene(), form)
    rng = np.random.default_rng(1)
    broken = 0
    for length in (*range(0, len(whole), len(whole) // 12), len(whole)):
        data = bytearray(whole[:length])
        for place in rng.integers(0, max(1, length), 3):
            data[place : place + 1] = bytes([rng.integers(256)])
        for read in (decode, lambda data: decode(data, True), read_size):
            try:
                read(bytes(data))
            except Unreadable:
                broken += 1
    assert broken
