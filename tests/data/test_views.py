import hashlib

import numpy as np
import pytest

from senet_jax.data.views import LONGEST, Views, center_view, ten_crop
from senet_jax.errors import UsageError

# SHA-256 of the results of torchvision 0.28's Resize(round(size / crop_pct), antialias=True) and
# CenterCrop(size), then TenCrop(size), for the image of `picture` in Pillow.
TORCHVISION = [
    (75, 100, 56, 0.875, "bilinear", "54624fd6bcc4", "760b0999bc44"),
    (100, 75, 56, 0.875, "bicubic", "7495706092f6", "894d98b60a99"),
    (61, 47, 33, 0.9, "bilinear", "df6dfff1d2bc", "74d6993755fc"),
    (48, 95, 33, 0.9, "bicubic", "4c0a9e780e74", "c2e0810a73a8"),
    (30, 17, 40, 1.0, "bilinear", "9aec073bbf57", "f07d574dfb8a"),
    (64, 64, 64, 1.0, "bicubic", "31781dd63dbd", "e69d8c9f5119"),
    (1, 9, 6, 0.7, "bilinear", "eafd550dc6bc", "5b6195f5bb62"),
    (5, 1, 6, 0.7, "bicubic", "f2afc04127a3", "eb41163f72be"),
]


def picture(height, width):
    row, column = np.arange(height)[:, None], np.arange(width)[None]
    colours = [row * 3 + column * 5, row * column, row * row + 7 * column]
    return np.stack(colours, -1).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "size", "pct", "how", "centre", "ten"), TORCHVISION)
def test_views_are_torchvisions_to_the_pixel(height, width, size, pct, how, centre, ten):
    image = picture(height, width)
    views = center_view(image, size, pct, how), ten_crop(image, size, pct, how)
    assert [hashlib.sha256(view.tobytes()).hexdigest()[:12] for view in views] == [centre, ten]


def triangle(x):
    return np.maximum(0, 1 - np.abs(x))


def cubic(x, a=-0.5):
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def weights(source, target, kernel):
    """Weights of a line's pixels in each pixel of the scaled line, by the filter's definition."""
    scale = source / target
    centre = (np.arange(target) + 0.5) * scale
    matrix = kernel((np.arange(source)[None] + 0.5 - centre[:, None]) / max(scale, 1))
    return matrix / matrix.sum(1, keepdims=True)


@pytest.mark.parametrize(("how", "kernel"), [("bilinear", triangle), ("bicubic", cubic)])
@pytest.mark.parametrize("shape", [(60, 91), (33, 20), (24, 24)])
def test_the_centre_is_the_centre_of_the_filtered_image(how, kernel, shape):
    rng = np.random.default_rng(0)
    image = rng.integers(60, 196, (*shape, 3), dtype=np.uint8)
    height, width = 32 * shape[0] // min(shape), 32 * shape[1] // min(shape)
    down, across = weights(shape[0], height, kernel), weights(shape[1], width, kernel)
    scaled = np.einsum("yh,xw,hwc->yxc", down, across, image.astype(float))
    top, left = (height - 28) // 2, (width - 28) // 2
    expected = scaled[top : top + 28, left : left + 28]
    # Pillow rounds to whole numbers after each direction.
    np.testing.assert_allclose(center_view(image, 28, 0.875, how), expected, atol=1.6)


def test_ten_crops_are_corners_centre_and_their_mirror_images():
    image = picture(20, 28)
    views = ten_crop(image, 16, 0.8, "bilinear")
    corners = [image[:16, :16], image[:16, 12:], image[4:, :16], image[4:, 12:], image[2:18, 6:22]]
    np.testing.assert_array_equal(views[:5], corners)
    mirrored = [corners[i][:, ::-1] for i in (1, 0, 3, 2, 4)]
    np.testing.assert_array_equal(views[5:], mirrored)


def test_an_image_that_is_the_size_asked_for_is_left_alone():
    image = picture(8, 8)[..., :1]
    np.testing.assert_array_equal(Views(8, crop_pct=1.0)(image), image[None])


@pytest.mark.parametrize("shape", [(1, 1), (1, 60_000), (60_000, 1)])
def test_images_of_one_pixel_and_very_long_ones_have_views(shape):
    image = np.zeros((*shape, 3), np.uint8)
    middle = (shape[0] // 2, shape[1] // 2)
    image[middle] = 255
    assert center_view(image, 56, 0.875, "bilinear").any()
    view = np.zeros((10, LONGEST * 10 + 100, 3), np.uint8)
    view[:, LONGEST * 5 + 50] = 200
    assert center_view(view, 4, 0.5, "bilinear").any()


def test_grey_images_keep_their_channel():
    image = picture(30, 40)
    grey = ten_crop(image[..., :1], 16, 0.8, "bicubic")
    np.testing.assert_array_equal(grey, ten_crop(image, 16, 0.8, "bicubic")[..., :1])


@pytest.mark.parametrize(
    ("size", "pct", "message"),
    [(0, 0.875, "at least 1 pixel, not 0"), (8, 1.2, "at most 1 .* not 1.2"), (8, 0, "not 0")],
)
def test_views_that_cannot_be_are_refused(size, pct, message):
    with pytest.raises(UsageError, match=message):
        Views(size, crop_pct=pct)
