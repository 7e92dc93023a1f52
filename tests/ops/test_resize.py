import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.ops.resize import resize_bilinear, resize_nearest

SIZES = (
    ((1, 1), (5, 7)),
    ((1, 4), (3, 1)),
    ((2, 3), (2, 3)),
    ((4, 5), (9, 13)),
    ((13, 9), (5, 4)),
    ((7, 7), (7, 1)),
    ((33, 17), (264, 129)),
)
"""Height and width before and after: up, down, odd, one pixel, one axis alone, eightfold."""

every_size = pytest.mark.parametrize(("before", "after"), SIZES)
both_ways = pytest.mark.parametrize("align", [False, True], ids=["edges", "corners"])


def maps(size, channels=3, dtype=np.float32):
    rng = np.random.default_rng(sum(size))
    return rng.standard_normal((2, *size, channels)).astype(dtype)


def source(index, before, after, align):
    """The place of a pixel of the result in the maps, in pixels of these."""
    if align:
        return index * (before - 1) / (after - 1) if after > 1 else 0.0
    return (index + 0.5) * before / after - 0.5


def bilinear_by_hand(x, size, align):
    """The definition, pixel by pixel in float64: the edge goes on beyond the edge."""
    n, height, width, channels = x.shape
    out = np.zeros((n, *size, channels))
    for i in range(size[0]):
        row = min(max(source(i, height, size[0], align), 0), height - 1)
        top = int(row)
        low = min(top + 1, height - 1)
        for j in range(size[1]):
            column = min(max(source(j, width, size[1], align), 0), width - 1)
            left = int(column)
            right = min(left + 1, width - 1)
            down, along = row - top, column - left
            out[:, i, j] = (1 - down) * ((1 - along) * x[:, top, left] + along * x[:, top, right])
            out[:, i, j] += down * ((1 - along) * x[:, low, left] + along * x[:, low, right])
    return out


@both_ways
@every_size
def test_bilinear_is_the_definition(before, after, align):
    x = maps(before)
    found = resize_bilinear(x, after, align_corners=align)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, bilinear_by_hand(x, after, align), rtol=0, atol=1e-5)


@both_ways
def test_a_map_of_its_own_size_comes_back_as_it_is(align):
    x = maps((5, 6))
    np.testing.assert_array_equal(resize_bilinear(x, (5, 6), align_corners=align), x)


@both_ways
def test_one_pixel_fills_the_map_exactly(align):
    x = maps((1, 1))
    found = resize_bilinear(x, (4, 3), align_corners=align)
    np.testing.assert_array_equal(found, np.broadcast_to(x, (2, 4, 3, 3)))


def test_corners_stay_only_if_they_are_aligned():
    x = maps((3, 4))
    aligned = np.asarray(resize_bilinear(x, (8, 9), align_corners=True))
    for i in (0, -1):
        for j in (0, -1):
            np.testing.assert_allclose(aligned[:, i, j], x[:, i, j], rtol=1e-6)
    assert np.abs(aligned - resize_bilinear(x, (8, 9), align_corners=False)).max() > 0.1


def test_a_ramp_stays_a_ramp():
    ramp = np.broadcast_to(np.arange(5, dtype=np.float32)[None, :, None, None], (1, 5, 2, 1))
    found = resize_bilinear(ramp, (17, 3), align_corners=True)[0, :, 0, 0]
    np.testing.assert_allclose(found, np.arange(17) / 4, atol=1e-6)


@both_ways
@every_size
def test_the_gradient_is_the_transpose(before, after, align):
    x, y = maps(before), maps(after)
    out, pull = jax.vjp(lambda x: resize_bilinear(x, after, align_corners=align), x)
    (back,) = pull(jnp.asarray(y))
    np.testing.assert_allclose(np.vdot(out, y), np.vdot(x, back), rtol=1e-4, atol=1e-3)


def test_bfloat16_is_computed_in_float32():
    x = jnp.asarray(maps((5, 4)), jnp.bfloat16)
    found = resize_bilinear(x, (11, 9), align_corners=False)
    assert found.dtype == jnp.float32
    expected = resize_bilinear(x.astype(jnp.float32), (11, 9), align_corners=False)
    np.testing.assert_array_equal(found, expected)
    assert np.any(np.asarray(found.astype(jnp.bfloat16), np.float32) != found)


@every_size
def test_nearest_takes_the_pixel_at_the_floor(before, after):
    labels = np.random.default_rng(0).integers(0, 255, (2, *before), np.uint8)
    found = resize_nearest(labels, after)
    assert found.dtype == np.uint8
    rows = [i * before[0] // after[0] for i in range(after[0])]
    columns = [j * before[1] // after[1] for j in range(after[1])]
    np.testing.assert_array_equal(found, labels[:, rows][:, :, columns])


@pytest.fixture(scope="module")
def interpolate():
    torch = importlib.import_module("torch")

    def run(x, size, **fields):
        x = torch.from_numpy(x).permute(0, 3, 1, 2)
        y = torch.nn.functional.interpolate(x, size, **fields)
        return y.permute(0, 2, 3, 1).numpy()

    return run


@pytest.mark.slow
@both_ways
@pytest.mark.parametrize(
    ("before", "after"), [*SIZES, ((65, 65), (520, 520)), ((60, 45), (97, 31)), ((6, 6), (60, 1))]
)
def test_bilinear_is_pytorchs(interpolate, before, after, align):
    x = maps(before)
    expected = interpolate(x, after, mode="bilinear", align_corners=align)
    found = resize_bilinear(x, after, align_corners=align)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"), [*SIZES, ((65, 65), (520, 520)), ((60, 45), (97, 31)), ((100, 3), (7, 50))]
)
def test_nearest_is_pytorchs(interpolate, before, after):
    x = maps(before)
    np.testing.assert_array_equal(resize_nearest(x, after), interpolate(x, after, mode="nearest"))
